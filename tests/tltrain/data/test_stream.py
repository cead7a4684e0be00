import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.intensity import normalise
from catalogs.schema import ClassInfo, Intensity
from tltrain.data.augment import Augmentation
from tltrain.data.blocks import Waiting
from tltrain.data.sampling import Sampling, Sites, Source
from tltrain.data.shuffling import measure
from tltrain.data.splits import split_samples
from tltrain.data.stream import Mixed, as_keras, as_tf_dataset, open_stream, open_stream_of, outputs_of


def stream_of(corpus, *, patch=24, batch=4, **options):
    train, _ = split_samples(corpus, "split == 'train'")
    return open_stream(corpus, train, patch=patch, batch=batch, seed=options.pop("seed", 0), **options)


def take(stream, n, start=0):
    return list(itertools.islice(stream.batches(start), n))


def assert_equal(one, two):
    for (grey, classes), (grey2, classes2) in zip(one, two, strict=True):
        np.testing.assert_array_equal(grey, grey2)
        np.testing.assert_array_equal(classes, classes2)


def test_batches_have_the_shapes_and_types_that_training_takes(corpus):
    grey, classes = take(stream_of(corpus), 1)[0]
    assert grey.shape == (4, 24, 24, 24, 1)
    assert grey.dtype == np.float32
    assert classes.shape == (4, 24, 24, 24)
    assert classes.dtype == np.uint8


def test_patches_are_pieces_of_the_normalised_tomograms(corpus):
    stream = stream_of(corpus)
    window = np.lib.stride_tricks.sliding_window_view
    volumes = []
    for record in split_samples(corpus).train:
        arrays = corpus.arrays(record.sample_id)
        whole = normalise(arrays["tomogram"][:], record.intensity)
        volumes.append((window(whole, (24, 24, 24)), window(arrays["classes"][:], (24, 24, 24))))
    for grey, classes in take(stream, 6):
        for cube, label in zip(grey[..., 0], classes, strict=True):
            found = [
                labels[tuple(place)]
                for cubes, labels in volumes
                for place in np.argwhere(cubes[..., 12, 12, 12] == cube[12, 12, 12])
                if np.array_equal(cubes[tuple(place)], cube)  # to the bit
            ]
            assert len(found) == 1
            np.testing.assert_array_equal(found[0], label)


def test_the_stream_is_the_same_with_any_number_of_threads(corpus):
    one = stream_of(corpus, readers=1, augmentation=Augmentation())
    many = stream_of(corpus, readers=7, augmentation=Augmentation())
    assert_equal(take(one, 8), take(many, 8))


def test_a_stream_goes_on_in_the_middle(corpus):
    stream = stream_of(corpus, augmentation=Augmentation())
    whole = take(stream, 9)
    for start in (1, 3, 5):
        assert_equal(take(stream, 4, start), whole[start : start + 4])


def test_no_two_patches_of_a_batch_come_from_one_block(corpus):
    stream = stream_of(corpus, batch=25, spread=3, per_block=8)
    used = Counter()
    for n in range(90):
        places = stream.places(n)
        assert len({place.block for place in places}) == 25
        used.update((place.block, place.k) for place in places)
    assert set(used.values()) == {1}  # and none is delivered twice
    first = {block: min(k for p, k in used if p == block) for block, _ in used}
    per_block_drawn = Counter(block for block, _ in used)
    whole = sum(n == 8 - first[block] for block, n in per_block_drawn.items())
    assert whole > 0.7 * len(per_block_drawn)  # nothing that was read is thrown away but at the ends


