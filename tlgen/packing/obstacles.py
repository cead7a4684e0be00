"""Bins as bits: which are occupied, where a molecule does not fit, and where it has most contact.

The inner loops of :mod:`tlgen.packing.bins`. Bins along z are the bits of 64-bit words, so that one shift and
one OR test 64 positions at once, and words that follow each other along y are tested together.

Two kinds of dilated copies of the occupied bins are kept: *spans*, dilated along z, and *cubes*, dilated
along all three axes. One test of a cube tells whether any of its bins is occupied. A few cubes from the
inside of a molecule exclude most positions in a crowded box, and a few cubes around it find free positions;
only if neither decides are all its bins tested, by spans.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

#: Bits of a word.
BITS = 64
#: Copies 0, 1, ... 5 are smeared by spans of 1, 2, ... 32 bins: a run of up to 63 bins is two of them.
SPANS = 6
#: Copies 6, 7, 8 and 9 are smeared by cubes with edges of 2, 4, 8 and 16 bins.
CUBES = 4
#: Words along y that are tested together.
BLOCK = 8
#: Only every n-th run of a shell is tested first.
_THINNED = 6
_ONE = np.uint64(1)
_LAST = np.uint64(BITS - 1)
_ALL = ~np.uint64(0)

Bits = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


def _ctpop(typing_context: Any, bits: Any) -> Any:
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


def _cttz(typing_context: Any, bits: Any) -> Any:
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.cttz(
        args[0], ir.Constant(ir.IntType(1), 1)
    )


#: Counts the bits of a word that are set: one instruction.
_count: Any = intrinsic(_ctpop)
#: Finds the lowest bit of a word that is set; there must be one.
_lowest_bit: Any = intrinsic(_cttz)


def bits(first: int, end: int, words: int) -> Bits:
    """Make words with the bits first ... end - 1 set."""
    flags = np.zeros(words * BITS, np.uint8)
    flags[first:end] = 1
    return np.packbits(flags, bitorder="little").view("<u8").astype(np.uint64)


@njit(cache=True)
def runs(mask: Bytes) -> Integers:
    """List the mask's runs along z, of 63 bins at most: (n, 4) x, y, first z, length; the longest first."""
    runs = np.empty((np.count_nonzero(mask), 4), np.int64)
    n = 0
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            k = 0
            while k < mask.shape[2]:
                start = k
                while k < mask.shape[2] and mask[i, j, k] and k - start < BITS - 1:
                    k += 1
                if k > start:
                    runs[n] = (i, j, start, k - start)
                    n += 1
                else:
                    k += 1
    return runs[np.argsort(-runs[:n, 3], kind="mergesort")]


@njit(cache=True)
def spans(runs: Integers) -> Integers:
    """Cover runs by spans: (n, 4) x, y, first z, copy."""
    spans = np.empty((2 * len(runs), 4), np.int64)
    n = 0
    for r in range(len(runs)):
        x, y, first, length = runs[r]
        p = 0
        while (2 << p) <= length:
            p += 1
        spans[n] = (x, y, first, p)
        n += 1
        if length > 1 << p:
            spans[n] = (x, y, first + length - (1 << p), p)
            n += 1
    return spans[:n]


