"""The network over a whole tomogram: the class of every voxel, and how sure the network is."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.console import without_greetings
from catalogs.errors import InputError
from catalogs.model_file import fingerprint, read_network
from catalogs.schema import ClassInfo
from tlpick.tiles import Box, Tiling

#: (z, y, x) normalised grey values -> (z, y, x, 1 + number of classes) probabilities.
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the network says of a tomogram.

    Attributes
    ----------
    labels
        (z, y, x) class of each voxel, 0 for background.
    score
        (z, y, x) probability of the likeliest class that is not background, in 1/255.
    """

    labels: NDArray[np.uint8]
    score: NDArray[np.uint8]


def load_network(path: str | os.PathLike[str]) -> Network:
    """Load the network of a model file; the same file is loaded once a process.

    Parameters
    ----------
    path
        Of the model (``.tlm``).

    Returns
    -------
    callable
        Takes normalised grey values (z, y, x), float32; returns probabilities (z, y, x, classes + 1).

    Raises
    ------
    InputError
        If it is not a model, or holds a network that Keras cannot load.
    """
    return _load_network(os.fspath(path), fingerprint(path))


@functools.lru_cache(maxsize=2)
def _load_network(path: str, _fingerprint: str) -> Network:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with without_greetings():
        import keras

    with without_greetings(), tempfile.TemporaryDirectory(prefix="tlpick-") as folder:
        file = read_network(path, Path(folder))
        try:
            model = keras.saving.load_model(file, compile=False)
        except (ValueError, TypeError, OSError) as error:
            raise InputError(
                f"Keras {keras.__version__} cannot load the network in {path} ({_first_line(error)}); "
                "train it again with this version."
            ) from error
    # XLA would compile for a minute and round differently for every tile shape.
    model.compile(jit_compile=False)

    def network(values: NDArray[np.float32]) -> NDArray[np.float32]:
        # not predict(): it sets up a data pipeline on every call
        return np.asarray(model.predict_on_batch(values[np.newaxis, ..., np.newaxis])[0], np.float32)

    return network


def segment(
    volume: NDArray[np.float32],
    network: Network,
    tiling: Tiling,
    classes: Sequence[ClassInfo],
    thresholds: dict[str, float],
    progress: Callable[[int], None] = lambda _done: None,
) -> Segmentation:
    """Segment a tomogram tile by tile.

    Parameters
    ----------
    volume
        (z, y, x) grey values, normalised over the whole tomogram.
    network
        From :func:`load_network`.
    tiling
        Of the volume's shape, with the network's halo and pooling.
    classes
        Output channel k of the network is the class with the k-th smallest label.
    thresholds
        Least probability of a class's voxels, by class name; the likeliest class (background among
        them) counts where none is given.
    progress
        Called with the number of tiles done after each.

    Returns
    -------
    Segmentation
        Equal to what one tile over the whole volume would give.
    """
    ordered = sorted(classes, key=lambda info: info.label)
    values = np.array([info.label for info in ordered], np.uint8)
    least = np.array([thresholds.get(info.name, np.nan) for info in ordered], np.float32)
    labels = np.zeros(volume.shape, np.uint8)
    score = np.zeros(volume.shape, np.uint8)
    for done, (target, probabilities) in enumerate(predict_tiles(volume, network, tiling), start=1):
        if probabilities.shape[-1] != len(ordered) + 1:
            raise InputError(
                f"the model's network tells {probabilities.shape[-1] - 1} classes apart, "
                f"its card names {len(ordered)}; train it again."
            )
        likeliest = probabilities[..., 1:].argmax(axis=-1)
        highest = probabilities[..., 1:].max(axis=-1)
        bar = np.where(np.isnan(least[likeliest]), probabilities[..., 0], least[likeliest])
        labels[target] = np.where(highest >= bar, values[likeliest], 0)
        score[target] = np.rint(highest * 255)
        progress(done)
    return Segmentation(labels, score)


def predict_tiles(
    volume: NDArray[np.float32], network: Network, tiling: Tiling
) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Run the network over every tile and cut off its halo.

    Yields
    ------
    tuple
        Where in the volume, and the (z, y, x, classes + 1) probabilities there. The boxes do not
        overlap and cover the volume.
    """
    for read, used, target in tiling:
        inside = volume[read]
        beyond = [(0, want - have) for want, have in zip(tiling.tile, inside.shape, strict=True)]
        yield target, network(np.pad(inside, beyond))[used]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