def test_blocks_are_read_evenly(corpus):
    stream = stream_of(corpus, batch=24, spread=2, per_block=8)
    seen, new = set(), []
    for n in range(40):
        blocks = {place.block for place in stream.places(n)}
        new.append(len(blocks - seen))
        seen |= blocks
    assert set(new[2:]) == {24 // 8}
    few = stream_of(corpus, batch=2, spread=2, per_block=8)  # one block for four batches
    starts = [n for n in range(2, 66) for place in few.places(n) if place.k == 0]
    assert set(np.diff(starts)) <= {3, 4, 5}


def test_as_many_batches_wait_as_the_docs_say(corpus, monkeypatch):
    made, most = [], 0
    patch_of = Waiting.patch

    def seen(self, number, place):
        nonlocal most
        made.append(number)
        most = max(most, len(self._batches))
        return patch_of(self, number, place)

    monkeypatch.setattr(Waiting, "patch", seen)
    stream = stream_of(corpus, batch=5, spread=2, per_block=6, readers=3)
    take(stream, 40)
    assert most <= 2 * 6 + stream.ahead


def test_a_batch_that_was_given_away_changes_no_more(corpus):
    stream = stream_of(corpus, augmentation=Augmentation())
    batches = stream.batches()
    held = [next(batches) for _ in range(8)]
    kept = [(grey.copy(), classes.copy()) for grey, classes in held]
    for _ in range(12):
        next(batches)
    assert_equal(held, kept)


def test_hosts_take_disjoint_parts_of_one_stream(corpus):
    options = {"spread": 2, "augmentation": Augmentation()}
    whole = take(stream_of(corpus, batch=6, **options), 5, start=3)
    parts = [take(stream_of(corpus, batch=2, part=(h, 3), **options), 5, start=3) for h in range(3)]
    for n, (grey, classes) in enumerate(whole):
        np.testing.assert_array_equal(grey, np.concatenate([part[n][0] for part in parts]))
        np.testing.assert_array_equal(classes, np.concatenate([part[n][1] for part in parts]))
    streams = [stream_of(corpus, batch=2, part=(h, 3), **options) for h in range(3)]
    blocks = [{place.block for n in range(40) for place in s.places(n)} for s in streams]
    assert len(set.union(*blocks)) == sum(map(len, blocks))


def test_streams_are_mixed_patch_by_patch(corpus):
    one, two = stream_of(corpus, batch=3), stream_of(corpus, batch=2, seed=5)
    mixed = Mixed((one, two))
    assert mixed.batch == 5
    for (grey, classes), (grey1, _), (_, classes2) in zip(
        itertools.islice(mixed.batches(1), 2), take(one, 2, 1), take(two, 2, 1), strict=True
    ):
        np.testing.assert_array_equal(grey[:3], grey1)
        np.testing.assert_array_equal(classes[3:], classes2)


def test_keras_trains_on_any_backend_from_the_same_batches(corpus):
    stream = stream_of(corpus)
    batches = as_keras(stream, steps=2, start=1)
    assert len(batches) == 2
    given = [batches[0], batches[1]]
    batches.on_epoch_end()
    given.append(batches[0])
    assert_equal(given, take(stream, 3, start=1))


@pytest.mark.parametrize("wrong", [{"part": (3, 3)}, {"batch": 0}, {"per_block": 0}])
def test_what_cannot_be_is_refused(corpus, wrong):
    with pytest.raises(InputError, match=r"at least 1|no part 3 of 3"):
        stream_of(corpus, **wrong)


def test_another_seed_is_another_stream(corpus):
    (one, _), (two, _) = take(stream_of(corpus), 1)[0], take(stream_of(corpus, seed=1), 1)[0]
    assert not np.array_equal(one, two)


def test_a_batch_mixes_tomograms(corpus):
    # eight patches of one block come together; shuffled, they do not stay together
    stream = stream_of(corpus, batch=8)
    marked = replace(stream, tomograms=_Marked(stream.tomograms))
    counts = [len(np.unique(grey[:, 12, 12, 12, 0])) for grey, _ in take(marked, 160)[::8]]
    assert np.mean(counts) > 3  # of four tomograms


def test_batches_do_not_repeat(corpus):
    cubes = np.concatenate([grey for grey, _ in take(stream_of(corpus), 12)])
    assert len({cube.tobytes() for cube in cubes}) > 0.9 * len(cubes)


def test_a_patch_larger_than_the_tomogram_is_padded_with_zeros(corpus):
    grey, classes = take(stream_of(corpus, patch=48, sampling=Sampling()), 1)[0]
    for cube, label in zip(grey[..., 0], classes, strict=True):
        empty = (cube == 0).all(axis=(1, 2))
        assert empty.sum() == 48 - 40  # the tomograms have 40 planes
        assert not label[empty].any()


def test_class_values_become_outputs_of_the_network():
    classes = [ClassInfo(name="b", label=7, radius=1), ClassInfo(name="a", label=3, radius=1)]
    assert outputs_of(classes) == {255: 255, 0: 0, 3: 1, 7: 2}


def test_tf_data_gives_the_same_batches(corpus):
    stream = stream_of(corpus)
    given = [(x.numpy(), y.numpy()) for x, y in as_tf_dataset(stream, start=2).take(3)]
    assert_equal(given, take(stream, 3, start=2))


FORKED = """
import os, sys
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tltrain.data.splits import split_samples
from tltrain.data.stream import open_stream

def open_it():
    catalog = Catalog.open(sys.argv[1])
    return open_stream(catalog, split_samples(catalog).train, patch=24, batch=4, seed=0, readers=3)

stream = open_it()
begun = stream.batches()
next(begun)
if os.fork() == 0:
    for tried in (begun, stream.batches()):
        try:
            next(tried)
        except InputError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
next(begun)  # the one that opened it goes on
"""


def test_a_forked_process_is_told_and_does_not_wait_forever(corpus):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, corpus.url], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "cannot be read in a process that was forked from the one that opened it" in line
        assert "get_context('spawn')" in line


class _Marked:
    """Tomograms that hold one value each."""

    def __init__(self, supply):
        self.sources, self.outputs, self.sites = supply.sources, supply.outputs, supply.sites

    def volumes(self, k):
        source = self.sources[k]
        value = source.intensity.centre + source.intensity.spread * k / 2
        return np.full(source.shape, value, np.float32), np.zeros(source.shape, np.uint8)


def test_a_batch_is_as_mixed_as_if_every_patch_were_drawn_by_itself():
    # 40 tomograms, of which nothing is read but the tables
    rng = np.random.default_rng(0)
    sites = Sites(np.repeat([0, 1], 20), rng.uniform(0, 1, (40, 3)) * (189, 379, 379))
    grey = Intensity(centre=0, spread=1)
    sources = [Source(f"{k}", (190, 380, 380), (64,) * 3, grey, {0: 20, 1: 20}) for k in range(40)]
    supply = SimpleNamespace(sources=sources, sites=lambda k: sites, outputs={0: 0})
    found = measure(open_stream_of(supply, patch=56, batch=25, seed=0), 1500)
    assert found.same_block == pytest.approx(found.same_block_by_chance, abs=0.1)
    assert found.same_source == pytest.approx(300 / 40, abs=0.6)
    assert found.same_source_by_chance == pytest.approx(300 / 40, abs=0.6)
