"""How fast the picker segments against DeepFinder's own way: same network, same weights, same CPU, one run.

    python benchmarks/segment.py                                   # DeepFinder's tiling as this file has it
    python benchmarks/segment.py --reference ~/cryoet-deepfinder   # its own inference class, from a clone
    python benchmarks/segment.py --shape 128 256 256 --network small

DeepFinder cuts a tomogram into cubes of 192 voxels that overlap by 55, of which it crops 25 on each side and
averages what overlaps. The volume is by default one that two such cubes along each axis cover exactly, which
is the best that can happen to them: they compute 2.6 times its voxels, and of a tomogram of 512 x 512 x 200
4.3 times.
Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

import tlpick  # noqa: F401  before Keras: it chooses the kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CROP, OVERLAP = 25, 55  # voxels, DeepFinder's defaults


def centres(length: int, patch: int) -> list[int]:
    """Places of the cubes along an axis of the padded volume, as DeepFinder lays them."""
    half = patch // 2
    places = list(range(half, length - half, patch + 1 - OVERLAP)) or [half]
    return places if places[-1] >= length - half else [*places, length - half]


def deepfinders_way(model: Any, volume: NDArray[np.float32], patch: int) -> tuple[float, int]:
    """Segment by overlapping cubes; returns CPU seconds and the number of cubes."""
    import itertools

    n_classes = model.output_shape[-1]
    started = time.process_time()
    values = np.pad((volume - volume.mean()) / volume.std(), CROP)
    sums = np.zeros((*values.shape, n_classes), np.float16)
    seen = np.zeros(values.shape, np.int8)
    half, kept = patch // 2, patch // 2 - CROP
    places = list(itertools.product(*(centres(n, patch) for n in values.shape)))
    for z, y, x in places:
        cube = values[z - half : z + half, y - half : y + half, x - half : x + half]
        said = model.predict(cube.reshape(1, patch, patch, patch, 1), batch_size=1, verbose=0)
        box = tuple(slice(c - kept, c + kept) for c in (z, y, x))
        sums[box] += said[0, CROP:-CROP, CROP:-CROP, CROP:-CROP].astype(np.float16)
        seen[box] += 1
    for k in range(n_classes):
        sums[..., k] /= seen
    return time.process_time() - started, len(places)


def its_own_class(root: Path, model: Any, volume: NDArray[np.float32], patch: int) -> tuple[float, int]:
    """Segment by DeepFinder's own inference class, with its network replaced by the given one.

    Its module imports much that segmenting does not need (drawing, reading of files); what is missing here is
    replaced by empty modules. Nothing in the class itself is changed.
    """
    sys.path.insert(0, str(root))
    for name in ("h5py", "matplotlib", "matplotlib.pyplot", "openpyxl", "lxml", "pycm", "skimage.measure"):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    models = types.ModuleType("deepfinder.models")
    models.my_model = lambda _patch, _classes: _Loaded(model)  # type: ignore[attr-defined]
    sys.modules["deepfinder.models"] = models
    from deepfinder.inference import Segment

    with tempfile.NamedTemporaryFile(suffix=".h5") as weights:
        segmenter = Segment(model.output_shape[-1], weights.name, patch)
        counted = 0
        honest = segmenter.net.predict

        def predict(*arguments: Any, **options: Any) -> Any:
            nonlocal counted
            counted += 1
            return honest(*arguments, **options, verbose=0)

        segmenter.net.predict = predict
        started = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):  # it says each cube
            segmenter.launch(volume)
        return time.process_time() - started, counted


class _Loaded:
    """A network whose weights are there already."""

    def __init__(self, model: Any) -> None:
        self.predict: Callable[..., Any] = model.predict

    def load_weights(self, _path: str) -> None:
        """Keep what is there."""


def ours(model: Any, volume: NDArray[np.float32], memory: float, tile: int | None) -> tuple[float, Any]:
    """Segment by the picker's way; returns CPU seconds and the columns."""
    from catalogs.intensity import measure, normalise
    from catalogs.schema import ClassInfo
    from tlpick.network.geometry import read_graph
    from tlpick.network.segment import compiled, segment
    from tlpick.network.tiles import plan

    network = compiled(read_graph(model))
    classes = [ClassInfo(name=f"c{k}", label=k, radius=100.0) for k in range(1, network.n_classes)]
    segment(volume[:16, :16, :16], network, plan((16, 16, 16), network, 1e12), classes, {})  # traces
    started = time.process_time()
    z, y, x = volume.shape
    tiling = plan((z, y, x), network, memory, tile)
    segment(normalise(volume, measure(volume)), network, tiling, classes, {})
    return time.process_time() - started, tiling


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment by DeepFinder's way and by ours, and compare.")
    parser.add_argument("--shape", nargs=3, type=int, default=(280, 280, 280), metavar=("Z", "Y", "X"))
    parser.add_argument("--network", default="deepfinder", help="as tltrain names it")
    parser.add_argument("--classes", type=int, default=3, help="the background included")
    parser.add_argument("--patch", type=int, default=192, help="of DeepFinder")
    parser.add_argument("--max-memory", type=float, default=3.0, help="GB, of our sweep")
    parser.add_argument("--reference", type=Path, help="clone of cryoet-deepfinder: run its own class")
    given = parser.parse_args()

    import keras

    from tltrain.networks.architectures import architecture

    model = architecture(given.network).build(given.classes, 1)
    model.compile(jit_compile=False)
    keras.utils.disable_interactive_logging()
    volume = np.random.default_rng(1).standard_normal(given.shape, np.float32)
    mega = volume.size / 1e6

    cpu, tiling = ours(model, volume, 1e9 * given.max_memory, None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if given.reference:
        other, cubes = its_own_class(given.reference, model, volume, given.patch)
    else:
        other, cubes = deepfinders_way(model, volume, given.patch)
    twice = cubes * given.patch**3 / volume.size
    lines = [
        f"{'':22s}{'CPU s':>9s}{'voxels/s':>12s}{'computed/voxels':>18s}",
        f"{'sweep':22s}{cpu:9.1f}{1e6 * mega / cpu:12.0f}{tiling.redundancy:18.2f}",
        f"{'DeepFinder':22s}{other:9.1f}{1e6 * mega / other:12.0f}{twice:18.2f}",
    ]
    print("\n".join(lines), "", sep="\n")
    print(
        json.dumps(
            {
                "shape": list(given.shape),
                "network": given.network,
                "reference": "its own class" if given.reference else "its tiling",
                "cubes": cubes,
                "columns": len(tiling),
                "planes": tiling.planes,
                "cpu_s": round(cpu, 2),
                "reference_cpu_s": round(other, 2),
                "voxels_per_s": round(1e6 * mega / cpu),
                "reference_voxels_per_s": round(1e6 * mega / other),
                "redundancy": round(tiling.redundancy, 3),
                "reference_redundancy": round(twice, 3),
                "peak_memory_MB": round(peak),
                "reference_peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "speedup_over_deepfinder": round(other / cpu, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
