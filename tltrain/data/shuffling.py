"""Measure how well a stream is shuffled: what the patches of a batch have in common."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from tltrain.data.stream import PatchStream


@dataclass(frozen=True)
class Shuffling:
    """Pairs of patches in a batch, on average over batches.

    Attributes
    ----------
    same_block
        Cut from blocks at the same place of one tomogram.
    same_source
        Cut from one tomogram.
    same_block_by_chance, same_source_by_chance
        The same if every patch were drawn by itself, measured between batches that share no block.
    """

    same_block: float
    same_source: float
    same_block_by_chance: float
    same_source_by_chance: float


def measure(stream: PatchStream, n: int, start: int = 0) -> Shuffling:
    """Measure where the patches of some batches come from; no volume is read.

    Parameters
    ----------
    stream
        From :func:`tltrain.data.stream.open_stream`.
    n
        Number of batches.
    start
        Number of the first.

    Returns
    -------
    Shuffling
    """

    @lru_cache(None)
    def place_of(block: int) -> tuple[int, ...]:
        found = stream.sampler.block(block)
        return found.source, *found.start.tolist()

    far = stream.spread * (stream.sampler.per_block + 1)  # after this many batches, all blocks are different
    sums = [0.0] * 4
    for number in range(start, start + n):
        here, there = ([place_of(place.block) for place in stream.places(m)] for m in (number, number + far))
        for k, of in enumerate((lambda b: b, lambda b: b[:1])):
            ones, others = Counter(map(of, here)), Counter(map(of, there))
            sums[k] += sum(math.comb(count, 2) for count in ones.values())
            sums[k + 2] += sum(count * others[key] for key, count in ones.items())
    pairs = math.comb(stream.batch, 2) / stream.batch**2
    return Shuffling(sums[0] / n, sums[1] / n, sums[2] / n * pairs, sums[3] / n * pairs)
