"""What is learned from in a fine-tuning, and its loss."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.intensity import measure, normalise
from catalogs.model_file import read_card
from catalogs.seeds import generator
from catalogs.volumes import open_volume
from tlpick.network.keras_network import load_keras
from tlpick.network.model import predictor
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.data.stream import open_stream_of
from tltrain.finetune.annotated_tomograms import prepare_tomograms
from tltrain.finetune.annotations import read_annotations
from tltrain.finetune.finetune import finetune
from tltrain.finetune.loss import apart, positive_unlabelled
from tltrain.finetune.settings import FineTuning
from tltrain.finetune.targets import UNLABELLED
from tltrain.finetune.training_material import (
    divide,
    expected_share,
    gather,
    some,
    training_tomograms,
)
from tltrain.training.losses import IGNORE, loss_of

# seconds, to see the machinery and not how good the network gets
QUICK = FineTuning(steps=6, patch=16, batch=4, validate_every=3, max_forgetting=1.0, simulated_share=0.5)


# ---------------------------------------------------------------- what is learned from


def test_subsets_are_nested_and_what_is_not_drawn_is_not_there(annotations):
    few, more = some(annotations, 5, 0), some(annotations, 12, 0)
    rows = [set(map(tuple, each.table[["x", "y", "z"]].to_numpy())) for each in (few, more)]
    assert rows[0] < rows[1]
    assert len(some(annotations, 5, 1).table.merge(few.table)) < 5
    one = some(annotations, 1, 0)
    assert [place.tomogram.name for place in one.places] == list(one.table["tomogram"])


def test_of_many_tomograms_one_is_held_out(annotations):
    train, held = divide(annotations, ())
    counts = annotations.table["tomogram"].value_counts()
    assert [place.tomogram.name for place in held.places] == [min(counts.index, key=lambda n: (counts[n], n))]
    assert len(train.table) + len(held.table) == len(annotations.table)
    assert divide(annotations, ["none"])[1] is None
    train, held = divide(annotations, ["TS_03", "TS_01"])
    assert set(held.table["tomogram"]) == {"TS_01", "TS_03"}


@pytest.mark.parametrize(
    ("unlabelled", "value"), [("ignore", 255), ("background", 0), ("positive-unlabelled", 254)]
)
def test_patches_hold_what_the_annotations_say(model, annotations, tmp_path, unlabelled, value):
    settings = replace(QUICK, unlabelled=unlabelled)
    card = read_card(model)
    material = gather(card, annotations, (), settings, lambda _: None)
    tomograms = prepare_tomograms(material.train.places, card, Preprocessing(), tmp_path)
    made = training_tomograms(material, tomograms, settings, load_keras(model))
    stream = open_stream_of(made, patch=16, batch=16, seed=0)
    batches = stream.batches()
    grey, classes = next(batches)
    batches.close()
    assert grey.shape == (16, 16, 16, 16, 1)
    assert set(np.unique(classes)) <= {0, 1, IGNORE, value}
    assert value in classes
    assert (classes == 1).any(axis=(1, 2, 3)).mean() > 0.5  # patches are around annotations
    far = made.volumes(0)[1][:]
    assert (far == UNLABELLED).any()
    # what is called a ball is dark: the targets lie where the particles are
    whole = made.volumes(0)
    assert whole[0][:][far == 1].mean() < whole[0][:][far == 0].mean() - 0.3


def test_rejected_picks_are_background_and_patches_are_drawn_around_them(model, data, annotations, tmp_path):
    places = [place for place in annotations.places if place.tomogram.name == "TS_01"]
    table = annotations.of("TS_01")
    # in the corner of the volume nobody annotated anything
    wrong = table[:2].assign(x=[660.0, 640.0], y=[20.0, 690.0], z=[20.0, 370.0], verdict="rejected")
    rows = pd.concat([table.assign(verdict="accepted"), wrong], ignore_index=True)
    particles.write(rows, tmp_path / "curated.csv")
    found = read_annotations([str(tmp_path / "curated.csv")], places, read_card(model), fewest=5)
    material = gather(read_card(model), found, ("none",), QUICK, lambda _: None)
    tomograms = prepare_tomograms(material.train.places, read_card(model), Preprocessing(), tmp_path)
    made = training_tomograms(material, tomograms, QUICK, load_keras(model))
    target = made.volumes(0)[1][:]
    assert target[2, 2, 66] == target[37, 69, 64] == 0
    assert made.sources[0].counts == {0: 2, 1: len(table)}
    np.testing.assert_allclose(made.sites(0).centre[-2:], [[2, 2, 66], [37, 69, 64]])


def test_grey_values_are_those_of_picking(model, data, annotations, tmp_path):
    from tlpick.network.tomograms.intake import Preprocessing

    (made, *_) = prepare_tomograms(annotations.places, read_card(model), Preprocessing(), tmp_path)
    raw = open_volume(data / "TS_01.mrc").read()
    np.testing.assert_allclose(made.read(), normalise(raw, measure(raw)), atol=2e-3)


def test_what_the_model_hardly_believes_in_may_be_background(model, annotations, tmp_path):
    card, network = read_card(model), load_keras(model)
    material = gather(card, annotations, (), QUICK, lambda _: None)
    tomograms = prepare_tomograms(material.train.places, card, Preprocessing(), tmp_path)
    plain = training_tomograms(material, tomograms, QUICK, network).volumes(0)[1][:].copy()
    called = np.empty(plain.shape, np.float32)
    for box, probability in predictor(network)(tomograms[0].read()):
        called[box] = 1 - probability[..., 0]
    least = float(np.median(called[plain == UNLABELLED]))
    settings = replace(QUICK, background_below=least)
    below = training_tomograms(material, tomograms, settings, network).volumes(0)[1][:]
    expected = np.where((plain == UNLABELLED) & (called < np.float32(least)), 0, plain)
    np.testing.assert_array_equal(below, expected)
    assert 0.4 < (below[plain == UNLABELLED] == 0).mean() < 0.6


def test_of_the_unlabelled_voxels_as_many_are_expected_to_be_targets_as_the_corpus_says(
    corpus, model, annotations, tmp_path
):
    records = [record for record in corpus.records() if record.split == "train"]
    share = np.mean([(corpus.arrays(r.sample_id)["classes"][:] == 1).mean() for r in records])
    for n in (3, 8):
        settings = replace(QUICK, annotations=n)
        material = gather(read_card(model), annotations, (), settings, lambda _: None)
        tomograms = prepare_tomograms(material.train.places, read_card(model), Preprocessing(), tmp_path)
        annotated = n * 4 / 3 * np.pi * 5**3 / sum(np.prod(each.shape) for each in tomograms)
        assert expected_share(material, tomograms) == pytest.approx(share - annotated, rel=0.15)
    everything = gather(read_card(model), annotations, ["none"], QUICK, lambda _: None)
    tomograms = prepare_tomograms(everything.train.places, read_card(model), Preprocessing(), tmp_path)
    assert 0 < expected_share(everything, tomograms) < 0.35 * share  # somebody may have overlooked a few


def test_damage_of_the_corpus_is_named_while_it_is_mixed_in(corpus, model, annotations, tmp_path):
    shutil.copytree(corpus.url, tmp_path / "corpus")
    record = next(record for record in corpus.records() if record.split == "train")
    (shard, *_) = (
        file for file in (tmp_path / "corpus" / record.path / "0" / "c").rglob("*") if file.is_file()
    )
    shard.unlink()
    settings = replace(QUICK, corpus=str(tmp_path / "corpus"), steps=40, targets="sphere", validate_every=40)
    said = []
    with pytest.raises(InputError, match=f"volume cannot be used and 1.0% may be(.|\n)*{record.sample_id}"):
        finetune(model, annotations, tmp_path / "m.tlm", settings, say=said.append)
    assert any(text.startswith(f"skipped: {record.sample_id}") for text in said)
    with pytest.raises(InputError, match="which is needed to measure shapes, is damaged"):
        finetune(model, annotations, tmp_path / "m.tlm", replace(settings, targets=None), say=said.append)


# ---------------------------------------------------------------- the loss


def test_so_many_targets_as_expected_cost_nothing_among_unlabelled_voxels():
    from keras import ops

    known = loss_of("dice-cross-entropy", 2, {})
    truth = np.full((1, 4, 4, 4), UNLABELLED, np.uint8)
    truth[0, 0] = 1
    called = np.zeros((1, 4, 4, 4), np.float32)
    called[0, 0] = 0.9
    called[0, 1, 0, :3] = 1.0  # 3 of 48 unlabelled voxels
    probabilities = np.stack([1 - called, called], axis=-1)

    def loss(truth, prior):
        return float(ops.convert_to_numpy(positive_unlabelled(known, prior)(truth, probabilities)))

    labelled = np.where(truth == UNLABELLED, IGNORE, truth)
    alone = float(ops.convert_to_numpy(known(labelled, probabilities)))
    assert loss(truth, 0.2) == pytest.approx(alone)
    # called targets as often as expected and a quarter of that more, of which nine tenths are found
    assert loss(truth, 0.05) == pytest.approx(alone + 3 / 48 / 0.05 - 0.9)
    # without unlabelled voxels it is the loss of the labelled ones
    assert loss(labelled, 0.01) == pytest.approx(alone)


def test_real_patches_count_as_much_as_there_are_of_them_however_few_voxels_are_labelled():
    from keras import ops

    known = loss_of("dice-cross-entropy", 2, {})
    rng = generator("apart")
    called = rng.uniform(0.01, 0.99, (4, 6, 6, 6)).astype(np.float32)
    probabilities = np.stack([1 - called, called], axis=-1)
    truth = rng.integers(0, 2, called.shape).astype(np.uint8)
    truth[1:, 1:] = IGNORE

    def value(loss, *parts):
        return float(ops.convert_to_numpy(loss(*parts)))

    both = value(apart(known, known, 1, 4), truth, probabilities)
    first, rest = (value(known, truth[part], probabilities[part]) for part in (slice(1), slice(1, 4)))
    assert both == pytest.approx(first / 4 + 3 * rest / 4)
    assert value(apart(known, known, 0, 4), truth, probabilities) == value(known, truth, probabilities)
