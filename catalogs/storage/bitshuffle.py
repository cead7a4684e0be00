"""Undoes the bit shuffle of four-byte values, several times faster than the wheels of ``numcodecs``.

Blosc's filter (described by Masui et al., Astron. Comput. 12, 181, 2015) puts the first bits of all values
together, then all second bits, and so on: 32 planes of bits in each block. The wheels are built for
processors without wide registers, while the code here is compiled for this machine. The flag for shuffling in
the chunk's header (README_CHUNK_FORMAT of c-blosc) is cleared, so that Blosc only decompresses; then the bits
are sorted.
"""

from __future__ import annotations

import sys
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

U = np.uint64
Words = NDArray[np.uint64]

_VERSION, _FLAGS, _TYPE_SIZE, _BYTES, _BLOCK = 0, 2, 3, slice(4, 8), slice(8, 12)
_SHUFFLES, _BIT_SHUFFLE = 0b111, 0b100  # flags of the filters, and of chunks that are not compressed
_TILE = 2048  # values that are sorted at a time, within the fastest cache


def is_shuffled(raw: NDArray[np.uint8]) -> bool:
    """Return whether :func:`put_in_order` can handle a compressed chunk."""
    block, size = int(raw[_BLOCK].view("<u4")[0]), int(raw[_BYTES].view("<u4")[0])
    return bool(
        sys.byteorder == "little"
        and (raw[_VERSION], raw[_TYPE_SIZE], raw[_FLAGS] & _SHUFFLES) == (2, 4, _BIT_SHUFFLE)
        and block
        and not block % (4 * _TILE)
        and not size % block
    )


def forget_shuffle(raw: NDArray[np.uint8]) -> int:
    """Decompress a chunk without sorting its bits; return the bytes of a block."""
    raw[_FLAGS] &= ~np.uint8(_BIT_SHUFFLE)
    return int(raw[_BLOCK].view("<u4")[0])


def put_in_order(shuffled: NDArray[np.uint8], block: int, out: NDArray[np.uint8]) -> None:
    """Sort the bits of four-byte values.

    Parameters
    ----------
    shuffled
        Output of Blosc.
    block
        Bytes of its blocks.
    out
        Result, of the same size.
    """
    tile = np.empty(4 * _TILE, np.uint8)
    _put_in_order(shuffled.view(U), block, out.view(np.uint32), tile.view(U), tile)


@numba.njit(cache=True, nogil=True)
def _put_in_order(
    shuffled: Words, block: int, out: NDArray[np.uint32], rows: Words, same: NDArray[np.uint8]
) -> None:
    plane, words = U(block // 256), U(block // 8)  # words of a plane, and of a block
    for b in range(U(len(shuffled)) // words):
        for j in range(U(0), plane, U(_TILE // 64)):
            _bytes_of_planes(shuffled, b * words + j, plane, rows)
            _values_of_bytes(same, out, b * words * U(2) + j * U(64))


@numba.njit(inline="always")
def _bytes_of_planes(planes: Words, first: U, plane: U, rows: Words) -> None:
    """Turn 8 planes of bits at a time into 8 rows of bytes; row r has every eighth value from r on."""
    n = U(_TILE // 64)
    for k in range(U(4)):
        for j in range(n):
            a, w = first + k * U(8) * plane + j, k * U(8) * n + j
            b0, b1, b2, b3 = planes[a], planes[a + plane], planes[a + U(2) * plane], planes[a + U(3) * plane]
            a += U(4) * plane
            b4, b5, b6, b7 = planes[a], planes[a + plane], planes[a + U(2) * plane], planes[a + U(3) * plane]
            # 8 matrices of 8 x 8 bits, one in each byte, are transposed side by side
            b0, b1 = _swapped(b0, b1, U(1), U(0x5555555555555555))
            b2, b3 = _swapped(b2, b3, U(1), U(0x5555555555555555))
            b4, b5 = _swapped(b4, b5, U(1), U(0x5555555555555555))
            b6, b7 = _swapped(b6, b7, U(1), U(0x5555555555555555))
            b0, b2 = _swapped(b0, b2, U(2), U(0x3333333333333333))
            b1, b3 = _swapped(b1, b3, U(2), U(0x3333333333333333))
            b4, b6 = _swapped(b4, b6, U(2), U(0x3333333333333333))
            b5, b7 = _swapped(b5, b7, U(2), U(0x3333333333333333))
            b0, b4 = _swapped(b0, b4, U(4), U(0x0F0F0F0F0F0F0F0F))
            b1, b5 = _swapped(b1, b5, U(4), U(0x0F0F0F0F0F0F0F0F))
            b2, b6 = _swapped(b2, b6, U(4), U(0x0F0F0F0F0F0F0F0F))
            b3, b7 = _swapped(b3, b7, U(4), U(0x0F0F0F0F0F0F0F0F))
            rows[w], rows[w + n], rows[w + U(2) * n], rows[w + U(3) * n] = b0, b1, b2, b3
            w += U(4) * n
            rows[w], rows[w + n], rows[w + U(2) * n], rows[w + U(3) * n] = b4, b5, b6, b7


@numba.njit(inline="always")
def _swapped(a: U, b: U, shift: U, mask: U) -> tuple[U, U]:
    """Exchange the bits of ``a`` under the shifted mask with the bits of ``b`` under the mask."""
    t = ((a >> shift) ^ b) & mask
    return a ^ (t << shift), b ^ t


@numba.njit(inline="always")
def _values_of_bytes(rows: NDArray[np.uint8], out: NDArray[np.uint32], first: U) -> None:
    n = U(_TILE // 8)
    for j in range(n):
        w = first + U(8) * j  # eight neighbouring values, for which the compiler uses whole registers
        out[w], out[w + U(1)] = _value(rows, j), _value(rows, j + n)
        out[w + U(2)], out[w + U(3)] = _value(rows, j + U(2) * n), _value(rows, j + U(3) * n)
        out[w + U(4)], out[w + U(5)] = _value(rows, j + U(4) * n), _value(rows, j + U(5) * n)
        out[w + U(6)], out[w + U(7)] = _value(rows, j + U(6) * n), _value(rows, j + U(7) * n)


@numba.njit(inline="always")
def _value(rows: NDArray[np.uint8], at: Any) -> Any:
    """Join the four bytes of a value, the lowest first."""
    n = U(_TILE)
    low = np.uint32(rows[at]) | np.uint32(np.uint32(rows[at + n]) << np.uint32(8))
    high = np.uint32(rows[at + U(2) * n]) | np.uint32(np.uint32(rows[at + U(3) * n]) << np.uint32(8))
    return low | np.uint32(high << np.uint32(16))
