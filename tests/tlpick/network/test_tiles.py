"""Columns: every voxel once, a margin away from cut faces, in step with the poolings, cheap."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from tlpick.network.geometry import Graph, read_graph
from tlpick.network.tiles import plan


@cache
def network(pooling: int = 4, size: int = 3) -> Graph:
    """A network with one pooling, without weights that matter."""
    import keras
    from keras import layers

    x: Any = keras.Input((None, None, None, 1))
    entry = x
    x = layers.MaxPooling3D(pooling)(layers.Conv3D(2, size, padding="same")(x))
    x = layers.UpSampling3D(pooling)(layers.Conv3D(2, size, padding="same")(x))
    return read_graph(keras.Model(entry, layers.Conv3D(2, 1)(x)))


@cache
def deepfinder() -> Graph:
    from tltrain.networks.architectures import architecture

    return read_graph(architecture("deepfinder").build(2, 1))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70)),
    pooling=st.sampled_from([1, 2, 4, 8]),
    size=st.sampled_from([1, 2, 3, 4]),
    share=st.floats(0.05, 1.0),
)
def test_columns_cover_the_volume_once_and_keep_their_distance(
    shape: tuple[int, int, int], pooling: int, size: int, share: float
) -> None:
    graph = network(pooling, size)
    memory = share * plan(shape, graph, 1e12).bytes
    try:
        tiling = plan(shape, graph, memory)
    except InputError:
        return  # nothing of a column would be left
    assert tiling.bytes <= memory
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
            # nothing that is used depends on what was cut off
            low, high = graph.needs(axis, target[axis].start, target[axis].stop)
            assert begin == 0 or low >= begin
            assert end == tiling.padded[axis] or high <= end
    assert n == len(tiling)
    assert (covered == 1).all()


def test_a_volume_that_fits_is_one_column() -> None:
    tiling = plan((57, 113, 111), deepfinder(), 1e12)
    assert (len(tiling), tiling.tile) == (1, (60, 116, 112))
    assert tiling.redundancy == pytest.approx(60 * 116 * 112 / (57 * 113 * 111))


@pytest.mark.parametrize("shape", [(200, 512, 512), (180, 1024, 1024), (120, 720, 512)])
def test_columns_of_192_compute_at_most_six_tenths_more(shape: tuple[int, int, int]) -> None:
    tiling = plan(shape, deepfinder(), 1e12, tile=192)
    assert math.prod(tiling.tile) / tiling.tile[tiling.axis] <= 192**2
    assert 1 <= tiling.redundancy <= 1.6


def test_more_memory_never_computes_more() -> None:
    ways = [plan((200, 512, 512), deepfinder(), memory) for memory in (1e9, 2e9, 4e9, 16e9, 64e9)]
    redundancy = [way.redundancy for way in ways]
    assert redundancy == sorted(redundancy, reverse=True)
    assert redundancy[0] <= 1.6
    assert redundancy[-1] == 1.0


def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match=r"`tile=64` is too small .* sees 3\d voxels far; give at least 7\d"):
        plan((512, 512, 512), deepfinder(), 1e12, tile=64)
    with pytest.raises(InputError, match=r"needs \S+ MiB .* 0\.95 MiB are left; give more `max_memory`"):
        plan((512, 512, 512), deepfinder(), 1e6)
