"""What the generator's tests share."""

from __future__ import annotations

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
