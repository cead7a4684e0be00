"""Bins as bits: what is occupied, where a molecule may not stand, and where it touches the most.

The inner loops of :mod:`tlgen.tetris`. Bins along z are the bits of 64-bit words, so that one shift and one
OR test 64 positions at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Bits of a word.
BITS = 64
#: Copies of the occupied bins, smeared by 1, 2, 4, ... 32 bins: a run of up to 63 bins is two of them.
COPIES = 6
_ONE = np.uint64(1)

Bits = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


def bits(first: int, end: int, words: int) -> Bits:
    """Make words with the bits first ... end - 1 set."""
    flags = np.zeros(words * BITS, np.uint8)
    flags[first:end] = 1
    return np.packbits(flags, bitorder="little").view("<u8").astype(np.uint64)


@njit(cache=True)
def rasterise(points: NDArray[np.float64], shape: Integers, gap: float) -> tuple[Bytes, Bytes]:
    """Mark the bins that hold a point, and those with any point of space nearer than ``gap`` to one.

    All in units of bins; ``shape`` must leave room for the reach.
    """
    occupied = np.zeros((shape[0], shape[1], shape[2]), np.uint8)
    reach = np.zeros((shape[0], shape[1], shape[2]), np.uint8)
    n = int(np.ceil(gap))
    for a in range(len(points)):
        x, y, z = points[a]
        i, j, k = int(x), int(y), int(z)
        occupied[i, j, k] = 1
        for di in range(-n, n + 1):
            dx = _distance(x - i, di)
            if dx >= gap:
                continue
            for dj in range(-n, n + 1):
                dy = _distance(y - j, dj)
                if dx * dx + dy * dy >= gap * gap:
                    continue
                for dk in range(-n, n + 1):
                    dz = _distance(z - k, dk)
                    if dx * dx + dy * dy + dz * dz < gap * gap:
                        reach[i + di, j + dj, k + dk] = 1
    return occupied, reach


@njit(cache=True)
def _distance(within: float, step: int) -> float:
    """Distance along an axis from a point ``within`` its bin (0 to 1) to the bin ``step`` bins on."""
    if step > 0:
        return step - within
    if step < 0:
        return within - step - 1
    return 0.0


@njit(cache=True)
def grown(mask: Bytes) -> Bytes:
    """Add all 26 neighbours of each bin of a mask that leaves room for them."""
    grown = np.zeros_like(mask)
    for i in range(1, mask.shape[0] - 1):
        for j in range(1, mask.shape[1] - 1):
            for k in range(1, mask.shape[2] - 1):
                if mask[i, j, k]:
                    grown[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 1
    return grown


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
def forbidden(smeared: Bits, runs: Integers, lo: Integers, hi: Integers) -> Bits:
    """Tell at which corners a mask, given as runs, would meet an occupied bin.

    Returns [word, x, y], bit z; known for lo - 1 <= x, y <= hi and zero beyond.
    """
    words, nx, ny = smeared.shape[1:]
    forbidden = np.zeros((words, nx, ny), np.uint64)
    y0, y1 = max(0, lo[1] - 1), min(ny, hi[1] + 1)
    for x in range(max(0, lo[0] - 1), min(nx, hi[0] + 1)):
        for r in range(len(runs)):
            i, j, first, length = runs[r]
            p = 0
            while (2 << p) <= length:
                p += 1
            # a run is covered by two spans of 2**p bins, or is one
            for start in (first, first + length - (1 << p)):
                skipped, bit = start // BITS, np.uint64(start % BITS)
                for w in range(words - skipped):
                    out = forbidden[w, x]
                    low = smeared[p, w + skipped, x + i]
                    if bit == 0:
                        for y in range(y0, y1):
                            out[y] |= low[y + j]
                    elif w + skipped + 1 < words:
                        high = smeared[p, w + skipped + 1, x + i]
                        for y in range(y0, y1):
                            out[y] |= (low[y + j] >> bit) | (high[y + j] << (np.uint64(BITS) - bit))
                    else:
                        for y in range(y0, y1):
                            out[y] |= low[y + j] >> bit
                if length == 1 << p:
                    break
    return forbidden


@njit(cache=True)
def most_contact(
    forbidden: Bits,
    columns: Bits,
    allowed: Bits,
    shell: Integers,
    lo: Integers,
    hi: Integers,
    salt: np.uint64,
    wedged: bool,
) -> tuple[int, int, int, int]:
    """Find the free corner beside a forbidden one where the shell holds most occupied bins.

    If ``wedged``, only corners with a forbidden one beside them along each axis are looked at: a molecule
    that could still slide is not as close as possible. Returns the contact and the corner; contact 0 if
    there is none. The salt decides between equals.
    """
    words, nx, ny = forbidden.shape
    remaining = np.zeros(len(shell) + 1, np.int64)  # the most that the runs from here on can add
    for r in range(len(shell) - 1, -1, -1):
        remaining[r] = remaining[r + 1] + shell[r, 3]
    most, rank, corner = 0, np.uint64(0), (-1, -1, -1)
    for x in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            for w in range(words):
                here = forbidden[w, x, y]
                free = ~here & allowed[w]
                if free == 0:
                    continue
                along_x = forbidden[w, max(x - 1, 0), y] | forbidden[w, min(x + 1, nx - 1), y]
                along_y = forbidden[w, x, max(y - 1, 0)] | forbidden[w, x, min(y + 1, ny - 1)]
                along_z = (here << _ONE) | (here >> _ONE)
                if w > 0:
                    along_z |= forbidden[w - 1, x, y] >> np.uint64(BITS - 1)
                if w + 1 < words:
                    along_z |= forbidden[w + 1, x, y] << np.uint64(BITS - 1)
                candidates = free & (along_x & along_y & along_z if wedged else along_x | along_y | along_z)
                while candidates != 0:
                    z = w * BITS + _lowest_bit(candidates)
                    candidates &= candidates - _ONE
                    contact = 0
                    for r in range(len(shell)):
                        if contact + remaining[r] < most:
                            break
                        i, j, first, length = shell[r]
                        q, bit = (z + first) // BITS, np.uint64((z + first) % BITS)
                        column = columns[x + i, y + j]
                        bits = column[q] >> bit
                        if bit:
                            bits |= column[q + 1] << (np.uint64(BITS) - bit)
                        contact += _count(bits & ((_ONE << np.uint64(length)) - _ONE))
                    if contact >= most:
                        own = _hash(x, y, z, salt)
                        if contact > most or own > rank:
                            most, rank, corner = contact, own, (x, y, z)
    return most, corner[0], corner[1], corner[2]


@njit(cache=True)
def nearest_free(
    forbidden: Bits, allowed: Bits, lo: Integers, hi: Integers, target: NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """Find the free corner nearest to a target. Returns 0 and the corner, or -1 first if none is free."""
    nearest, found, corner = np.inf, -1, (-1, -1, -1)
    for x in range(lo[0], hi[0]):
        for y in range(lo[1], hi[1]):
            for z in range(lo[2], hi[2]):
                w, bit = z // BITS, np.uint64(z % BITS)
                if ((~forbidden[w, x, y] & allowed[w]) >> bit) & _ONE:
                    far = (x - target[0]) ** 2 + (y - target[1]) ** 2 + (z - target[2]) ** 2
                    if far < nearest:
                        nearest, found, corner = far, 0, (x, y, z)
    return found, corner[0], corner[1], corner[2]


@njit(cache=True)
def stamp(columns: Bits, smeared: Bits, mask: Bytes, corner: Integers) -> None:
    """Occupy the bins of a mask at a corner, and smear them again where they changed."""
    words = smeared.shape[1]
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            x, y = corner[0] + i, corner[1] + j
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    z = corner[2] + k
                    columns[x, y, z // BITS] |= _ONE << np.uint64(z % BITS)
            smeared[0, :, x, y] = columns[x, y, :words]
            for p in range(1, len(smeared)):
                step = np.uint64(1 << (p - 1))
                for w in range(words):
                    bits = smeared[p - 1, w, x, y]
                    bits |= bits >> step
                    if w + 1 < words:
                        bits |= smeared[p - 1, w + 1, x, y] << (np.uint64(BITS) - step)
                    smeared[p, w, x, y] = bits


@njit(cache=True)
def _count(bits: np.uint64) -> int:
    """Count the bits that are set (Warren, Hacker's Delight, section 5-1)."""
    bits -= (bits >> _ONE) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    # signed, since numba adds signed and unsigned integers as floats
    return int(np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56)))


@njit(cache=True)
def _lowest_bit(bits: np.uint64) -> int:
    """Index of the lowest bit that is set."""
    return _count(~bits & (bits - _ONE))


@njit(cache=True)
def _hash(x: int, y: int, z: int, salt: np.uint64) -> np.uint64:
    """Scramble a position; another salt gives another order (the finalizer of SplitMix64)."""
    word = salt + np.uint64(x) * np.uint64(0x9E3779B97F4A7C15)
    word ^= np.uint64(y) << np.uint64(21) ^ np.uint64(z) << np.uint64(42)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
