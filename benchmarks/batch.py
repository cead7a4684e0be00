"""How long a batch of tomograms takes with one worker and with two, and how much memory a process needs.

    python benchmarks/batch.py
    python benchmarks/batch.py --tomograms 50 --shape 96 192 192 --workers 1 2 4

The tomograms are dark balls in noise, the network is one that finds them; each run is the program itself,
with workers of its own. Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tlpick  # noqa: F401  before Keras: it chooses the kernels

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RADIUS = 50.0  # Å
PROGRAM = "import sys, tlpick.cli; sys.argv[0] = 'tlpick'; tlpick.cli.main()"


def model(path: Path) -> None:
    """Write a network that calls a voxel a ball where its vicinity is dark."""
    import keras

    from catalogs.intensity import NORMALISATION
    from catalogs.model_file import ModelCard, write_model
    from catalogs.schema import ClassInfo

    entry = keras.Input((None, None, None, 1))
    mean = keras.layers.Conv3D(16, 5, padding="same")
    wide = keras.layers.Conv3D(16, 3, padding="same")
    out = keras.layers.Conv3D(2, 1, activation="softmax")
    network = keras.Model(entry, out(wide(mean(entry))))
    mean.set_weights([np.full((5, 5, 5, 1, 16), 1 / 125, np.float32), np.zeros(16, np.float32)])
    centre = np.zeros((3, 3, 3, 16, 16), np.float32)
    centre[1, 1, 1] = 1 / 16
    wide.set_weights([centre, np.zeros(16, np.float32)])
    decide = np.zeros((1, 1, 1, 16, 2), np.float32)
    decide[..., 1] = -20 / 16
    out.set_weights([decide, np.array([0, -12], np.float32)])
    file = path.with_suffix(".keras")
    network.save(file)
    card = ModelCard(
        name="balls",
        created="2026-01-01T00:00:00Z",
        voxel_size=10.0,
        contrast="dark",
        classes=[ClassInfo(name="ball", label=1, radius=RADIUS)],
        normalisation=NORMALISATION,
        network="by hand",
        n_parameters=network.count_params(),
        pooling=1,
        halo=3,
        patch=16,
        thresholds={},
        training={},
        provenance={},
    )
    write_model(path, card, file.read_bytes())


def tomogram(path: Path, shape: tuple[int, int, int], seed: int) -> None:
    """Write noise with dark balls on a loose grid."""
    from catalogs.volumes import write_mrc

    rng = np.random.default_rng(seed)
    data = rng.standard_normal(shape, np.float32)
    reach = np.arange(-6, 7)
    ball = (reach[:, None, None] ** 2 + reach[:, None] ** 2 + reach**2) <= (RADIUS / 10) ** 2
    for corner in np.ndindex(*(n // 20 for n in shape)):
        z, y, x = (20 * k + 3 + int(rng.integers(0, 4)) for k in corner)
        data[z : z + 13, y : y + 13, x : x + 13][ball] -= 2
    write_mrc(path, data, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pick a batch of tomograms with several numbers of workers.")
    parser.add_argument("--tomograms", type=int, default=20)
    parser.add_argument("--shape", nargs=3, type=int, default=(96, 224, 224), metavar=("Z", "Y", "X"))
    parser.add_argument("--workers", nargs="+", type=int, default=(1, 2))
    given = parser.parse_args()
    z, y, x = given.shape

    figures: dict[str, object] = {"tomograms": given.tomograms, "shape": [z, y, x], "cores": os.cpu_count()}
    lists = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder / "balls.tlm")
        for k in range(given.tomograms):
            tomogram(folder / "data" / f"tomo-{k:03d}.mrc", (z, y, x), k)
        print(f"{'workers':>8s}{'wall s':>9s}{'CPU s':>9s}{'s/tomogram':>12s}")
        for workers in given.workers:
            picks = folder / f"by-{workers}"
            command = [sys.executable, "-c", PROGRAM, "run", folder / "balls.tlm", folder / "data" / "*.mrc"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.perf_counter()
            done = subprocess.run(
                [*map(str, command), "--to", str(picks), "--cluster", f"local:{workers}"],
                capture_output=True,
                text=True,
            )
            wall = time.perf_counter() - started
            if done.returncode:
                sys.exit(done.stderr)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found = re.search(r"(\d+) ball in (\d+) tomograms", done.stdout)
            assert found is not None
            lists.add(hashlib.sha256((picks / "particles.star").read_bytes()).hexdigest())
            print(f"{workers:8d}{wall:9.1f}{cpu:9.1f}{wall / given.tomograms:12.2f}")
            figures |= {f"wall_s_{workers}": round(wall, 1), f"cpu_s_{workers}": round(cpu, 1)}
            figures["picks"] = int(found[1])
    figures["identical"] = len(lists) == 1
    figures["peak_memory_MB"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    one, two = (figures.get(f"wall_s_{n}") for n in (1, 2))
    figures["speedup_2_workers"] = (
        round(one / two, 2) if isinstance(one, float) and isinstance(two, float) else None
    )
    print("", json.dumps(figures), sep="\n")


if __name__ == "__main__":
    main()
