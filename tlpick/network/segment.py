"""Segments whole tomograms: the class of every voxel and its probability."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.model_file import fingerprint
from catalogs.schema import ClassInfo
from catalogs.threads import pool
from tlpick.network.fuse import joined
from tlpick.network.geometry import Graph, Node, read_graph
from tlpick.network.keras_network import load_keras
from tlpick.network.memory import reused
from tlpick.network.orientations import SYMMETRIES, turned
from tlpick.network.sweep import sweep
from tlpick.network.tiles import Box, Tiling
from tlpick.network.tomograms.scratch import Scratch
from tlpick.network.voxel_classes import Rule, add_probabilities


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of a tomogram.

    Attributes
    ----------
    labels
        (z, y, x) class of each voxel, 0 for background.
    score
        (z, y, x) probability of the most likely class except background, in 1/255.
    tiling
        The columns along which the network was swept.
    voxel_size
        Å; None: that of the volume.
    offset
        Position (x, y, z) of the centre of voxel 0 relative to that of the tomogram's voxel 0, Å.
    """

    labels: NDArray[np.uint8]
    score: NDArray[np.uint8]
    tiling: Tiling
    voxel_size: float | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(z, y, x) class of each voxel, 0 for background."""
        return self.labels

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(z, y, x) probability of the most likely class except background, from 0 to 1."""
        return np.asarray(self.score, np.float32) / np.float32(255)

    def placed(self, voxel_size: float, offset: tuple[float, float, float]) -> Segmentation:
        """Set the position of its voxels in the tomogram."""
        return replace(self, voxel_size=voxel_size, offset=offset)


def load_network(path: str | os.PathLike[str]) -> Graph:
    """Load the network of a model file; the same file is loaded once per process.

    Parameters
    ----------
    path
        Path of the model (``.tlm``).

    Returns
    -------
    Graph
        For :func:`predict`; it runs on a GPU if Keras finds one.

    Raises
    ------
    InputError
        If it is not a model, or its network cannot be loaded or cannot be run in parts.
    """
    return _load_network(os.fspath(path), fingerprint(path))


@lru_cache(maxsize=2)
def _load_network(path: str, _fingerprint: str) -> Graph:
    graph = compiled(read_graph(load_keras(path)))
    for node in graph.nodes:  # once, here, and not at the first planes
        if hasattr(node.call, "get_concrete_function"):
            node.call.get_concrete_function()
    return graph


def compiled(graph: Graph) -> Graph:
    """Fuse layers, and let TensorFlow fuse a convolution with its bias and activation, for any size."""
    import keras

    graph = joined(graph)
    if keras.backend.backend() != "tensorflow":
        return graph
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it takes the layers, each traced once, for one that is traced often
    channels = {0: 1} | {node.output: node.channels for node in graph.nodes}

    def traced(node: Node) -> Node:
        read = [tf.TensorSpec((1, None, None, None, channels[tensor]), tf.float32) for tensor in node.inputs]
        return replace(node, call=tf.function(node.compute, input_signature=[read]), activation=None)

    return replace(graph, nodes=tuple(traced(node) for node in graph.nodes))