@njit(cache=True)
def cubes_within(mask: Bytes, most: int) -> Integers:
    """Find a few cubes inside a mask with little overlap, the largest first.

    Returns (n, 4) lowest corner x, y, z and copy.
    """
    nx, ny, nz = mask.shape
    found = np.empty((most, 4), np.int64)
    n = 0
    # full[x, y, z]: power of two, plus one, of the biggest cube that lies in the mask from here on
    full = mask.copy()
    for p in range(1, CUBES + 1):
        h = 1 << (p - 1)
        for x in range(nx - 2 * h + 1):
            for y in range(ny - 2 * h + 1):
                for z in range(nz - 2 * h + 1):
                    if (
                        full[x, y, z] == p
                        and full[x + h, y, z] >= p
                        and full[x, y + h, z] >= p
                        and full[x, y, z + h] >= p
                        and full[x + h, y + h, z] >= p
                        and full[x + h, y, z + h] >= p
                        and full[x, y + h, z + h] >= p
                        and full[x + h, y + h, z + h] >= p
                    ):
                        full[x, y, z] = p + 1
    free = mask.copy()
    for p in range(CUBES, 1, -1):
        edge = 1 << p
        for x in range(nx - edge + 1):
            for y in range(ny - edge + 1):
                for z in range(nz - edge + 1):
                    if full[x, y, z] <= p or n == most:
                        continue
                    h = edge // 2  # new, if its corners and its middle are: not exact, but quick
                    if (
                        free[x + h, y + h, z + h]
                        and free[x, y, z]
                        and free[x + edge - 1, y, z]
                        and free[x, y + edge - 1, z]
                        and free[x, y, z + edge - 1]
                        and free[x + edge - 1, y + edge - 1, z + edge - 1]
                    ):
                        found[n] = (x, y, z, SPANS + p - 1)
                        n += 1
                        free[x : x + edge, y : y + edge, z : z + edge] = 0
    return found[:n]


