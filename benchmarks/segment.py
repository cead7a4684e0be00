"""How fast the picker segments: against DeepFinder's own way, against the bare network, on how many cores.

    python benchmarks/segment.py                                   # DeepFinder's tiling as this file has it
    python benchmarks/segment.py --reference ~/cryoet-deepfinder   # its own inference class, from a clone
    python benchmarks/segment.py --shape 240 630 652 --network small --without-deepfinder

For each network, with the same weights on the same CPU in one run:

- the picker picks a tomogram from its file; wall and CPU time of its stages are shown;
- the network is called on one block, of the size that it is quickest on because it fits into the cache; the
  sweep's voxels a second over the block's are ``sweep_efficiency``, in CPU time;
- DeepFinder's way segments the same volume. It cuts a tomogram into cubes of 192 voxels that overlap by 55,
  of which it crops 25 on each side and averages what overlaps. The volume is by default one that two such
  cubes along each axis cover exactly, which is the best that can happen to them: they compute 2.6 times its
  voxels, and of a tomogram of 512 x 512 x 200 4.3 times.

Prints tables, and as the last line one JSON object of the figures; those of several networks are the worst.
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
from machine import machine
from numpy.typing import NDArray

import tlpick  # noqa: F401  before Keras: it chooses the kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CROP, OVERLAP = 25, 55  # voxels, DeepFinder's defaults
BLOCKS = (32, 48, 64, 96)  # voxels: edges of the blocks that the bare network is called on
SHARE = 0.002  # of the voxels are of a class: about what a tomogram with some hundred particles has


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
        sums[..., k] /= np.maximum(seen, 1)
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
    from deepfinder import inference

    inference.models = models  # also where the class was imported before, with another network
    with tempfile.NamedTemporaryFile(suffix=".h5") as weights:
        segmenter = inference.Segment(model.output_shape[-1], weights.name, patch)
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


def block(model: Any, repeats: int = 5) -> tuple[float, int]:
    """Call the bare network on several blocks; returns the most voxels a CPU second, and its edge."""
    import tensorflow as tf

    call = tf.function(lambda values: model(values, training=False), reduce_retracing=True)
    best = (0.0, 0)
    for edge in BLOCKS:
        values = tf.random.normal((1, edge, edge, edge, 1), seed=1)
        call(values)  # traces
        for _ in range(repeats):
            started = time.process_time()
            call(values).numpy()
            best = max(best, (edge**3 / (time.process_time() - started), edge))
    return best


def pick(model: Any, volume: NDArray[np.float32], memory: float, folder: Path) -> Any:
    """Pick the volume from a file by the program's own way; returns what became of it, with its times."""
    from catalogs.intensity import NORMALISATION, measure, normalise
    from catalogs.model_file import ModelCard, write_model
    from catalogs.schema import ClassInfo
    from catalogs.volumes import write_mrc
    from tlpick.batch.pipeline import Picked, Settings, pick_tomogram
    from tlpick.network.geometry import read_graph
    from tlpick.network.tomograms.inputs import Tomogram
    from tlpick.network.tomograms.intake import Preprocessing

    write_mrc(folder / "tomogram.mrc", volume, 10.0)
    some = normalise(volume[:64, :64, :64], measure(volume))[np.newaxis, ..., np.newaxis]
    said = np.asarray(model(some, training=False))[..., 1:].max(axis=-1)
    classes = [ClassInfo(name=f"c{k}", label=k, radius=100.0) for k in range(1, model.output_shape[-1])]
    model.save(folder / "network.keras")
    card = ModelCard(
        name="benchmark",
        created="2026-01-01T00:00:00Z",
        voxel_size=10.0,
        contrast="dark",
        classes=classes,
        normalisation=NORMALISATION,
        network=model.name,
        n_parameters=model.count_params(),
        pooling=4,
        halo=read_graph(model).halo,
        patch=40,
        thresholds={info.name: float(np.quantile(said, 1 - SHARE)) for info in classes},
        training={},
        provenance={},
    )
    write_model(folder / "model.tlm", card, (folder / "network.keras").read_bytes())
    # without a decoy, which would be segmented too
    settings = Settings(
        max_memory=memory,
        preprocessing=Preprocessing(trust_contrast=True),
        keep_segmentation="zarr",
        decoys=0,
    )
    outcome = pick_tomogram(
        str(folder / "model.tlm"), Tomogram(str(folder / "tomogram.mrc")), str(folder / "picks"), settings
    )
    assert isinstance(outcome.result, Picked)
    return outcome.result