def segment(
    volume: NDArray[np.float32],
    network: Graph,
    tiling: Tiling,
    classes: Sequence[ClassInfo],
    thresholds: dict[str, float],
    *,
    mask: NDArray[np.bool_] | None = None,
    tta: int = 1,
    scratch: Scratch | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Segmentation:
    """Segment a tomogram column by column.

    Parameters
    ----------
    volume
        (z, y, x) grey values, normalised over the whole tomogram.
    network
        From :func:`load_network`.
    tiling
        Columns for the volume's shape and this network.
    classes
        Output channel k of the network is the class with the k-th smallest label.
    thresholds
        Smallest probability of a class's voxels, by class name; without one, the most likely class
        (including background) is chosen.
    mask
        (z, y, x) region to segment; voxels outside are background, and are computed only as far as voxels
        inside depend on them.
    tta
        Number of orientations to average over: 1, 4 or 8 (:mod:`tlpick.network.orientations`).
    scratch
        Storage of the result and of intermediate arrays; None: in memory.
    progress
        Called with (planes done, all planes) during the sweep.

    Returns
    -------
    Segmentation
        Equal to that of one sweep over the whole volume.

    Raises
    ------
    InputError
        If the network tells another number of classes apart than the card names.
    """
    if network.n_classes != len(classes) + 1:
        raise InputError(
            f"the model's network tells {network.n_classes - 1} classes apart, "
            f"its card names {len(classes)}; train it again."
        )
    scratch = scratch or Scratch(Path(tempfile.gettempdir()), float("inf"))
    rule = Rule(classes, thresholds)
    labels, score = scratch.array(volume.shape, np.uint8), scratch.array(volume.shape, np.uint8)
    orientations = SYMMETRIES[tta]
    sums = scratch.array((*volume.shape, network.n_classes), np.float32) if tta > 1 else None
    along = tiling.padded[tiling.axis]
    total, done = len(orientations) * len(tiling) * along, 0

    # classes of these planes are assigned while the network computes the next ones
    with reused(tiling.bytes), pool() as threads:
        for axes in orientations:
            seen = None if mask is None else turned(mask, axes)
            for columns, end, target, answer in predict(turned(volume, axes), network, tiling, seen):
                if sums is None:
                    to = (labels[target], score[target])
                    threads.begin(len(answer), partial(_decide, rule, network.softmax, answer, *to))
                else:
                    to_sum = turned(sums, axes)[target]
                    threads.begin(len(answer), partial(_add, network.softmax, answer, to_sum))
                scratch.release()
                progress(done + columns * along + end, total)
            done += len(tiling) * along
        threads.finish()
        if sums is not None:
            threads.begin(len(sums), partial(_decide_on_mean, rule, tta, sums, labels, score))
            threads.finish()
        if mask is not None:
            threads.begin(len(mask), partial(_cut_out, mask, labels, score))
            threads.finish()
    scratch.release()
    progress(total, total)
    return Segmentation(labels, score, tiling)


def predict(
    volume: NDArray[np.float32], network: Graph, tiling: Tiling, mask: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, int, Box, NDArray[np.float32]]]:
    """Sweep the network along every column, without its margins.

    Parameters
    ----------
    volume, network, tiling, mask
        As for :func:`segment`.

    Yields
    ------
    tuple
        Columns done before; planes done of this one; where in the volume; and what the network says there,
        (z, y, x, classes + 1): probabilities, or logits if the network's graph has ``softmax``. The boxes do
        not overlap, and cover the volume or what of it is masked.
    """
    axis = tiling.axis
    pooling = network.pooling[axis]
    for number, (read, used, target) in enumerate(tiling):
        first, last = target[axis].start, target[axis].stop
        start, stop = read[axis].start, read[axis].stop
        if mask is not None:
            lit = np.flatnonzero(mask[target].any(axis=tuple(k for k in range(3) if k != axis)))
            if not len(lit):
                continue
            first, last = first + int(lit[0]), first + int(lit[-1]) + 1
            start = max(start, first // pooling * pooling - tiling.before[axis])
            stop = min(stop, -(-last // pooling) * pooling + tiling.after[axis])
        shape = list(tiling.tile)
        shape[axis] = stop - start

        def planes(begin: int, end: int, read: Box = read, start: int = start) -> NDArray[np.float32]:
            box = _along(read, axis, start + begin, start + end)
            inside = volume[box]
            beyond = [(0, part.stop - part.start - n) for part, n in zip(box, inside.shape, strict=True)]
            return np.ascontiguousarray(np.pad(inside, beyond), np.float32)

        for begin, end, answer in sweep(network, axis, (shape[0], shape[1], shape[2]), planes, tiling.planes):
            low, high = max(start + begin, first), min(start + end, last)
            if low < high:
                cut = _along(used, axis, low - start - begin, high - start - begin)
                yield number, start + end, _along(target, axis, low, high), answer[cut]


def _decide(
    rule: Rule,
    logits: bool,
    answer: NDArray[np.float32],
    labels: NDArray[np.uint8],
    score: NDArray[np.uint8],
    part: slice,
) -> None:
    rule.decide(answer[part], logits, labels[part], score[part])


def _add(logits: bool, answer: NDArray[np.float32], sums: NDArray[np.float32], part: slice) -> None:
    add_probabilities(answer[part], logits, sums[part])


def _decide_on_mean(
    rule: Rule,
    n: int,
    sums: NDArray[np.float32],
    labels: NDArray[np.uint8],
    score: NDArray[np.uint8],
    part: slice,
) -> None:
    for z in range(part.start, part.stop):
        rule.decide(sums[z : z + 1] / np.float32(n), False, labels[z : z + 1], score[z : z + 1])


def _cut_out(
    mask: NDArray[np.bool_], labels: NDArray[np.uint8], score: NDArray[np.uint8], part: slice
) -> None:
    for z in range(part.start, part.stop):
        labels[z] *= mask[z]
        score[z] *= mask[z]


def _along(box: Box, axis: int, begin: int, end: int) -> Box:
    """Return the same box with other planes along an axis."""
    z, y, x = (slice(begin, end) if k == axis else part for k, part in enumerate(box))
    return z, y, x
