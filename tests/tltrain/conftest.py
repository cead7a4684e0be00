"""Small corpora on disk: dark balls are the targets, larger and smaller ones the distractors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalogs import particles
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.schema import Acquisition, ClassInfo
from catalogs.seeds import digest, generator

VOXEL = 10.0
TARGET_RADIUS = 5.0  # voxels
DISTRACTOR_RADII = (2.5, 9.0)
CLASSES = [ClassInfo(name="ball", label=1, radius=TARGET_RADIUS * VOXEL)]


def _write_balls(
    catalog: Catalog,
    name: str,
    split: str,
    *,
    shape: tuple[int, int, int] = (40, 72, 70),
    n: int = 14,
    voxel_size: float = VOXEL,
    noise: float = 1.0,
    label: int = 1,
) -> str:
    """Write one synthetic tomogram; return its sample id."""
    rng = generator("balls", name)
    grid = np.indices(shape)
    density, classes = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    instances, placed = np.zeros(shape, np.uint16), []
    for k in range(n * 20):
        radius = TARGET_RADIUS if k % 2 == 0 else DISTRACTOR_RADII[(k // 2) % 2]
        centre = np.array([rng.uniform(min(radius, s / 3), s - min(radius, s / 3)) for s in shape])
        if any(np.linalg.norm(centre - c) < radius + r + 1 for c, r, _ in placed):
            continue
        is_target = radius == TARGET_RADIUS
        placed.append((centre, radius, is_target))
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
        density[ball], instances[ball] = 1, len(placed)
        if is_target:
            classes[ball] = label
        if len(placed) == n:
            break
    # what a tilt series from -60° to 60° around y leaves of it: a wedge around kz is missing
    kz, ky, kx = np.meshgrid(*(np.fft.fftfreq(s) for s in shape), indexing="ij")
    seen = np.abs(np.arctan2(kz, np.abs(kx) + 1e-9)) <= np.deg2rad(60)
    grey = -density + noise * rng.standard_normal(shape)
    grey = np.fft.ifftn(np.fft.fftn(grey) * seen * np.exp(-20 * (kz**2 + ky**2 + kx**2))).real

    centres = np.array([c for c, _, _ in placed]).reshape(-1, 3) * voxel_size
    flags = np.array([t for _, _, t in placed], bool)
    table = particles.make(
        tomogram=name,
        class_name=["ball" if t else "distractor" for t in flags],
        label=np.where(flags, label, 0),
        instance=np.arange(1, len(placed) + 1),
        x=centres[:, 2],
        y=centres[:, 1],
        z=centres[:, 0],
    )
    sample_id = digest(["balls", name])
    facts = {
        "sample_id": sample_id,
        "name": name,
        "split": split,
        "seed": 1,
        "acquisition": Acquisition(voxel_size=voxel_size, defocus=float(rng.uniform(1, 4))),
        "shape": shape,
        "n_tilts": 41,
        "n_particles": int(flags.sum()),
        "n_distractors": int((~flags).sum()),
        "class_counts": {"ball": int(flags.sum())},
        "structures": {"ball": "0" * 16},
        "occupancy": float((instances > 0).mean()),
        "seconds": {"simulate": 0.0},
        "software": {"test": "1"},
    }
    catalog.write(
        Sample(
            tomogram=grey.astype(np.float32),
            classes=classes,
            instances=instances,
            particles=table,
            tilt_images=None,
            tilt_angles=np.linspace(-60, 60, 41, dtype=np.float32),
            tilt_doses=np.linspace(0, 97.5, 41, dtype=np.float32),
            facts=facts,
        )
    )
    return sample_id


def _make_catalog(path: Path, classes: list[ClassInfo] | None = None) -> Catalog:
    return Catalog.create(str(path), classes=classes or CLASSES, recipe={"made": "by a test"}, name="balls")


@pytest.fixture(scope="session")
def write_balls() -> Callable[..., str]:
    return _write_balls


@pytest.fixture(scope="session")
def make_catalog() -> Callable[..., Catalog]:
    return _make_catalog


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Four tomograms to train on, one to validate on, one that nobody may touch."""
    catalog = _make_catalog(tmp_path_factory.mktemp("corpus") / "balls")
    for k in range(4):
        _write_balls(catalog, f"train-{k}", "train")
    _write_balls(catalog, "val-0", "val")
    _write_balls(catalog, "test-0", "test")
    return catalog


@pytest.fixture
def tltrain(monkeypatch, capsys):
    """Run ``tltrain ARGUMENTS`` as the console script does; give status, output and errors."""

    def call(*arguments):
        from tltrain.cli import main

        monkeypatch.setattr(sys, "argv", ["tltrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call