def compare(name: str, volume: NDArray[np.float32], given: argparse.Namespace) -> dict[str, Any]:
    """Measure one network; prints a table, returns the figures."""
    from catalogs.console import without_greetings
    from tltrain.networks.architectures import architecture

    with without_greetings():
        import keras

    model = architecture(name).build(given.classes, 1)
    model.compile(jit_compile=False)
    keras.utils.disable_interactive_logging()
    with tempfile.TemporaryDirectory() as folder:
        made = pick(model, volume, 1e9 * given.max_memory, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu, wall = made.cpu_seconds["segment"], made.seconds["segment"]
    most, edge = block(model)
    mega = volume.size / 1e6
    print(f"\n{name}: {made.n_tiles} columns, {made.planes} planes a step")
    print(f"{'stage':22s}{'wall s':>9s}{'CPU s':>9s}{'CPU / wall':>12s}")
    for stage, seconds in made.seconds.items():
        busy = made.cpu_seconds[stage]
        print(f"{stage:22s}{seconds:9.1f}{busy:9.1f}{busy / max(seconds, 1e-3):12.2f}")
    print(f"{'way':22s}{'CPU s':>9s}{'voxels/s':>12s}{'computed/voxels':>18s}")
    print(f"{'sweep':22s}{cpu:9.1f}{1e6 * mega / cpu:12.0f}{made.redundancy:18.2f}")
    print(f"{f'one block of {edge}³':22s}{edge**3 / most:9.3f}{most:12.0f}{1:18.2f}")
    figures = {
        "columns": made.n_tiles,
        "planes": made.planes,
        "cpu_s": round(cpu, 2),
        "voxels_per_s": round(1e6 * mega / cpu),
        "block": edge,
        "block_voxels_per_s": round(most),
        "redundancy": made.redundancy,
        "peak_memory_MB": round(peak),
        "cpu_over_wall": round(cpu / wall, 2),
        "cpu_over_wall_by_stage": {
            stage: round(made.cpu_seconds[stage] / max(seconds, 1e-3), 2)
            for stage, seconds in made.seconds.items()
        },
        "sweep_efficiency": round(1e6 * mega / cpu / most, 3),
    }
    if given.without_deepfinder:
        return figures
    if given.reference:
        other, cubes = its_own_class(given.reference, model, volume, given.patch)
    else:
        other, cubes = deepfinders_way(model, volume, given.patch)
    twice = cubes * given.patch**3 / volume.size
    print(f"{'DeepFinder':22s}{other:9.1f}{1e6 * mega / other:12.0f}{twice:18.2f}")
    return figures | {
        "cubes": cubes,
        "reference_cpu_s": round(other, 2),
        "reference_voxels_per_s": round(1e6 * mega / other),
        "reference_redundancy": round(twice, 3),
        "reference_peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "speedup_over_deepfinder": round(other / cpu, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment by DeepFinder's way and by ours, and compare.")
    parser.add_argument("--shape", nargs=3, type=int, default=(280, 280, 280), metavar=("Z", "Y", "X"))
    parser.add_argument("--network", action="append", help="as tltrain names it [small and deepfinder]")
    parser.add_argument("--classes", type=int, default=3, help="the background included")
    parser.add_argument("--patch", type=int, default=192, help="of DeepFinder")
    parser.add_argument("--max-memory", type=float, default=4.0, help="GB, of our picker")
    parser.add_argument("--reference", type=Path, help="clone of cryoet-deepfinder: run its own class")
    parser.add_argument("--without-deepfinder", action="store_true", help="measure the picker alone")
    given = parser.parse_args()

    here = machine()
    print(here)
    volume = np.random.default_rng(1).standard_normal(given.shape, np.float32)
    networks = {name: compare(name, volume, given) for name in given.network or ["small", "deepfinder"]}
    worst = {
        name: min(figures[name] for figures in networks.values())
        for name in ("cpu_over_wall", "sweep_efficiency", "speedup_over_deepfinder")
        if all(name in figures for figures in networks.values())
    }
    reference = "its own class" if given.reference else "its tiling"
    print()
    print(
        json.dumps(
            {"shape": list(given.shape), "reference": reference, **worst, "networks": networks}
            | here.figures()
        )
    )


if __name__ == "__main__":
    main()
