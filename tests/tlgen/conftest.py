"""What the generator's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlgen.decorations import CLASS_NAMES, Bead
from tlgen.molecule import Molecule, centred
from tlgen.scene import Scene


def ball(name: str, n: int) -> Molecule:
    points = np.random.default_rng(n).normal(0, 8, (n, 3))
    return centred(name, np.full(n, 6), points, np.ones(n, bool), rmsd=1.5, amplitudes=(1.2, -0.9))


@pytest.fixture
def example() -> tuple[Scene, dict[str, Molecule]]:
    """A small scene of two kinds of balls and a bead of gold, and its molecules."""
    library = {m.digest: m for m in (ball("one", 900), ball("two", 400))}
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(5, 4))
    return Scene(
        shape=(20, 30, 26),
        voxel_size=8.0,
        digests=tuple(library),
        names=("one", "two"),
        variants=(-1, 3),
        labels=(1, 0),
        class_names=("one", *CLASS_NAMES),
        which=np.array([0, 1, 1, 0, 1]),
        positions=rng.uniform(-60, 60, (5, 3)),
        quaternions=quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        amplitudes=((), (1.2, -0.9)),
        rmsds=(0.0, 1.5),
        decorations=(Bead((50, 60, 40), 20, 7),),
        asked={"one": 4, "distractor": 3},
    ), library


def _write_ball(path: Path, radius: float, seed: int) -> None:
    """Write a PDB file of a ball of carbon atoms, about as dense as a protein."""
    rng = np.random.default_rng(seed)
    n = int(4 / 3 * np.pi * radius**3 / 18)
    xyz = rng.uniform(-radius, radius, (20 * n, 3))
    xyz = xyz[np.linalg.norm(xyz, axis=1) < radius][:n]
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(xyz)
    ]
    path.write_text("\n".join([*lines, "END", ""]))


@pytest.fixture
def write_ball() -> Callable[[Path, float, int], None]:
    return _write_ball


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A recipe of three samples that take a second, with its structures beside it."""
    _write_ball(tmp_path / "big.pdb", 30, 0)
    _write_ball(tmp_path / "small.pdb", 18, 1)
    return {
        "name": "balls",
        "shape": [16, 24, 25],
        "targets": {"big": {"structures": ["big.pdb"], "count": 2, "variants": {"number": 0}}},
        "distractors": [{"file": "small.pdb", "count": 3}],
        "acquisition": {
            "engine": "multislice",
            "voxel_size": 10,
            "tilt_range": 60,
            "tilt_step": 20,
            "dose": {"min": 90, "max": 120},
        },
        "samples": {"train": {"number": 2}, "held-out": {"number": 1, "split": "test"}},
    }
