"""The slab of ice is found to a few voxels, tilted or not, and no slab is found where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from catalogs.seeds import generator
from catalogs.slab import find_slab

VOXEL = 10.0


def ice(
    shape: tuple[int, int, int], low: float, high: float, tilt_x: float = 0, tilt_y: float = 0, seed: int = 0
) -> Any:
    """Noise everywhere, and matter between two planes through the middle at ``low`` and ``high`` (edges)."""
    rng = generator("slab", seed)
    noise = gaussian_filter(rng.standard_normal(shape, np.float32), 0.6)
    matter = gaussian_filter(rng.standard_normal(shape, np.float32), 2.5)
    z, y, x = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in shape)
    height = z[:, None, None] + (shape[0] - 1) / 2 + 0.5
    rise = math.tan(math.radians(tilt_x)) * x + math.tan(math.radians(tilt_y)) * y[:, None]
    inside = (height > low + rise) & (height < high + rise)
    return noise / noise.std() + np.where(inside, 0.5 * matter / matter.std(), 0)


@settings(max_examples=8, deadline=None)
@given(
    low=st.integers(12, 30),
    thick=st.integers(36, 60),
    tilt_x=st.floats(-6, 6),
    tilt_y=st.floats(-6, 6),
    seed=st.integers(0, 1000),
)
def test_the_faces_are_found_within_ten_voxels(
    low: int, thick: int, tilt_x: float, tilt_y: float, seed: int
) -> None:
    shape = (110, 160, 160)
    volume = ice(shape, low + 8, low + 8 + thick, tilt_x, tilt_y, seed)
    found = find_slab(volume, VOXEL, (0.0, 0.0, 1000.0))
    assert found is not None
    places = (np.arange(20, 141, 40) * VOXEL).astype(float)
    x, y = (each.ravel() for each in np.meshgrid(places, places))
    lower, upper = found.bounds(x, y)
    rise = (x - 795) * math.tan(math.radians(tilt_x)) + (y - 795) * math.tan(math.radians(tilt_y))
    for face, edge in ((lower, low + 8), (upper, low + 8 + thick)):
        off = (face - 1000 - rise) / VOXEL - (edge - 0.5)
        assert np.abs(off).max() < 10, off
    assert found.holds(np.array([[795.0, 795.0, 1000 + VOXEL * (low + 8 + thick / 2)]])).all()
    assert not found.holds(np.array([[795.0, 795.0, 1000.0]])).any()


def test_no_face_is_found_where_the_sample_fills_the_volume() -> None:
    for seed in range(4):
        assert find_slab(ice((60, 96, 96), -99, 999, seed=seed), VOXEL) is None
        noise = generator("no slab", seed).standard_normal((60, 96, 96), np.float32)
        assert find_slab(noise, VOXEL) is None
    assert find_slab(np.ones((60, 96, 96), np.float32), VOXEL) is None
    assert find_slab(ice((50, 96, 96), 15, 35), VOXEL) is None  # too thin to tell


def test_a_single_face_is_said_and_the_other_side_stays_open() -> None:
    found = find_slab(ice((90, 120, 120), -99, 60, seed=3), VOXEL)
    assert found is not None
    assert math.isinf(found.lower.z)
    assert found.upper.z == pytest.approx(595, abs=50)
    assert found.words().startswith("ice up to z ")
    places = [np.arange(n) * VOXEL for n in (90, 120, 120)]
    inside = found.at(places)
    assert inside[:50].all()
    assert not inside[75:].any()
    assert found.at(places, margin=100.0).sum() > inside.sum()


def test_gold_above_the_ice_moves_no_face() -> None:
    volume = ice((110, 160, 160), 30, 80, seed=5)
    for y, x in ((40, 40), (90, 120), (130, 60)):
        volume[8:18, y : y + 10, x : x + 10] -= 30
    found = find_slab(volume, VOXEL)
    assert found is not None
    assert found.lower.z == pytest.approx(295, abs=100)
    assert found.upper.z == pytest.approx(795, abs=100)
    assert "ice from z " in found.words()
