from collections import Counter

import numpy as np
import pytest

from catalogs.schema import Intensity
from tltrain.data.sampling import Sampler, Sampling, Sites, Source

PATCH = 24
GREY = Intensity(centre=0, spread=1)


def sampler_of(labels, owners, centres, shape, *, chunk=(64, 64, 64), patch=PATCH, **options):
    n = int(np.max(owners, initial=0)) + 1
    sites = [Sites(labels[owners == k], centres[owners == k]) for k in range(n)]
    sources = [
        Source(f"{k:016x}", shape, chunk, GREY, dict(Counter(sites[k].label.tolist()))) for k in range(n)
    ]
    sampler = Sampler(sources, lambda k: sites[k], patch, **options)
    return sampler, sites


def many(shape=(90, 300, 260), n=60, **options):
    """Two sources; labels 0 (distractors), 1 (frequent), 2 (ten times rarer)."""
    rng = np.random.default_rng(3)
    labels = np.array([0] * (n // 2) + [1] * (n // 2) + [2] * (n // 20))
    owners = rng.integers(0, 2, len(labels))
    centres = rng.uniform(0, 1, (len(labels), 3)) * (np.array(shape) - 1)
    return sampler_of(labels, owners, centres, shape, **options)


def test_patches_lie_in_their_block_and_blocks_on_chunks():
    sampler, _ = many()
    for i in range(200):
        block = sampler.block(i)
        shape = np.array(sampler.sources[block.source].shape)
        assert block.corners.shape == (8, 3)
        assert (block.start % 64 == 0).all()
        assert ((block.stop % 64 == 0) | (block.stop == shape)).all()
        assert (block.stop - block.start <= 128).all()
        assert (block.corners >= block.start).all()
        assert (block.corners + PATCH <= block.stop).all()


def test_every_voxel_can_be_in_a_patch():
    sampler, _ = many(shape=(40, 150, 140), n=200)
    seen = np.zeros((2, 40, 150, 140), np.int64)
    for i in range(600):
        block = sampler.block(i)
        for z, y, x in block.corners:
            seen[block.source, z : z + PATCH, y : y + PATCH, x : x + PATCH] += 1
    assert (seen > 0).mean() > 0.98
    along = seen.mean(axis=(0, 1, 3))
    assert along[56:72].min() > 0.6 * np.median(along)  # where two chunks meet, at 64


def test_a_patch_larger_than_the_volume_holds_all_of_it():
    sampler, _ = many(shape=(16, 100, 100))
    offsets = set()
    for i in range(100):
        corner = sampler.block(i).corners[:, 0]
        assert (corner <= 0).all()
        assert (corner + PATCH >= 16).all()
        offsets |= set(corner.tolist())
    assert offsets == set(range(-8, 1))


def on_a_grid(rare=50, step=40, **options):
    """Places far from each other, so that it can be told what a patch is centred on."""
    grid = np.stack(np.meshgrid([45], np.arange(20, 2000, step), np.arange(20, 2000, step), indexing="ij"))
    centres = grid.reshape(3, -1).T.astype(float)
    labels = np.where(np.arange(len(centres)) % 2 == 0, 0, 1)
    labels[np.random.default_rng(0).permutation(len(labels))[: len(labels) // rare]] = 2
    return (
        sampler_of(labels, np.zeros(len(labels), int), centres, (90, 2000, 2000), **options),
        centres,
        labels,
    )


def hits(sampler, centres, labels, blocks, background):
    """How often patches are centred on each label, without those that are near one by chance."""
    counts = np.zeros(3)
    for i in range(blocks):
        for corner in sampler.block(i).corners:
            counts[labels[np.abs(centres - corner - 12).max(axis=1).argmin()]] += 1
    n = counts.sum()
    return (counts - background * n * np.array([(labels == k).mean() for k in range(3)])) / n


@pytest.mark.parametrize(("per_block", "blocks"), [(1, 1500), (8, 800)])
def test_classes_are_balanced_and_the_shares_are_kept(per_block, blocks):
    # class 2 is 25 times rarer than class 1, and most blocks hold none of it
    sampling = Sampling(target=0.6, distractor=0.3, background=0.1)
    (sampler, _), centres, labels = on_a_grid(per_block=per_block, sampling=sampling)
    found = hits(sampler, centres, labels, blocks, 0.1)
    np.testing.assert_allclose(found, [0.3, 0.3, 0.3], atol=0.045)


def test_no_particle_is_taken_twice_before_all_of_its_kind_in_the_block_were():
    (sampler, _), centres, labels = on_a_grid(rare=10**9, sampling=Sampling(1, 0, 0), shift=0)
    for i in range(20):
        block = sampler.block(i)
        middle = block.corners[1:] + 12
        near = {int(np.abs(centres - m).max(axis=1).argmin()) for m in middle}
        inside = ((centres >= block.start) & (centres <= block.stop - 1)).all(axis=1)
        assert len(near) == min(7, int((inside & (labels == 1)).sum()))


def test_shift_moves_patches_off_their_particles():
    for options, spread in (({"shift": 0}, 0), ({"shift": 0.25}, 6), ({"shift_probability": 0}, 0)):
        (sampler, _), centres, _ = on_a_grid(sampling=Sampling(1, 0, 0), step=80, **options)
        off = []
        for i in range(60):
            corner = sampler.block(i).corners[0] + 12
            nearest = centres[np.abs(centres - corner).max(axis=1).argmin()]
            off.append(corner - nearest)
        assert np.abs(off).max() == spread
        assert len(np.unique(off)) == 2 * spread + 1


def test_background_patches_avoid_targets():
    empty, sites = many(n=40, sampling=Sampling(0, 0, 1))
    full, _ = many(n=40, sampling=Sampling(1, 0, 0))

    def crowd(sampler: Sampler) -> float:
        counts = []
        for i in range(100):
            block = sampler.block(i)
            here = sites[block.source]
            targets = here.centre[here.label > 0]
            counts += [((targets >= c) & (targets < c + PATCH)).all(axis=1).sum() for c in block.corners]
        return float(np.mean(counts))

    assert crowd(empty) < 0.02
    assert crowd(full) > 0.9


def test_a_corpus_without_particles_gives_background():
    sampler, _ = sampler_of(np.empty(0, int), np.zeros(0, int), np.empty((0, 3)), (40, 40, 40))
    block = sampler.block(0)
    assert (block.corners >= 0).all()
    assert (block.corners + PATCH <= 40).all()


def test_tables_are_read_only_of_tomograms_that_were_drawn():
    asked = []
    sources = [Source(f"{k}", (90, 90, 90), (64,) * 3, GREY, {1: 5}) for k in range(10_000)]
    sites = Sites(np.ones(5, np.int64), np.full((5, 3), 45.0))
    sampler = Sampler(sources, lambda k: asked.append(k) or sites, PATCH)
    for i in range(20):
        sampler.block(i)
    assert len(asked) == 20


def test_plans_depend_on_seed_and_number_only():
    one, two, other = many()[0], many()[0], many(seed=1)[0]
    two.block(3)
    for i in (0, 7):
        np.testing.assert_array_equal(one.block(i).corners, two.block(i).corners)
    assert not np.array_equal(one.block(0).corners, other.block(0).corners)
    assert not np.array_equal(one.block(0).corners, one.block(0, attempt=1).corners)
