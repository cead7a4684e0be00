"""Where patches are cut: decided by the particle tables alone, before any volume is read.

Patches come in plans: a block of a tomogram that is aligned to the chunks on disk, and several patches inside
it, so that one read serves many patches. Plan ``i`` depends on the seed and on ``i`` only; a stream can start
anywhere and any number of threads may work on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.seeds import generator

#: Candidates for a background patch; the one with the fewest targets is taken.
_BACKGROUND_TRIES = 8


@dataclass(frozen=True)
class Shares:
    """What patches are centred on. The shares are relative; what a corpus lacks is left out.

    Attributes
    ----------
    target
        Particles of the target classes, each class as often as any other (DeepFinder's bootstrap).
    distractor
        Other molecules: what a picker would confuse with a target.
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
    sample_id
        In the corpus.
    shape
        Voxels along z, y, x.
    chunk
        Voxels of a chunk on disk along z, y, x.
    """

    sample_id: str
    shape: tuple[int, int, int]
    chunk: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sites:
    """Places of interest in all sources.

    Attributes
    ----------
    source
        (n,) index of the source.
    label
        (n,) class value; 0 for a distractor.
    centre
        (n, 3) z, y, x in voxels.
    """

    source: NDArray[np.int64]
    label: NDArray[np.int64]
    centre: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """Patches to cut from one block of one tomogram.

    Attributes
    ----------
    source
        Index of the source.
    start, stop
        (3,) corners of the block in voxels, z, y, x, inside the volume.
    corners
        (n, 3) first voxel of each patch in the volume; negative where the patch is larger than the volume,
        which stands somewhere inside it.
    """

    source: int
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    corners: NDArray[np.int64]


def sites_of(particles: Sequence[pd.DataFrame], voxel_size: float) -> Sites:
    """Collect the particles of several samples.

    Parameters
    ----------
    particles
        The particle table of each source (``catalogs.particles``).
    voxel_size
        Å.

    Returns
    -------
    Sites
        Voxel index 0's centre is 0 Å.
    """
    centres = [table[["z", "y", "x"]].to_numpy(np.float64) / voxel_size for table in particles]
    labels = [table["label"].to_numpy(np.int64) for table in particles]
    sources = [np.full(len(table), k, np.int64) for k, table in enumerate(particles)]
    return Sites(
        source=np.concatenate([np.empty(0, np.int64), *sources]),
        label=np.concatenate([np.empty(0, np.int64), *labels]),
        centre=np.concatenate([np.empty((0, 3)), *centres]),
    )


@dataclass(frozen=True, eq=False)
class Sampler:
    """Plans without end.

    Attributes
    ----------
    sources, sites
        What to cut from, and what is there.
    patch
        Edge of a patch in voxels.
    per_block
        Patches of one plan.
    shares
        What they are centred on.
    seed
        Decides every plan.
    """

    sources: Sequence[Source]
    sites: Sites
    patch: int
    per_block: int = 8
    shares: Shares = Shares()
    seed: int = 0

    def plan(self, i: int) -> Plan:
        """Return plan ``i``, counted from 0."""
        rng = generator(self.seed, "plan", i)
        everywhere = np.arange(len(self.sites.label))
        kind = self._kind(rng, everywhere)
        if kind is None:
            sizes = np.array([np.prod(source.shape) for source in self.sources], np.float64)
            k = int(rng.choice(len(self.sources), p=sizes / sizes.sum()))
            first = self._background_corner(rng, k, np.zeros(3, np.int64), np.array(self.sources[k].shape))
        else:
            site = int(rng.choice(everywhere[self.sites.label == kind]))
            k = int(self.sites.source[site])
            first = self._corner_around(
                rng, site, np.zeros(3, np.int64), np.array(self.sources[k].shape, np.int64)
            )
        start, stop = self._block(rng, self.sources[k], first)

        inside = (self.sites.centre >= start).all(axis=1) & (self.sites.centre <= stop - 1).all(axis=1)
        here = np.flatnonzero((self.sites.source == k) & inside)
        corners = [first]
        while len(corners) < self.per_block:
            kind = self._kind(rng, here)
            if kind is None:
                corners.append(self._background_corner(rng, k, start, stop))
            else:
                site = int(rng.choice(here[self.sites.label[here] == kind]))
                corners.append(self._corner_around(rng, site, start, stop))
        return Plan(k, start, stop, np.array(corners, np.int64))

    def _kind(self, rng: np.random.Generator, sites: NDArray[np.int64]) -> int | None:
        """Draw a label that occurs among ``sites`` (0: a distractor), or None for background."""
        labels = np.unique(self.sites.label[sites])
        targets = int((labels > 0).sum())
        weights = [self.shares.target / targets if label else self.shares.distractor for label in labels]
        total = sum(weights) + self.shares.background
        if total <= 0:  # nothing here that a share was given to
            return None
        draw = rng.uniform(0, total)
        for label, edge in zip(labels, np.cumsum(weights), strict=True):
            if draw < edge:
                return int(label)
        return None

    def _corner_around(
        self, rng: np.random.Generator, site: int, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Put a patch around a site, shifted by up to a third of its edge, inside the block."""
        shift = rng.integers(-(self.patch // 3), self.patch // 3 + 1, size=3)
        corner = np.rint(self.sites.centre[site]).astype(np.int64) - self.patch // 2 + shift
        return self._inside(rng, corner, start, stop)

    def _background_corner(
        self, rng: np.random.Generator, k: int, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Put a patch anywhere inside the block where there are few targets."""
        targets = self.sites.centre[(self.sites.source == k) & (self.sites.label > 0)]
        candidates = [self._inside(rng, None, start, stop) for _ in range(_BACKGROUND_TRIES)]
        crowd = [((targets >= c) & (targets < c + self.patch)).all(axis=1).sum() for c in candidates]
        return candidates[int(np.argmin(crowd))]

    def _inside(
        self,
        rng: np.random.Generator,
        corner: NDArray[np.int64] | None,
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Move a patch into the block; anywhere along an axis on which the block is the smaller one."""
        low, high = np.minimum(start, stop - self.patch), np.maximum(start, stop - self.patch)
        anywhere = rng.integers(low, high + 1)
        if corner is None:
            return anywhere
        return np.where(stop - start >= self.patch, np.clip(corner, low, high), anywhere)

    def _block(
        self, rng: np.random.Generator, source: Source, corner: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose a block of whole chunks around a patch: just as many as hold a patch wherever it lies."""
        start, stop = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for axis in range(3):
            chunk, size = source.chunk[axis], source.shape[axis]
            edge = (-(-self.patch // chunk) + 1) * chunk
            at = max(int(corner[axis]), 0)
            origins = [
                o
                for o in range(0, at + 1, chunk)
                if o + edge >= min(at + self.patch, size) and (o == 0 or o - chunk + edge < size)
            ]
            start[axis] = origins[int(rng.integers(len(origins)))]
            stop[axis] = min(start[axis] + edge, size)
        return start, stop
