"""Choose where patches are cut, from the particle tables alone, before any volume is read.

Patches are cut from blocks. A block is a part of a tomogram that is aligned to the chunks on disk and
contains several patches, so that one read serves many patches. Block ``i`` depends only on the seed and on
``i``; a stream can start anywhere, and several threads may work on it. The centre of a block is drawn with
the numbers of particles in the index of the corpus; only the tables of the drawn tomograms are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Intensity
from catalogs.seeds import generator

#: Candidates for a background patch; the one with the fewest targets is taken.
_BACKGROUND_TRIES = 8

#: Largest number of patches from a block: more would be almost the same.
_MOST_PER_BLOCK = 32

#: Label of sites for background.
_BACKGROUND = -1

#: Simulated blocks for finding how often a class is met, and rounds in which the draws are corrected.
_IMAGINED, _ROUNDS = 4096, 60


@dataclass(frozen=True)
class Sampling:
    """What patches are centred on. The shares are relative; kinds that a corpus lacks are left out.

    Attributes
    ----------
    target
        Particles of the target classes, all classes equally often (DeepFinder's bootstrap).
    distractor
        Other molecules (hard negatives), which a picker could confuse with a target.
    background
        Places with as few targets as possible.
    """

    target: float = 0.6
    distractor: float = 0.2
    background: float = 0.2


@dataclass(frozen=True)
class Source:
    """A tomogram that patches are cut from.

    Attributes
    ----------
    name
        For people: the sample's id.
    shape
        Voxels along z, y, x.
    chunk
        Voxels of a chunk on disk along z, y, x.
    intensity
        Of the whole tomogram.
    counts
        Class value -> particles of it in the tomogram; 0: distractors.
    tilts
        First and last tilt, degrees; None if they are not known.
    """

    name: str
    shape: tuple[int, int, int]
    chunk: tuple[int, int, int]
    intensity: Intensity
    counts: Mapping[int, int] = field(default_factory=dict)
    tilts: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Sites:
    """Places of interest in one tomogram.

    Attributes
    ----------
    label
        (n,) class value; 0 for a distractor.
    centre
        (n, 3) z, y, x in voxels.
    """

    label: NDArray[np.int64]
    centre: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PatchBlock:
    """Patches to cut from one block of one tomogram.

    Attributes
    ----------
    source
        Index of the source.
    start, stop
        (3,) corners of the block in voxels, z, y, x, inside the volume.
    corners
        (n, 3) first voxel of each patch in the volume; negative if the patch is larger than the volume, which
        then lies somewhere inside the patch.
    """

    source: int
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    corners: NDArray[np.int64]


class Sampler:
    """Draws blocks of patches.

    Parameters
    ----------
    sources
        What to cut from.
    sites
        Finds the sites of a source, by its index.
    patch
        Edge of a patch in voxels.
    per_block
        Patches of one block.
    sampling
        What they are centred on.
    shift
        A patch is shifted from its centre by up to this share of its edge, along each axis.
    shift_probability
        Probability that it is shifted.
    seed
        Seed of all blocks.

    Attributes
    ----------
    sources, patch, per_block
        As given.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sites: Callable[[int], Sites],
        patch: int,
        *,
        per_block: int = 8,
        sampling: Sampling | None = None,
        shift: float = 1 / 3,
        shift_probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.sources = sources
        self.patch = patch
        self.per_block = per_block
        self._sites = sites
        self._shift = int(shift * patch)
        self._shift_probability = shift_probability
        self._seed = seed
        volumes = np.array([np.prod(source.shape) for source in sources], np.float64)
        labels = sorted({label for source in sources for label, n in source.counts.items() if n > 0})
        counts = np.array(
            [[source.counts.get(label, 0) for label in labels] for source in sources], np.float64
        ).reshape(len(sources), len(labels))
        #: (k,) kinds of centres of patches, the background last.
        self._kinds = np.array([*labels, _BACKGROUND])
        self._wanted = _wanted(sampling or Sampling(), labels)
        # all particles of a class are equally likely, so the probability of a tomogram is proportional to its
        # number
        self._sources_of = np.cumsum(np.column_stack([counts, volumes]), axis=0)
        self._weights = self._balanced(counts, volumes)

    def block(self, i: int, attempt: int = 0, sites: Callable[[int], Sites] | None = None) -> PatchBlock:
        """Return block ``i``, counted from 0.

        Parameters
        ----------
        i
            Its number.
        attempt
            Number of the attempt; each gives another block, if one could not be read.
        sites
            Finds the sites of a source in place of the sampler's own.
        """
        rng = generator(self._seed, "plan", i, attempt)
        kind = int(_draw(np.cumsum(self._wanted), rng.random()))
        k = int(_draw(self._sources_of[:, kind], rng.random()))
        source, found = self.sources[k], (sites or self._sites)(k)
        zero, shape = np.zeros(3, np.int64), np.array(source.shape, np.int64)
        of_kind = np.flatnonzero(found.label == self._kinds[kind])
        if len(of_kind):
            chosen = of_kind[rng.integers(len(of_kind), size=1)]
            first = self._around(rng, found.centre[chosen], zero, shape)
        else:  # background, or a table that has less than was counted
            first = self._background(rng, found, 1, zero, shape)
        start, stop = self._block(rng, source, first[0])
        here = ((found.centre >= start) & (found.centre <= stop - 1)).all(axis=1)
        rest = self._rest(rng, Sites(found.label[here], found.centre[here]), start, stop)
        return PatchBlock(k, start, stop, np.concatenate([first, rest]))

    def _rest(
        self, rng: np.random.Generator, here: Sites, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Place all patches but the first in a block; ``here`` are the sites in it."""
        present = [np.flatnonzero(here.label == kind) for kind in self._kinds]
        weights = np.where([len(of_kind) > 0 for of_kind in present], self._weights, 0.0)
        weights[-1] = self._weights[-1]
        if not weights.any():
            weights[-1] = 1.0
        drawn = _draw(np.cumsum(weights), rng.random(self.per_block - 1))
        corners = np.empty((self.per_block - 1, 3), np.int64)
        background = drawn == len(self._kinds) - 1
        if not background.all():
            sites = np.zeros(self.per_block - 1, np.int64)
            for kind in np.unique(drawn[~background]):
                # no particle is taken twice before each was taken once
                places = np.flatnonzero(drawn == kind)
                sites[places] = np.resize(rng.permutation(present[kind]), len(places))
            corners[~background] = self._around(rng, here.centre[sites[~background]], start, stop)
        if background.any():
            corners[background] = self._background(rng, here, int(background.sum()), start, stop)
        return corners

    def _balanced(self, counts: NDArray[np.float64], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the weights for draws in a block, so that the shares are right over all blocks.

        A block that is read for one class also contains others, frequent classes more often. Blocks are
        simulated with the numbers of particles in the sources, and the weights are corrected until the shares
        are right.
        """
        rng = generator("imagined blocks")
        kinds, n = len(self._kinds), _IMAGINED
        kind = _draw(np.cumsum(self._wanted), rng.random(n))
        source = np.empty(n, np.int64)
        for k in range(kinds):
            of_kind = kind == k
            source[of_kind] = _draw(self._sources_of[:, k], rng.random(int(of_kind.sum())))
        blocks = [[min(self._edge(s, axis), s.shape[axis]) for axis in range(3)] for s in self.sources]
        filled = (np.prod(np.array(blocks, np.float64), axis=1) / volumes)[source]
        present = rng.random((n, kinds - 1)) > np.exp(-counts[source] * filled[:, None])
        present = np.column_stack([present, np.ones(n, bool)])
        present[np.arange(n), kind] = True
        weights = self._wanted.copy()
        for _ in range(_ROUNDS):
            drawn = present * weights
            sums = drawn.sum(axis=1, keepdims=True)
            met = (drawn / np.where(sums > 0, sums, 1)).mean(axis=0)
            weights *= np.where(met > 0, self._wanted / np.where(met > 0, met, 1), 1)
            weights /= weights.sum()
        return weights

    def _around(
        self,
        rng: np.random.Generator,
        centres: NDArray[np.float64],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Put patches around places (n, 3), shifted at random, inside the block."""
        shift = rng.integers(-self._shift, self._shift + 1, size=centres.shape)
        shift[rng.random(len(centres)) >= self._shift_probability] = 0
        corners = np.rint(centres).astype(np.int64) - self.patch // 2 + shift
        low, high = np.minimum(start, stop - self.patch), np.maximum(start, stop - self.patch)
        inside = np.minimum(np.maximum(corners, low), high)
        if (stop - start < self.patch).any():  # the block is the smaller one: anywhere around it
            anywhere = rng.integers(low, high + 1, size=centres.shape)
            return np.where(stop - start >= self.patch, inside, anywhere)
        return inside

    def _background(
        self,
        rng: np.random.Generator,
        sites: Sites,
        n: int,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Put ``n`` patches anywhere inside the block where there are few targets."""
        low, high = np.minimum(start, stop - self.patch), np.maximum(start, stop - self.patch)
        candidates = rng.integers(low, high + 1, size=(n, _BACKGROUND_TRIES, 3))
        off = sites.centre[sites.label > 0] - candidates[:, :, None]
        crowd = ((off >= 0) & (off < self.patch)).all(axis=3).sum(axis=2)
        best: NDArray[np.int64] = candidates[np.arange(n), np.argmin(crowd, axis=1)]
        return best

    def _edge(self, source: Source, axis: int) -> int:
        return edge_of_block(source, self.patch, axis)

    def _block(
        self, rng: np.random.Generator, source: Source, corner: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose a block of whole chunks around a patch."""
        start, stop = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for axis in range(3):
            chunk, size, edge = source.chunk[axis], source.shape[axis], self._edge(source, axis)
            at = max(int(corner[axis]), 0)
            last = at // chunk  # in chunks: no later, or the patch begins before the block
            first = max(-(-(min(at + self.patch, size) - edge) // chunk), 0)  # no earlier, or it ends behind
            last = max(min(last, -(-(size - edge) // chunk)), first)  # nor so late that chunks are beyond
            start[axis] = chunk * int(rng.integers(first, last + 1))
            stop[axis] = min(start[axis] + edge, size)
        return start, stop


def edge_of_block(source: Source, patch: int, axis: int) -> int:
    """Voxels of a block along an axis: just as many chunks as hold a patch wherever it lies."""
    return (-(-patch // source.chunk[axis]) + 1) * source.chunk[axis]


def patches_to_fill(source: Source, patch: int) -> int:
    """Return how many patches have together as many voxels as a block; at least 4, at most 32."""
    edges = [min(edge_of_block(source, patch, axis), max(source.shape[axis], patch)) for axis in range(3)]
    return int(np.clip(np.prod(np.array(edges, np.float64) / patch).round(), 4, _MOST_PER_BLOCK))


def _wanted(sampling: Sampling, labels: Sequence[int]) -> NDArray[np.float64]:
    """Give each kind its share: the labels, then the background."""
    targets = sum(label > 0 for label in labels)
    wanted = [sampling.target / targets if label else sampling.distractor for label in labels]
    wanted.append(sampling.background)
    if not sum(wanted) > 0:  # nothing with a share exists
        wanted[-1] = 1.0
    return np.array(wanted, np.float64) / sum(wanted)


def _draw(sums: NDArray[np.float64], at: Any) -> NDArray[np.int64]:
    """Find the indices, in cumulative weights, of numbers from 0 to 1."""
    return np.minimum(np.searchsorted(sums, at * sums[-1], side="right"), len(sums) - 1)