@njit(cache=True)
def cubes_around(shape: tuple[int, int, int]) -> Integers:
    """Cover a whole mask by the biggest cubes, which may reach beyond it: (n, 4) x, y, z, copy."""
    edge = 1 << CUBES
    nx, ny, nz = -(-shape[0] // edge), -(-shape[1] // edge), -(-shape[2] // edge)
    cubes = np.empty((nx * ny * nz, 4), np.int64)
    for c in range(len(cubes)):
        x, y, z = c // (ny * nz), c // nz % ny, c % nz
        cubes[c] = (x * edge, y * edge, z * edge, SPANS + CUBES - 1)
    return cubes


@njit(cache=True)
def forbidden(
    copies: Bits,
    cubes: Integers,
    spans: Integers,
    around: Integers,
    allowed: Bits,
    lo: Integers,
    hi: Integers,
) -> Bits:
    """Find the corners at which a mask would overlap an occupied bin.

    The mask is given as cubes within it, as spans that cover it, and as cubes around all of it, if the open
    is to be told early. Returns
    [word, x - lo + 1, y - lo + 1], bit z; known for lo - 1 <= x, y <= hi, at bits that are allowed or beside
    one that is free.
    """
    words = len(allowed)
    rows = hi[0] - lo[0] + 2
    blocks = -(-(hi[1] - lo[1] + 2) // BLOCK)
    forbidden = np.zeros((words, rows, blocks * BLOCK), np.uint64)
    # All indices are unsigned, and flat: else numba looks for negative ones, and nothing is vectorised.
    cube_at, cube_bit = _offsets(cubes, copies.shape)
    span_at, span_bit = _offsets(spans, copies.shape)
    around_at, around_bit = _offsets(around, copies.shape)
    flat = copies.reshape(-1)
    plane = np.uint64(copies.shape[2] * copies.shape[3])
    near = np.empty(BLOCK, np.uint64)
    for w in range(words):
        free = allowed[w]
        if free == 0:
            continue
        for i in range(rows):
            start = (w * copies.shape[2] + lo[0] - 1 + i) * copies.shape[3] + lo[1] - 1
            for b in range(blocks):
                block = forbidden[w, i, b * BLOCK : (b + 1) * BLOCK]
                at = np.uint64(start + b * BLOCK)
                _meet(block, flat, at, cube_at, cube_bit, plane, free, 4)
                if _full(block, free):
                    continue
                near[:] = 0
                _meet(near, flat, at, around_at, around_bit, plane, free, 4)
                if len(around_at) == 0 or not _empty(near, free):
                    _meet(block, flat, at, span_at, span_bit, plane, free, 16)
    return forbidden


@njit(cache=True)
def _offsets(boxes: Integers, shape: tuple[int, int, int, int]) -> tuple[Bits, Bits]:
    """Offsets of the words of cubes or spans from those of the corner, and shifts in bits."""
    at, bit = np.empty(len(boxes), np.uint64), np.empty(len(boxes), np.uint64)
    for r in range(len(boxes)):
        i, j, k, copy = boxes[r]
        at[r] = np.uint64(((copy * shape[1] + k // BITS) * shape[2] + i) * shape[3] + j)
        bit[r] = np.uint64(k % BITS)
    return at, bit


@njit(cache=True)
def _meet(
    block: Bits,
    copies: Bits,
    start: np.uint64,
    at: Bits,
    bit: Bits,
    plane: np.uint64,
    free: np.uint64,
    often: int,
) -> None:
    """Set the bits that are set in the copies, until none is free; that is looked at every so often.

    The next word along z lies a plane further.
    """
    for r in range(len(at)):
        if r % often == 0 and r and _full(block, free):
            return
        here, shift = start + at[r], bit[r]
        back = _LAST - shift
        for t in range(np.uint64(BLOCK)):
            block[t] |= (copies[here + t] >> shift) | ((copies[here + plane + t] << _ONE) << back)


@njit(cache=True)
def _full(block: Bits, bits: np.uint64) -> bool:
    clear = np.uint64(0)
    for t in range(np.uint64(BLOCK)):
        clear |= ~block[t] & bits
    return clear == 0


@njit(cache=True)
def _empty(block: Bits, bits: np.uint64) -> bool:
    found = np.uint64(0)
    for t in range(np.uint64(BLOCK)):
        found |= block[t] & bits
    return found == 0


@njit(cache=True)
def candidates(
    forbidden: Bits, allowed: Bits, lo: Integers, hi: Integers, most: int, salt: np.uint64, wedged: bool
) -> Integers:
    """List free corners next to forbidden ones: (n, 3) x, y, z; if there are too many, a random part of them.

    If ``wedged``, only those with a forbidden neighbour along each axis: a molecule that could still slide is
    not as close as possible.
    """
    words = forbidden.shape[0]
    found = np.empty((2 * most, 3), np.int64)
    limit = _ALL  # those whose hash is above it are left out
    n = 0
    for x in range(1, hi[0] - lo[0] + 1):
        for y in range(1, hi[1] - lo[1] + 1):
            for w in range(words):
                here = forbidden[w, x, y]
                free = ~here & allowed[w]
                if free == 0:
                    continue
                along_x = forbidden[w, x - 1, y] | forbidden[w, x + 1, y]
                along_y = forbidden[w, x, y - 1] | forbidden[w, x, y + 1]
                along_z = (here << _ONE) | (here >> _ONE)
                if w > 0:
                    along_z |= forbidden[w - 1, x, y] >> _LAST
                if w + 1 < words:
                    along_z |= forbidden[w + 1, x, y] << _LAST
                beside = free & (along_x & along_y & along_z if wedged else along_x | along_y | along_z)
                while beside != 0:
                    z = w * BITS + _lowest_bit(beside)
                    beside &= beside - _ONE
                    if _hash(x, y, z, salt) > limit:
                        continue
                    if n == len(found):  # keep about half of them
                        limit >>= _ONE
                        n = 0
                        for c in range(len(found)):
                            i, j, k = found[c]
                            if _hash(i - lo[0] + 1, j - lo[1] + 1, k, salt) <= limit:
                                found[n] = found[c]
                                n += 1
                        if n == len(found) or _hash(x, y, z, salt) > limit:
                            continue
                    found[n] = (x + lo[0] - 1, y + lo[1] - 1, z)
                    n += 1
    return found[:n]


@njit(cache=True)
def most_contact(
    columns: Bits, corners: Integers, shell: Integers, finalists: int, salt: np.uint64
) -> tuple[int, int]:
    """Find the corner where a shell, given as runs, holds most occupied bins.

    All corners are evaluated with some of the runs, and the best ones with all. Returns the contact, 0 if
    there is none, and the index of the corner. The salt decides between equal corners.
    """
    few = shell[:: max(1, min(_THINNED, len(shell) // _THINNED))]
    scores = np.empty(len(corners), np.int64)
    for c in range(len(corners)):
        scores[c] = _contact(columns, corners[c], few)
    enough = 0
    if len(corners) > finalists:
        enough = np.sort(scores)[len(corners) - finalists]
    most, rank, found = 0, np.uint64(0), -1
    for c in range(len(corners)):
        if scores[c] < enough:
            continue
        contact = _contact(columns, corners[c], shell)
        if contact > 0 and contact >= most:
            own = _hash(corners[c, 0], corners[c, 1], corners[c, 2], salt)
            if contact > most or own > rank:
                most, rank, found = contact, own, c
    return most, found


@njit(cache=True)
def _contact(columns: Bits, corner: Integers, shell: Integers) -> int:
    """Count the occupied bins in the runs of a shell."""
    x, y, z = corner[0], corner[1], corner[2]
    contact = 0
    for r in range(len(shell)):
        first = z + shell[r, 2]
        q, bit = first // BITS, np.uint64(first % BITS)
        column = columns[x + shell[r, 0], y + shell[r, 1]]
        bits = (column[q] >> bit) | ((column[q + 1] << _ONE) << (_LAST - bit))
        contact += _count(bits & ((_ONE << np.uint64(shell[r, 3])) - _ONE))
    return contact


@njit(cache=True)
def nearest_free(
    forbidden: Bits, allowed: Bits, lo: Integers, hi: Integers, target: NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """Find the free corner nearest to a target. Returns 0 and the corner, or -1 first if none is free."""
    nearest, found, corner = np.inf, -1, (-1, -1, -1)
    for x in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            flat = (x - target[0]) ** 2 + (y - target[1]) ** 2
            if flat >= nearest:
                continue
            for w in range(forbidden.shape[0]):
                free = ~forbidden[w, x - lo[0] + 1, y - lo[1] + 1] & allowed[w]
                while free != 0:
                    z = w * BITS + _lowest_bit(free)
                    free &= free - _ONE
                    far = flat + (z - target[2]) ** 2
                    if far < nearest:
                        nearest, found, corner = far, 0, (x, y, z)
    return found, corner[0], corner[1], corner[2]


@njit(cache=True)
def stamp(columns: Bits, copies: Bits, mask: Bytes, corner: Integers) -> None:
    """Occupy the bins of a mask at a corner, and update the dilated copies.

    There may be fewer copies than all, if the biggest cubes are not looked at.
    """
    nx, ny, words = columns.shape
    words -= 1
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            x, y = corner[0] + i, corner[1] + j
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    z = corner[2] + k
                    columns[x, y, z // BITS] |= _ONE << np.uint64(z % BITS)
            copies[0, :words, x, y] = columns[x, y, :words]
            for p in range(1, SPANS):
                _smear_along_z(copies[p - 1, :words, x, y], copies[p, :words, x, y], np.uint64(1 << (p - 1)))
    below = copies[0]
    for p in range(len(copies) - SPANS):
        step = 1 << p
        reach = 2 * step - 1
        own = copies[SPANS + p]
        for x in range(max(0, corner[0] - reach), corner[0] + mask.shape[0]):
            for y in range(max(0, corner[1] - reach), corner[1] + mask.shape[1]):
                for w in range(words):
                    bits = below[w, x, y]
                    if x + step < nx:
                        bits |= below[w, x + step, y]
                    if y + step < ny:
                        bits |= below[w, x, y + step]
                    if x + step < nx and y + step < ny:
                        bits |= below[w, x + step, y + step]
                    own[w, x, y] = bits
                _smear_along_z(own[:words, x, y], own[:words, x, y], np.uint64(step))
        below = own


@njit(cache=True)
def _smear_along_z(source: Bits, target: Bits, step: np.uint64) -> None:
    """Set the bits that are set, or are ``step`` bins higher, in a column; in place if need be."""
    words = len(source)
    for w in range(words):
        bits = source[w]
        bits |= bits >> step
        if w + 1 < words:
            bits |= source[w + 1] << (np.uint64(BITS) - step)
        target[w] = bits


@njit(cache=True)
def _hash(x: int, y: int, z: int, salt: np.uint64) -> np.uint64:
    """Scramble a position; another salt gives another order (the finalizer of SplitMix64)."""
    word = salt + np.uint64(x) * np.uint64(0x9E3779B97F4A7C15)
    word ^= np.uint64(y) << np.uint64(21) ^ np.uint64(z) << np.uint64(42)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
