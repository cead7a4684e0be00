"""Training steps on this machine: as the program takes them, by oneDNN's best, other backends, DeepFinder.

    python benchmarks/train.py                       # all but DeepFinder's own code
    python benchmarks/train.py --reference CLONE     # of DeepFinder's repository
    python benchmarks/train.py --only backends       # or onednn, or networks

A step is forward, backward and update, on the batch and patch that `tltrain fit` takes unless it is told
otherwise.

- ``networks``: our networks, with XLA and without, and DeepFinder's if there is a clone. All learn the same
  batches and take turns; the medians are compared, so that what else the machine does hits all alike.
  DeepFinder's network is the one that its ``models.py`` makes and its ``losses.py`` judges, with Adam, on
  whole float32 one-hot targets, as its ``train_on_batch`` gets them.
- ``onednn``: a step of ``small`` as the program takes it, over the quickest of all settings of oneDNN, on
  this processor and on one that has AVX2 only (``ONEDNN_MAX_CPU_ISA=AVX2``); ``onednn_step_ratio`` is the
  worse of the two.
- ``backends``: steps and predictions by Keras on TensorFlow, JAX and PyTorch, those that are installed, on
  both kinds of processor (``--xla_cpu_max_isa=AVX2`` for JAX,
  ``ATEN_CPU_CAPABILITY`` for PyTorch).

Figures are CPU seconds; processes with other settings follow one another, and their quickest step counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

import tltrain  # noqa: F401  before Keras: it chooses the kernels

#: What the processor is limited to, by kind.
KINDS: dict[str, dict[str, str]] = {
    "this processor": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
}
#: Settings of oneDNN that a user could try, by kind; those of a kind include all that the kind allows.
SETTINGS: dict[str, list[dict[str, str]]] = {
    "this processor": [
        {"TF_ENABLE_ONEDNN_OPTS": "1"},
        {"TF_ENABLE_ONEDNN_OPTS": "0"},
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
    "AVX2": [{"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}],
}
#: Environment variables that determine the kernels.
STEERING = (
    "TF_ENABLE_ONEDNN_OPTS",
    "ONEDNN_MAX_CPU_ISA",
    "XLA_FLAGS",
    "ATEN_CPU_CAPABILITY",
    "KERAS_BACKEND",
)


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


def batch_of(patch: int, batch: int) -> tuple[Any, Any]:
    """Make grey values and classes of a batch."""
    grey = np.random.default_rng(0).standard_normal((batch, patch, patch, patch, 1), np.float32)
    return grey, (grey[..., 0] > 1).astype(np.uint8)


def ours(name: str, n_classes: int, **how: Any) -> Callable[[Any, Any], Any]:
    """Make one of our networks; return what takes a step."""
    from tltrain.networks.architectures import architecture
    from tltrain.training.learner import Learner, Optimisation

    arch = architecture(name)
    optimisation = Optimisation(steps=1000, learning_rate=arch.learning_rate, **how)
    learner = Learner(lambda: arch.build(n_classes, 0), optimisation)
    return lambda grey, classes: learner.step((grey, classes))


def one(job: Mapping[str, Any]) -> dict[str, float]:
    """Time steps and predictions of one network in this process, whose environment says with what."""
    import keras

    from tltrain.networks.architectures import architecture
    from tltrain.training.learner import Learner, Optimisation

    grey, classes = batch_of(job["patch"], job["batch"])
    arch = architecture(job["network"])
    learner = Learner(lambda: arch.build(2, 0), Optimisation(steps=1000, learning_rate=arch.learning_rate))

    def predict() -> None:
        learner.network.predict_on_batch(grey)

    found = {}
    for what, work in (("step", lambda: learner.step((grey, classes))), ("predict", predict)):
        if what not in job["what"]:
            continue
        work()  # compiles
        cpu, wall = [], []
        for _ in range(job["steps"]):
            begun, busy = time.perf_counter(), time.process_time()
            work()
            wall.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - busy)
        found |= {f"{what}_cpu_s": round(min(cpu), 4), f"{what}_wall_s": round(min(wall), 4)}
    assert keras.backend.backend() == os.environ.get("KERAS_BACKEND", "tensorflow")
    return found


def apart(job: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, float] | None:
    """Do :func:`one` in a process with these settings; None if it fails there."""
    environment = {name: value for name, value in os.environ.items() if name not in STEERING}
    command = [sys.executable, __file__, "--one", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | settings)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def onednn(given: argparse.Namespace) -> dict[str, Any]:
    """Compare a step as the program takes it with all settings of oneDNN, on both kinds of processor."""
    job = {
        "network": "small",
        "patch": given.patch,
        "batch": given.batch,
        "steps": given.steps,
        "what": ["step"],
    }
    print(f"\na step of small on {given.batch} patches of {given.patch}³ voxels; CPU seconds")
    ratios, table = {}, {}
    for kind, limits in KINDS.items():
        seconds: dict[str, float] = {}
        for settings in [{}, *SETTINGS[kind]]:
            words = ", ".join(f"{k}={v}" for k, v in settings.items()) or "as the program takes it"
            off = settings.get("TF_ENABLE_ONEDNN_OPTS") == "0"  # takes long, and no average is needed
            found = apart(job | ({"steps": 1} if off else {}), limits | settings)
            if found is not None:
                seconds[words] = found["step_cpu_s"]
                print(f"{kind:16} {words:60} {found['step_cpu_s']:8.3f}")
        ratios[kind] = seconds["as the program takes it"] / min(seconds.values())
        table[kind] = seconds
    print("as the program takes it over the best: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))
    return {
        "onednn_step_ratio": round(max(ratios.values()), 3),
        "onednn_step_ratios": {kind: round(ratio, 3) for kind, ratio in ratios.items()},
        "onednn_step_cpu_s": table,
    }


def backends(given: argparse.Namespace) -> dict[str, Any]:
    """Compare Keras' backends, on both kinds of processor."""
    there = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    print(f"\nKeras on {', '.join(there)}: {given.batch} patches of {given.patch}³ voxels; CPU seconds")
    print(f"{'':16} {'network':12} {'backend':12} {'step':>8} {'predict':>8}")
    figures: dict[str, Any] = {}
    for kind, limits in KINDS.items():
        for network in ("small", "deepfinder"):
            for backend in there:
                job = {
                    "network": network,
                    "patch": given.patch,
                    "batch": given.batch,
                    "steps": given.steps if network == "small" else 2,
                    "what": ["step", "predict"],
                }
                found = apart(job, limits | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"})
                figures.setdefault(kind, {}).setdefault(network, {})[backend] = found
                if found:
                    step, predict = found["step_cpu_s"], found["predict_cpu_s"]
                    print(f"{kind:16} {network:12} {backend:12} {step:8.3f} {predict:8.3f}", flush=True)
    return {"backends": figures}


def networks(given: argparse.Namespace) -> dict[str, Any]:
    """Compare our networks with each other and with DeepFinder's."""
    from catalogs.console import without_greetings

    with without_greetings():
        import keras  # noqa: F401

    n_classes = 2
    grey, classes = batch_of(given.patch, given.batch)
    contenders = {
        "deepfinder": ours("deepfinder", n_classes, loss="tversky", xla=False),
        "deepfinder, XLA": ours("deepfinder", n_classes, loss="tversky", xla=True),
        "residual-unet": ours("residual-unet", n_classes, xla=False),
        "small": ours("small", n_classes, xla=False),
        "small, XLA": ours("small", n_classes, xla=True),
    }
    if given.reference:
        contenders = {"DeepFinder's own": reference(given.reference, given.patch, n_classes)} | contenders
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(given.steps + 1):
        for name, step in contenders.items():
            begun, busy = time.perf_counter(), time.process_time()
            step(grey, classes)
            if k:  # the first compiles
                wall[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - busy)
    voxels = grey.size
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    base = "DeepFinder's own" if given.reference else "deepfinder"
    print(f"\na step on {given.batch} patches of {given.patch}³ voxels, {n_classes} classes; CPU seconds")
    print(f"{'':18} {'CPU s':>8} {'wall s':>8} {'Mvoxel/s':>9} {'times as fast':>14}")
    for name, seconds in medians.items():
        print(
            f"{name:18} {seconds:8.3f} {statistics.median(wall[name]):8.3f} {voxels / seconds / 1e6:9.3f} "
            f"{medians[base] / seconds:14.2f}"
        )
    figures: dict[str, Any] = {
        "step_cpu_seconds": {name: round(seconds, 4) for name, seconds in medians.items()},
        "xla_gain": round(medians["deepfinder"] / medians["deepfinder, XLA"], 3),
        "xla_gain_small": round(medians["small"] / medians["small, XLA"], 3),
        "small_over_deepfinder": round(medians["deepfinder"] / medians["small"], 2),
    }
    if given.reference:
        figures["speedup"] = round(medians[base] / medians["deepfinder"], 3)
        figures["small_speedup"] = round(medians[base] / medians["small"], 2)
    return figures


PARTS = {"networks": networks, "onednn": onednn, "backends": backends}


def main() -> int:
    from tltrain.training.settings import Settings

    usual = Settings()
    parser = argparse.ArgumentParser(description="Training steps on this machine.")
    parser.add_argument("--reference", type=Path, help="clone of DeepFinder's repository")
    parser.add_argument("--patch", type=int, default=usual.patch)
    parser.add_argument("--batch", type=int, default=usual.batch)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part [all of them]")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(json.loads(given.one))))
        return 0
    here = machine()
    print(here)
    figures: dict[str, Any] = {"patch": given.patch, "batch": given.batch}
    for name in given.only or PARTS:
        figures |= PARTS[name](given)
    print(json.dumps(figures | here.figures()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
