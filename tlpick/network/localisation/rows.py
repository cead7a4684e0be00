"""Stores the voxels of classes as bits, so that a few instructions count those in a run along x.

A row of constant (z, y) is a row of 64-bit words, stored with the number of voxels before each word and the
sum of their positions. A volume takes a third of a byte per voxel and class, and the number of voxels in a
run, and the sum of their positions, take the same time for any length of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_BITS = 64
_ONE = np.uint64(1)
# Positions in a word whose number has bit 0, 1, ... 5 set.
_P0 = np.uint64(0xAAAAAAAAAAAAAAAA)
_P1 = np.uint64(0xCCCCCCCCCCCCCCCC)
_P2 = np.uint64(0xF0F0F0F0F0F0F0F0)
_P3 = np.uint64(0xFF00FF00FF00FF00)
_P4 = np.uint64(0xFFFF0000FFFF0000)
_P5 = np.uint64(0xFFFFFFFF00000000)


@dataclass(frozen=True, eq=False)
class Rows:
    """The voxels of some classes in a box.

    Attributes
    ----------
    bits
        (classes, z, y, words + 1) the last word of a row is empty.
    before
        (classes, z, y, words + 1) voxels of the row before each word.
    sums
        (classes, z, y, words + 1) sum of their positions along x.
    """

    bits: NDArray[np.uint64]
    before: NDArray[np.int32]
    sums: NDArray[np.int64]


def pack(box: NDArray[np.uint8], labels: Sequence[int]) -> tuple[Rows, list[int]]:
    """Convert a box of labels to bits.

    Parameters
    ----------
    box
        (z, y, x) class of each voxel.
    labels
        The classes to convert; others are left out, and so are classes that do not occur in the box.

    Returns
    -------
    Rows, list of int
        The rows, and the label of each of their classes.
    """
    nz, ny, nx = box.shape
    words = -(-nx // _BITS)
    if nx % _BITS or not box.flags.c_contiguous:
        padded = np.zeros((nz, ny, words * _BITS), np.uint8)
        padded[:, :, :nx] = box
    else:
        padded = box
    eights = padded.view(np.uint64)
    there = _present(padded, eights)
    packed = [label for label in labels if there[label]]
    slot = np.full(256, -1, np.int64)
    slot[packed] = np.arange(len(packed))
    bits = np.zeros((len(packed), nz, ny, words + 1), np.uint64)
    _fill(padded, eights, slot, bits)
    before = np.empty(bits.shape, np.int32)
    sums = np.empty(bits.shape, np.int64)
    _add_up(bits, before, sums)
    return Rows(bits, before, sums), packed


def _popcount(_typing: Any, _word: Any) -> Any:
    """Generate the processor's instruction that counts the bits of a word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(_BITS)
        function = builder.module.declare_intrinsic("llvm.ctpop", [word])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), generate


popcount: Any = intrinsic(_popcount)


@numba.njit(inline="always")
def _positions(word: Any) -> Any:
    """Add up the positions of a word's bits."""
    return np.int64(
        popcount(word & _P0)
        + (popcount(word & _P1) << _ONE)
        + (popcount(word & _P2) << np.uint64(2))
        + (popcount(word & _P3) << np.uint64(3))
        + (popcount(word & _P4) << np.uint64(4))
        + (popcount(word & _P5) << np.uint64(5))
    )


@numba.njit(inline="always")
def between(
    bits: NDArray[np.uint64], before: NDArray[np.int32], sums: NDArray[np.int64], begin: int, end: int
) -> Any:
    """Count the voxels of one row from position ``begin`` to before ``end``, and add up their positions."""
    u, v = begin >> 6, end >> 6
    upper = (_ONE << np.uint64(end & 63)) - _ONE
    lower = (_ONE << np.uint64(begin & 63)) - _ONE
    if u == v:
        part = bits[u] & upper & ~lower
        if part == 0:
            return 0, 0
        n = np.int64(popcount(part))
        return n, _positions(part) + (n * u << 6)
    tail, head = bits[v] & upper, bits[u] & lower
    n_tail, n_head = np.int64(popcount(tail)), np.int64(popcount(head))
    n = before[v] - before[u] + n_tail - n_head
    if n == 0:
        return 0, 0
    total = sums[v] - sums[u] + _positions(tail) - _positions(head) + (n_tail * v - n_head * u << 6)
    return n, total


@numba.njit(cache=True, nogil=True)
def _present(box: NDArray[np.uint8], eights: NDArray[np.uint64]) -> NDArray[np.bool_]:
    there = np.zeros(256, np.bool_)
    nz, ny, n = eights.shape
    for z in range(nz):
        for y in range(ny):
            last = np.uint64(0)
            for e in range(n):
                if eights[z, y, e] != last:
                    last = eights[z, y, e]
                    for x in range(8 * e, 8 * e + 8):
                        there[box[z, y, x]] = True
    return there


@numba.njit(cache=True, nogil=True)
def _fill(box: NDArray[np.uint8], eights: NDArray[np.uint64], slot: Ints, bits: NDArray[np.uint64]) -> None:
    nz, ny, n = eights.shape
    for z in range(nz):
        for y in range(ny):
            for e in range(n):
                if eights[z, y, e] != 0:
                    for x in range(8 * e, 8 * e + 8):
                        k = slot[box[z, y, x]]
                        if k >= 0:
                            bits[k, z, y, x >> 6] |= _ONE << np.uint64(x & 63)


@numba.njit(cache=True, nogil=True)
def _add_up(bits: NDArray[np.uint64], before: NDArray[np.int32], sums: NDArray[np.int64]) -> None:
    nk, nz, ny, words = bits.shape
    for k in range(nk):
        for z in range(nz):
            for y in range(ny):
                n: Any = 0
                s: Any = 0
                row = bits[k, z, y]
                for w in range(words):
                    before[k, z, y, w] = n
                    sums[k, z, y, w] = s
                    if row[w] != 0:
                        word = row[w]
                        here = np.int64(popcount(word))
                        s += _positions(word) + (here * w << 6)
                        n += here
