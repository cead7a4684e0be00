import numpy as np

from catalogs import particles
from tltrain.sampling import Sampler, Shares, Sites, Source, sites_of

PATCH = 24


def many(shape=(90, 300, 260), chunk=(64, 64, 64), n=60, patch=PATCH, shares=None, seed=0):
    """Two sources; labels 0 (distractors), 1 (frequent), 2 (ten times rarer)."""
    rng = np.random.default_rng(3)
    labels = np.array([0] * (n // 2) + [1] * (n // 2) + [2] * (n // 20))
    sites = Sites(
        source=rng.integers(0, 2, len(labels)),
        label=labels,
        centre=rng.uniform(0, 1, (len(labels), 3)) * (np.array(shape) - 1),
    )
    sources = [Source(f"{k:016x}", shape, chunk) for k in range(2)]
    return Sampler(sources, sites, patch, shares=shares or Shares(), seed=seed)


def test_sites_are_the_table_in_voxels():
    table = particles.make(x=[10.0], y=[20.0], z=[40.0], label=[2], class_name="b")
    sites = sites_of([particles.empty(), table], voxel_size=10)
    np.testing.assert_allclose(sites.centre, [[4, 2, 1]])
    assert sites.source.tolist() == [1]
    assert sites.label.tolist() == [2]


def test_patches_lie_in_their_block_and_blocks_on_chunks():
    sampler = many()
    for i in range(200):
        plan = sampler.plan(i)
        shape = np.array(sampler.sources[plan.source].shape)
        assert plan.corners.shape == (8, 3)
        assert (plan.start % 64 == 0).all()
        assert ((plan.stop % 64 == 0) | (plan.stop == shape)).all()
        assert (plan.stop - plan.start <= 128).all()
        assert (plan.corners >= plan.start).all()
        assert (plan.corners + PATCH <= plan.stop).all()


def test_every_voxel_can_be_in_a_patch():
    sampler = many(shape=(40, 150, 140), n=200)
    seen = np.zeros((2, 40, 150, 140), np.int64)
    for i in range(600):
        plan = sampler.plan(i)
        for z, y, x in plan.corners:
            seen[plan.source, z : z + PATCH, y : y + PATCH, x : x + PATCH] += 1
    assert (seen > 0).mean() > 0.98
    along = seen.mean(axis=(0, 1, 3))
    assert along[56:72].min() > 0.6 * np.median(along)  # where two chunks meet, at 64


def test_a_patch_larger_than_the_volume_holds_all_of_it():
    sampler = many(shape=(16, 100, 100))
    offsets = set()
    for i in range(100):
        corner = sampler.plan(i).corners[:, 0]
        assert (corner <= 0).all()
        assert (corner + PATCH >= 16).all()
        offsets |= set(corner.tolist())
    assert offsets == set(range(-8, 1))


def test_classes_are_balanced_and_the_shares_are_kept():
    # places far from each other: what a patch is centred on can be told
    grid = np.stack(np.meshgrid([45], np.arange(20, 2000, 40), np.arange(20, 2000, 40), indexing="ij"))
    centre = grid.reshape(3, -1).T.astype(float)
    label = np.where(np.arange(len(centre)) % 2 == 0, 0, 1)
    label[::50] = 2  # 25 times rarer than class 1
    sites = Sites(source=np.zeros(len(centre), np.int64), label=label, centre=centre)
    source = Source("0" * 16, (90, 2000, 2000), (64, 64, 64))
    shares = Shares(target=0.6, distractor=0.3, background=0.1)
    sampler = Sampler([source], sites, patch=24, per_block=1, shares=shares)
    hits = np.zeros(3)
    n = 1500
    for i in range(n):
        middle = sampler.plan(i).corners[0] + 12
        hits[label[np.abs(centre - middle).max(axis=1).argmin()]] += 1
    background = 0.1 * n * np.array([(label == k).mean() for k in range(3)])  # also nearest to something
    np.testing.assert_allclose((hits - background) / n, [0.3, 0.3, 0.3], atol=0.05)


def test_background_patches_avoid_targets():
    empty = many(n=40, shares=Shares(0, 0, 1))
    full = many(n=40, shares=Shares(1, 0, 0))

    def crowd(sampler: Sampler) -> float:
        counts = []
        for i in range(100):
            plan = sampler.plan(i)
            targets = sampler.sites.centre[(sampler.sites.source == plan.source) & (sampler.sites.label > 0)]
            counts += [((targets >= c) & (targets < c + PATCH)).all(axis=1).sum() for c in plan.corners]
        return float(np.mean(counts))

    assert crowd(empty) < 0.02
    assert crowd(full) > 0.9


def test_a_corpus_without_particles_gives_background():
    source = Source("0" * 16, (40, 40, 40), (64, 64, 64))
    sampler = Sampler([source], sites_of([particles.empty()], 10), PATCH)
    plan = sampler.plan(0)
    assert (plan.corners >= 0).all()
    assert (plan.corners + PATCH <= 40).all()


def test_plans_depend_on_seed_and_number_only():
    one, two, other = many(), many(), many(seed=1)
    two.plan(3)
    for i in (0, 7):
        np.testing.assert_array_equal(one.plan(i).corners, two.plan(i).corners)
    assert not np.array_equal(one.plan(0).corners, other.plan(0).corners)
