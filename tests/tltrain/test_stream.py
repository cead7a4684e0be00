import itertools
from dataclasses import replace

import numpy as np

from catalogs.intensity import normalise
from catalogs.schema import ClassInfo
from tltrain.augment import Augmentation
from tltrain.choose import choose
from tltrain.sampling import Shares
from tltrain.stream import as_tf_dataset, channels_of, open_stream


def stream_of(corpus, *, patch=24, batch=4, **options):
    train, _ = choose(corpus, "split == 'train'")
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
    for record in choose(corpus).train:
        arrays = corpus.arrays(record.sample_id)
        whole = normalise(arrays["tomogram"][:], record.intensity)
        volumes.append((window(whole, (24, 24, 24)), window(arrays["classes"][:], (24, 24, 24))))
    for grey, classes in take(stream, 6):
        for cube, label in zip(grey[..., 0], classes, strict=True):
            found = [
                labels[tuple(place)]
                for cubes, labels in volumes
                for place in np.argwhere(np.abs(cubes[..., 12, 12, 12] - cube[12, 12, 12]) < 5e-3)
                if np.abs(cubes[tuple(place)] - cube).max() < 5e-3  # half precision
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


def test_another_seed_is_another_stream(corpus):
    (one, _), (two, _) = take(stream_of(corpus), 1)[0], take(stream_of(corpus, seed=1), 1)[0]
    assert not np.array_equal(one, two)


def test_a_batch_mixes_tomograms(corpus):
    # eight patches of one block come together; shuffled, they do not stay together
    stream = stream_of(corpus, batch=8)
    marked = replace(stream, supply=_Marked(stream.supply))
    counts = [len(np.unique(grey[:, 12, 12, 12, 0])) for grey, _ in take(marked, 16)]
    assert np.mean(counts) > 3  # of four tomograms


def test_batches_do_not_repeat(corpus):
    cubes = np.concatenate([grey for grey, _ in take(stream_of(corpus), 12)])
    assert len({cube.tobytes() for cube in cubes}) > 0.9 * len(cubes)


def test_a_patch_larger_than_the_tomogram_is_padded_with_zeros(corpus):
    grey, classes = take(stream_of(corpus, patch=48, shares=Shares()), 1)[0]
    for cube, label in zip(grey[..., 0], classes, strict=True):
        empty = (cube == 0).all(axis=(1, 2))
        assert empty.sum() == 48 - 40  # the tomograms have 40 planes
        assert not label[empty].any()


def test_class_values_become_outputs_of_the_network():
    classes = [ClassInfo(name="b", label=7, radius=1), ClassInfo(name="a", label=3, radius=1)]
    channels = channels_of(classes)
    assert channels[[0, 3, 7]].tolist() == [0, 1, 2]


def test_tf_data_gives_the_same_batches(corpus):
    stream = stream_of(corpus)
    given = [(x.numpy(), y.numpy()) for x, y in as_tf_dataset(stream, start=2).take(3)]
    assert_equal(given, take(stream, 3, start=2))


class _Marked:
    """Tomograms that hold one value each."""

    def __init__(self, supply):
        self.sources, self.outputs, self.sites = supply.sources, supply.outputs, supply.sites

    def volumes(self, k):
        source = self.sources[k]
        value = source.intensity.centre + source.intensity.spread * k / 2
        return np.full(source.shape, value, np.float32), np.zeros(source.shape, np.uint8)
