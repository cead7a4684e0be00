"""How well a network labels the voxels of tomograms that it was not trained on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogs.intensity import normalise
from catalogs.schema import SampleRecord
from catalogs.seeds import generator
from tltrain.stream import channels_of

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

#: Edge of a tile in voxels, and how many are looked at: a bound on memory and time, whatever the corpus.
TILE, MOST_TILES = 96, 16

_BINS = 100


@dataclass(frozen=True)
class Scores:
    """Of each class, by name.

    Attributes
    ----------
    f1
        Harmonic mean of precision and recall over voxels, each voxel given to its most probable class; nan
        for a class that does not occur.
    thresholds
        The probability that, asked of a voxel of the class, gives the best F1.
    """

    f1: dict[str, float]
    thresholds: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean F1 over the classes that occur; 0 if none does."""
        known = [value for value in self.f1.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else 0.0


@dataclass(frozen=True, eq=False)
class Validation:
    """Tiles of whole tomograms, the same at every call; see :func:`open_validation`.

    Attributes
    ----------
    names
        Of the classes, in the order of the network's outputs after the background.
    tiles
        (z, y, x) normalised grey values and indices of classes; 255 beyond the volume.
    """

    names: tuple[str, ...]
    tiles: Sequence[tuple[NDArray[np.float16], NDArray[np.uint8]]]

    def score(self, network: Any) -> Scores:
        """Let a network label the tiles and compare."""
        n = len(self.names)
        hit, false, missed = np.zeros((3, n), np.int64)
        right, wrong = np.zeros((2, n, _BINS), np.int64)  # histograms of the probability
        for grey, truth in self.tiles:
            batch = grey[None, ..., None].astype(np.float32)
            inside = truth < 255
            probability = np.asarray(network.predict_on_batch(batch))[0][inside]
            labels, found = truth[inside], probability.argmax(axis=-1)
            for k in range(n):
                is_class, is_found = labels == k + 1, found == k + 1
                hit[k] += (is_class & is_found).sum()
                false[k] += (~is_class & is_found).sum()
                missed[k] += (is_class & ~is_found).sum()
                bins = np.minimum((probability[:, k + 1] * _BINS).astype(np.int64), _BINS - 1)
                right[k] += np.bincount(bins[is_class], minlength=_BINS)
                wrong[k] += np.bincount(bins[~is_class], minlength=_BINS)
        with np.errstate(invalid="ignore"):
            f1 = np.where(hit + missed > 0, 2 * hit / (2 * hit + false + missed), np.nan)
        return Scores(
            f1={name: float(value) for name, value in zip(self.names, f1, strict=True)},
            thresholds={name: _best_threshold(right[k], wrong[k]) for k, name in enumerate(self.names)},
        )


def open_validation(catalog: Catalog, records: Sequence[SampleRecord], pooling: int) -> Validation:
    """Choose and read the tiles of some samples.

    Parameters
    ----------
    catalog
        The corpus.
    records
        Of the samples.
    pooling
        Of the network; a multiple of it is the size of a tile.

    Returns
    -------
    Validation
        All tiles of all samples or, of too many, :data:`MOST_TILES` drawn once and for all.
    """
    # not larger than need be: a tomogram of 45 voxels makes no tile of 96
    shape = [
        min(TILE, -(-max(record.shape[axis] for record in records) // pooling) * pooling) for axis in range(3)
    ]
    places = [
        (record, corner)
        for record in records
        for corner in itertools.product(*map(range, (0, 0, 0), record.shape, shape))
    ]
    if len(places) > MOST_TILES:
        chosen = generator("validation", len(places)).choice(len(places), MOST_TILES, replace=False)
        places = [places[k] for k in sorted(chosen)]
    channels = channels_of(catalog.classes)
    tiles = []
    for record, corner in places:
        arrays = catalog.arrays(record.sample_id)
        where = tuple(slice(a, a + edge) for a, edge in zip(corner, shape, strict=True))
        grey = normalise(arrays["tomogram"][where], record.intensity)
        truth = channels[np.asarray(arrays["classes"][where])]
        beyond = [(0, edge - n) for edge, n in zip(shape, grey.shape, strict=True)]
        tiles.append((np.pad(grey, beyond).astype(np.float16), np.pad(truth, beyond, constant_values=255)))
    names = tuple(info.name for info in sorted(catalog.classes, key=lambda info: info.label))
    return Validation(names, tiles)


def _best_threshold(right: NDArray[np.int64], wrong: NDArray[np.int64]) -> float:
    """Find the threshold of the best F1; the middle of those that are as good to a tenth of a percent."""
    if not right.any():
        return 0.5
    hit, false = right[::-1].cumsum()[::-1], wrong[::-1].cumsum()[::-1]
    f1 = 2 * hit / (hit + false + right.sum())
    return float(np.flatnonzero(f1 >= f1.max() - 1e-3).mean() / len(f1))
