"""Localising stays within its memory, whatever is in the segmentation, and blocks of any size agree."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.network.localisation.budget import EDGES, blocks_within
from tlpick.network.localisation.localise import BLOCK, Options, Picks, find, localise, score_clusters

METHODS = ("meanshift", "components", "peaks")
RADII = {1: 8.0, 2: 11.0}


@pytest.mark.parametrize("method", [*METHODS, "of another package"])
def test_less_memory_makes_smaller_blocks(method: str) -> None:
    shape = (300, 600, 600)
    before = (BLOCK, 16)
    assert blocks_within(1e12, shape, RADII, method, 16) == before
    for memory in (4e9, 2e9, 1e9, 5e8, 2e8, 1e8, 3e7, 1e7, 1e6, 0, -1e9):
        edge, threads = blocks_within(memory, shape, RADII, method, 16)
        assert edge <= before[0]
        assert (edge, threads) <= before
        assert edge in EDGES
        assert threads >= 1
        before = (edge, threads)
    assert before == (EDGES[-1], 1)


def test_a_small_volume_is_one_block() -> None:
    assert blocks_within(2e8, (64, 64, 64), RADII, "components", 16) == (BLOCK, 16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("edge", EDGES)
def test_any_edge_gives_the_same_particles(method: str, edge: int) -> None:
    shape = (70, 75, 130)
    noise = generator("noise").random(shape, np.float32)
    labels = np.where(noise < 0.2, 1, np.where(noise < 0.3, 2, 0)).astype(np.uint8)
    labels[20:40, 20:40, 20:40] = 1
    score = generator("score").integers(1, 256, shape).astype(np.uint8)
    classes = [ClassInfo(name=str(k), label=k, radius=10 * radius) for k, radius in RADII.items()]
    options = Options(method=method, min_size=0.0, min_separation=0.0)
    whole = localise(labels, score, classes, 10.0, options, block=200)
    _assert_equal(localise(labels, score, classes, 10.0, options, block=edge), whole)


def _assert_equal(ones: list[Picks], others: list[Picks]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert len(one)
        for name in ("centres", "voxels", "scores", "probability", "size", "border"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("edge", [24, 50, 200])
@pytest.mark.parametrize("min_size", [0.0, 0.01, 0.1])
def test_components_that_are_too_small_are_left_out_early(edge: int, min_size: float) -> None:
    """The picks are those that are left where all components are kept until the end."""
    shape = (60, 70, 80)
    labels = (generator("noise").random(shape, np.float32) < 0.25).astype(np.uint8)
    for centre in ((20, 20, 20), (30, 50, 50), (59, 69, 79), (48, 24, 60)):
        grid = np.indices(shape) - np.array(centre)[:, None, None, None]
        labels[(grid**2).sum(axis=0) <= 36] = 1
    score = generator("score").integers(1, 256, shape).astype(np.uint8)
    classes = [ClassInfo(name="a", label=1, radius=60.0)]
    options = Options(method="components", min_size=min_size, min_separation=0.0)
    kept = score_clusters(find(labels, score, classes, 10.0, options, block=edge), classes, 10.0, options)
    _assert_equal(localise(labels, score, classes, 10.0, options, block=edge), kept)


PROGRAM = """
import sys
import numpy as np
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlpick.network.localisation.budget import blocks_within
from tlpick.network.localisation.localise import Options, localise
from catalogs.threads import pool

method, share, memory = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])

def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

def work(labels, memory):
    classes = [ClassInfo(name="a", label=1, radius=80.0), ClassInfo(name="b", label=2, radius=110.0)]
    edge, threads = blocks_within(memory, labels.shape, {1: 8.0, 2: 11.0}, method, 2)
    with pool(threads) as run:
        return localise(labels, labels, classes, 10.0, Options(method=method), block=edge, run=run.map)

work(np.ones((32, 32, 32), np.uint8), 1e9)  # compiles
rng = generator("noise")
labels = np.zeros((300, 300, 300), np.uint8)
for plane in labels:
    noise = rng.random(plane.shape, np.float32)
    plane[noise < share] = 1
    plane[noise > 1 - share / 2] = 2
before = peak()
picks = work(labels, memory)
print(sum(len(each) for each in picks), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_memory_of_blocks_follows_the_budget(method: str) -> None:
    """In noise of 300³ voxels, which has a piece of a component every few voxels."""
    taken, share = {}, 0.3
    for memory in (1e9, 2e8):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, method, str(share), str(memory)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        picks, peak = map(int, done.stdout.split())
        taken[memory] = (picks, peak)
        print(f"{method}, {share:.0%} of noise, {memory / 1e6:.0f} MB: {peak / 1e6:.0f} MB, {picks} picks")
        assert peak <= memory
    assert taken[1e9][0] == taken[2e8][0]
