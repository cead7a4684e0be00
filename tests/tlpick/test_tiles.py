"""Tiling: every voxel once, a halo away from cut faces, in step with the poolings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from tlpick.tiles import plan


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70)),
    pooling=st.sampled_from([1, 2, 4, 8]),
    halo_steps=st.integers(0, 3),
    extra=st.integers(6, 40),
)
def test_tiles_cover_the_volume_once_and_keep_their_distance(
    shape: tuple[int, int, int], pooling: int, halo_steps: int, extra: int
) -> None:
    halo = halo_steps * pooling
    edge = 2 * halo + pooling + extra
    tiling = plan(shape, edge, halo, pooling)
    assert math.prod(tiling.tile) <= edge**3
    covered = np.zeros(shape, np.uint8)
    n = 0
    for read, used, target in tiling:
        n += 1
        covered[target] += 1
        for axis in range(3):
            begin, end = read[axis].start, read[axis].stop
            assert begin % pooling == 0
            assert end - begin == tiling.tile[axis]
            assert begin >= 0
            assert end <= tiling.padded[axis]
            assert begin + used[axis].start == target[axis].start
            assert used[axis].stop - used[axis].start == target[axis].stop - target[axis].start
            if begin > 0:
                assert used[axis].start >= halo
            if end < tiling.padded[axis]:
                assert used[axis].stop <= tiling.tile[axis] - halo
    assert n == len(tiling)
    assert (covered == 1).all()


def test_a_volume_that_fits_is_one_tile() -> None:
    tiling = plan((57, 113, 111), 96, 36, 4)
    assert (len(tiling), tiling.tile) == (1, (60, 116, 112))
    assert tiling.redundancy == pytest.approx(60 * 116 * 112 / (57 * 113 * 111))


def test_a_thin_volume_is_not_cut_along_z_and_costs_less_than_cubes_would() -> None:
    tiling = plan((200, 512, 512), 192, 36, 4)
    assert tiling.counts[0] == 1
    cubes = math.ceil(128 / 120) * math.ceil(440 / 120) ** 2 * 192**3 / (200 * 512 * 512)
    assert tiling.redundancy < 2.1 < cubes


def test_a_tile_of_nothing_but_halo_is_refused() -> None:
    with pytest.raises(InputError, match=r"--tile 64 .* 36 voxels far; give at least 76"):
        plan((512, 512, 512), 64, 36, 4)
    assert len(plan((512, 512, 512), 76, 36, 4)) > 1
