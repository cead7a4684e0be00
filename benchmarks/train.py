"""Training steps on this machine: our networks against DeepFinder's in its own code, and against themselves.

    python benchmarks/train.py --reference CLONE    # of DeepFinder's repository; without it, ours alone

Every network learns the same batches; a step is forward, backward and update. Steps of all networks take
turns, and the median of each is compared, so that what else the machine does hits all alike. DeepFinder's
network is the one that its ``models.py`` makes and its ``losses.py`` judges, with Adam, on whole float32
one-hot targets, as its ``train_on_batch`` gets them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tltrain  # noqa: F401  before Keras: it chooses the kernels


def reference(clone: Path, patch: int, n_classes: int) -> Callable[[Any, Any], Any]:
    """Make DeepFinder's network with its own code; return what takes a step."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        modules = []
        for name in ("models", "losses"):
            text = source(clone, f"deepfinder/{name}.py")
            file = Path(folder) / f"reference_{name}.py"
            file.write_text(text)
            spec = importlib.util.spec_from_file_location(file.stem, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            modules.append(module)
    models, losses = modules
    network = models.my_model(patch, n_classes)
    # its optimizer is gone from Keras 3; this one takes the same steps
    optimizer = keras.optimizers.Adam(1e-4, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    network.compile(optimizer=optimizer, loss=losses.tversky_loss, metrics=["accuracy"])
    return lambda grey, classes: network.train_on_batch(grey, np.eye(n_classes, dtype=np.float32)[classes])


def source(clone: Path, name: str) -> str:
    """Read a file of a clone, with or without a work tree."""
    if (clone / name).is_file():
        return (clone / name).read_text()
    shown = subprocess.run(
        ["git", "-C", str(clone), "show", f"HEAD:{name}"], capture_output=True, text=True, check=True
    )
    return shown.stdout


def ours(name: str, n_classes: int, **how: Any) -> Callable[[Any, Any], Any]:
    """Make one of our networks; return what takes a step."""
    from tltrain.networks.architectures import architecture
    from tltrain.training.learner import Learner, Optimisation

    arch = architecture(name)
    optimisation = Optimisation(steps=1000, learning_rate=arch.learning_rate, **how)
    learner = Learner(lambda: arch.build(n_classes, 0), optimisation)
    return lambda grey, classes: learner.step((grey, classes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--reference", type=Path, help="clone of DeepFinder's repository")
    parser.add_argument("--patch", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    from catalogs.console import without_greetings

    with without_greetings():
        import keras  # noqa: F401

    n_classes, edge = 2, options.patch
    rng = np.random.default_rng(0)
    grey = rng.standard_normal((options.batch, edge, edge, edge, 1), np.float32)
    classes = (grey[..., 0] > 1).astype(np.uint8)
    contenders = {
        "deepfinder": ours("deepfinder", n_classes, loss="tversky", xla=False),
        "deepfinder, XLA": ours("deepfinder", n_classes, loss="tversky", xla=True),
        "residual-unet": ours("residual-unet", n_classes, xla=False),
        "small": ours("small", n_classes, xla=False),
        "small, XLA": ours("small", n_classes, xla=True),
    }
    if options.reference:
        contenders = {"DeepFinder's own": reference(options.reference, edge, n_classes)} | contenders
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(options.steps + 1):
        for name, step in contenders.items():
            begun, busy = time.perf_counter(), time.process_time()
            step(grey, classes)
            if k:  # the first compiles
                wall[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - busy)
    voxels = grey.size
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    base = "DeepFinder's own" if options.reference else "deepfinder"
    print(f"a step on {options.batch} patches of {edge}³ voxels, {n_classes} classes; CPU seconds")
    print(f"{'':18} {'CPU s':>8} {'wall s':>8} {'Mvoxel/s':>9} {'times as fast':>14}")
    for name, seconds in medians.items():
        print(
            f"{name:18} {seconds:8.3f} {statistics.median(wall[name]):8.3f} {voxels / seconds / 1e6:9.3f} "
            f"{medians[base] / seconds:14.2f}"
        )
    figures = {
        "step_cpu_seconds": {name: round(seconds, 4) for name, seconds in medians.items()},
        "xla_gain": round(medians["deepfinder"] / medians["deepfinder, XLA"], 3),
        "xla_gain_small": round(medians["small"] / medians["small, XLA"], 3),
        "small_over_deepfinder": round(medians["deepfinder"] / medians["small"], 2),
    }
    if options.reference:
        figures["speedup"] = round(medians[base] / medians["deepfinder"], 3)
        figures["small_speedup"] = round(medians[base] / medians["small"], 2)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
