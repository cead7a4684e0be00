"""The thresholds that our engine is held to beside Parakeet at the paper's settings, on molecules.

One 70S ribosome, and a packed box of four kinds. ``benchmarks/simulate.py`` prints and draws the figures.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library
from tlgen.molecules.structures import load_structure
from tlgen.packing import tetris
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope.binning import binned
from tlgen.simulate.multislice.multislice import Multislice
from tlgen.simulate.parakeet import Parakeet
from tlgen.tilts.scheme import Tilt

PAPER = {"slice_thickness": 3.0, "padding": 100}
VIEWS = [
    (0.0, {"defocus": 2.5}),
    (60.0, {"defocus": 4.0}),
    (-60.0, {"defocus": 2.5}),
    (-30.0, {"defocus": 0.5, "phase_plate": True}),
]
NAMES = ("4v5d", "3jb9", "4v8r", "4v1w")


@cache
def scene_of(kind: str, voxel_size: float) -> tuple[Scene, Library]:
    """Pack a box of 400 Å: the same places at every voxel size."""
    library = {m.digest: m for m in map(load_structure, NAMES)}
    asked = (1, 0, 0, 0) if kind == "ribosome" else (3, 2, 3, 4)
    requests = [tetris.Request(d, n, share=n) for d, n in zip(library, asked, strict=True) if n]
    packed = tetris.pack((50, 50, 50), 8.0, requests, library, gap=6, seed=1)
    n = round(400 / voxel_size)
    present = [d for d, k in zip(library, asked, strict=True) if k]
    names = [name for name, k in zip(NAMES, asked, strict=True) if k]
    return Scene(
        (n, n, n), voxel_size, tuple(present), tuple(names), (-1,) * len(names), (1,) * len(names), ("m",),
        packed.which, packed.positions, packed.quaternions,
    ), library  # fmt: skip


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def shells(image: np.ndarray, number: int = 8) -> np.ndarray:
    """Power in shells from zero to 0.8 of Nyquist."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    edges = np.linspace(0, 0.4, number + 1)
    return np.array([power[(q > low) & (q <= high)].mean() for low, high in itertools.pairwise(edges)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ribosome", "crowd"])
@pytest.mark.parametrize(("angle", "lens"), VIEWS)
def test_without_ice(kind: str, angle: float, lens: dict[str, float]) -> None:
    tilt = Tilt(3, angle, 2.0, 6.0)
    acq = Acquisition.model_validate(PAPER | {"ice_density": 0.0, "voxel_size": 4.0} | lens)
    scene, library = scene_of(kind, 4.0)
    fine = Parakeet().simulate(scene, library, acq, tilt, 1, noise=False)
    for voxel_size, limit in ((4.0, 0.998), (8.0, 0.999)):
        theirs = binned(fine, round(voxel_size / 4))
        scene, library = scene_of(kind, voxel_size)
        ours = Multislice().simulate(
            scene, library, acq.model_copy(update={"voxel_size": voxel_size}), tilt, 1, noise=False
        )
        assert correlation(ours, theirs) > limit
        assert np.abs(shells(ours) / shells(theirs) - 1).max() < 0.05
        assert ours.mean() == pytest.approx(theirs.mean(), abs=2e-4)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", ["ribosome", "crowd"])
@pytest.mark.parametrize(("angle", "lens"), [VIEWS[0], VIEWS[1], VIEWS[3]])
def test_in_ice(kind: str, angle: float, lens: dict[str, float]) -> None:
    scene, library = scene_of(kind, 8.0)
    tilt = Tilt(3, angle, 2.0, 6.0)
    acq = Acquisition.model_validate(PAPER | lens)
    ours, theirs = (
        np.stack([engine.simulate(scene, library, acq, tilt, k, noise=False) for k in range(seeds)])
        for engine, seeds in ((Multislice(), 24), (Parakeet(), 4))
    )
    reliability = []
    for stack in (ours, theirs):
        pairs = itertools.combinations(stack, 2)
        r, n = np.mean([correlation(a, b) for a, b in pairs]), len(stack)
        reliability.append(n * r / (1 + (n - 1) * r))  # Spearman-Brown
    signal = correlation(ours.mean(axis=0), theirs.mean(axis=0)) / np.sqrt(np.prod(reliability))
    assert signal > 0.99
    # of the ice's own noise, all shells together: a single one holds too few frequencies of four images
    spread = [s.var(axis=0, ddof=1).mean() for s in (ours, theirs)]
    assert spread[0] / spread[1] == pytest.approx(1, abs=0.05)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0.0, 60.0])
# three images of 2500 pixels know their variance to 1.6 %, sixteen to 0.7 %
@pytest.mark.parametrize(("seeds", "limit"), [(3, 0.05), pytest.param(16, 0.02, marks=pytest.mark.long)])
def test_noisy_images_have_the_same_mean_and_variance(angle: float, seeds: int, limit: float) -> None:
    scene, library = scene_of("crowd", 8.0)
    acq, tilt = Acquisition.model_validate(PAPER), Tilt(3, angle, 2.0, 6.0)
    ours = np.stack([Multislice().simulate(scene, library, acq, tilt, k) for k in range(64)])
    theirs = np.stack([Parakeet().simulate(scene, library, acq, tilt, k) for k in range(seeds)])
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.02)
    assert ours.var(axis=(1, 2)).mean() == pytest.approx(theirs.var(axis=(1, 2)).mean(), rel=limit)
