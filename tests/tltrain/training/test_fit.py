import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.intensity import normalise
from catalogs.model_file import read_card, read_network, with_card
from catalogs.schema import ClassInfo
from tltrain.training import checkpoint, loop
from tltrain.training import fit as fit_module
from tltrain.training.fit import fit
from tltrain.training.settings import Settings

# small enough for seconds, large enough to learn
QUICK = Settings(steps=110, patch=32, batch=4)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A model of the corpus, and what was said while it was made."""
    path, said = tmp_path_factory.mktemp("model") / "balls.tlm", []
    card = fit(corpus.url, path, QUICK, say=said.append)
    return path, card, said


def load(path, folder):
    """Open the network as a picker does: with Keras alone."""
    import keras

    return keras.saving.load_model(read_network(path, folder))


def voxel_f1(network, corpus, record):
    arrays = corpus.arrays(record.sample_id)
    grey = normalise(arrays["tomogram"][:], record.intensity)
    padded = np.pad(grey, [(0, -n % 8) for n in grey.shape])
    found = np.asarray(network(padded[None, ..., None]))[0].argmax(axis=-1)
    found = found[tuple(slice(n) for n in grey.shape)] == 1
    truth = arrays["classes"][:] == 1
    return 2 * (found & truth).sum() / (found.sum() + truth.sum()), truth.mean()


def test_a_network_learns_to_tell_targets_from_distractors(trained, corpus, tmp_path):
    path, card, _ = trained
    held = next(record for record in corpus.records() if record.split == "test")
    f1, share = voxel_f1(load(path, tmp_path), corpus, held)
    assert f1 > 0.55
    assert f1 > 4 * 2 * share / (1 + share)  # what calling every voxel a target would give
    assert card.training["voxel_f1"]["ball"] > 0.55
    # whoever cannot tell the sizes apart marks all balls: targets are a minority of their voxels
    instances = corpus.arrays(held.sample_id)["instances"][:] > 0
    truth = corpus.arrays(held.sample_id)["classes"][:] == 1
    assert f1 > 2 * truth.sum() / (instances.sum() + truth.sum())


def test_the_card_says_what_a_picker_needs(trained, corpus):
    path, card, _ = trained
    assert read_card(path) == card
    assert card.classes == corpus.classes
    assert card.voxel_size == 10
    assert card.contrast == "dark"
    assert card.network == "small"
    assert card.patch == 32
    assert card.halo % card.pooling == 0
    assert card.n_parameters > 10_000
    assert 0 < card.thresholds["ball"] < 1
    splits = {record.sample_id: record.split for record in corpus.records()}
    assert {splits[i] for i in card.provenance["train"]} == {"train"}
    assert {splits[i] for i in card.provenance["val"]} == {"val"}
    assert card.training["history"][-1]["step"] == QUICK.steps
    assert card.training["picks"]["ball"]["f1"] > 0.3
    assert card.provenance["recipe"] == {"made": "by a test"}
    assert card.provenance["corpus_digest"] == corpus.digest


def test_nothing_is_left_of_the_unfinished_training(trained):
    path, _, _ = trained
    assert sorted(p.name for p in path.parent.iterdir()) == ["balls.tlm", "balls.training"]


def test_a_finished_training_is_not_repeated(trained, corpus):
    path, card, _ = trained
    before, said = path.read_bytes(), []
    assert fit(corpus.url, path, QUICK, say=said.append) == card
    assert path.read_bytes() == before
    assert said == [f"{path} is already trained with these settings on these samples"]


def test_a_training_begins_with_the_weights_of_another(trained, corpus, tmp_path):
    path, _, _ = trained
    one = Settings(steps=1, patch=16, batch=1, learning_rate=1e-12, start=str(path))
    fit(corpus.url, tmp_path / "more.tlm", one, say=lambda _: None, yes=True)
    fit(corpus.url, tmp_path / "fresh.tlm", replace(one, start=None), say=lambda _: None, yes=True)
    before, more, fresh = (
        [np.asarray(w) for w in load(each, tmp_path).trainable_weights]
        for each in (path, tmp_path / "more.tlm", tmp_path / "fresh.tlm")
    )
    for a, b in zip(before, more, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(before, fresh, strict=True))


def test_a_model_for_something_else_is_no_beginning(trained, corpus, make_catalog, write_balls, tmp_path):
    path, _, _ = trained
    start = Settings(steps=1, patch=16, batch=1, start=str(path))
    with pytest.raises(InputError, match="holds the network small, wanted is deepfinder"):
        fit(corpus.url, tmp_path / "m.tlm", replace(start, network="deepfinder"))
    other = make_catalog(tmp_path / "other", [ClassInfo(name="box", label=1, radius=50)])
    write_balls(other, "one", "train")
    with pytest.raises(InputError, match=r"balls\.tlm finds ball \(1\), wanted is box \(1\)"):
        fit(other.url, tmp_path / "m.tlm", start)
    fine = make_catalog(tmp_path / "fine")
    write_balls(fine, "one", "train", voxel_size=5.0)
    with pytest.raises(InputError, match="is for voxels of 10 Å, the tomograms have 5 Å"):
        fit(fine.url, tmp_path / "m.tlm", start)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is the model that the training begins with; give"):
        fit(corpus.url, path, start)
    assert path.read_bytes() == before
    assert not (tmp_path / "m.tlm.partial").exists()


@pytest.mark.parametrize("changes", [{"halo": 400}, {"pooling": 64}])
def test_a_card_of_another_network_is_no_beginning(trained, corpus, tmp_path, changes):
    path, _, _ = trained
    foreign = tmp_path / "foreign.tlm"
    with_card(path, read_card(path).model_copy(update=changes), foreign)
    start = Settings(steps=1, patch=16, batch=1, start=str(foreign))
    with pytest.raises(InputError, match=r"foreign\.tlm says .*: the card is of another network"):
        fit(corpus.url, tmp_path / "m.tlm", start, say=lambda _: None, yes=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["foreign.tlm"]


def test_two_trainings_to_one_model(corpus, tmp_path):
    """The second is refused, and leaves the first one's folder as it is."""
    to, quick = tmp_path / "m.tlm", Settings(steps=1, patch=16, batch=1, validate_every=1)
    partial = fit_module.partial_folder(to)
    (partial / "of-the-first").touch()
    with fit_module.alone(partial):
        with pytest.raises(InputError, match=r"another training is writing .*m\.tlm\.partial now"):
            fit(corpus.url, to, quick, say=lambda _: None, yes=True)
        assert (partial / "of-the-first").exists()
        assert not to.exists()


def assert_same_weights(one, two, folder):
    for a, b in zip(load(one, folder).get_weights(), load(two, folder).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_interrupted_training_goes_on_to_the_same_weights(corpus, tmp_path, monkeypatch):
    settings = Settings(steps=8, patch=16, batch=2)
    fit(corpus.url, tmp_path / "whole.tlm", settings, say=lambda _: None)

    save, saved = checkpoint.save, []

    def save_then_stop(path, state):
        save(path, state)
        saved.append(state.step)
        if state.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(checkpoint, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus.url, tmp_path / "parts.tlm", settings, say=lambda _: None)
    assert not (tmp_path / "parts.tlm").exists()
    monkeypatch.setattr(checkpoint, "save", save)
    said = []
    fit(corpus.url, tmp_path / "parts.tlm", settings, say=said.append)
    assert "continuing after step 5" in said
    assert_same_weights(tmp_path / "whole.tlm", tmp_path / "parts.tlm", tmp_path)


def test_what_another_training_left_is_not_used(trained, make_catalog, write_balls, tmp_path):
    """Neither its unfinished state nor its model; and a corpus without validation samples will do."""
    catalog = make_catalog(tmp_path / "corpus")
    write_balls(catalog, "only", "train")
    model, said = tmp_path / "m.tlm", []
    shutil.copy(trained[0], model)
    folder = tmp_path / "m.tlm.partial"
    folder.mkdir()
    checkpoint.save(folder / "state.npz", checkpoint.State("of another", step=1000))
    card = fit(catalog.url, model, Settings(steps=1, patch=16, batch=1), say=said.append)
    assert f"{model} was trained with other settings or samples and will be replaced" in said
    assert any(text.startswith("starting again") for text in said)
    assert any("without validation: no sample has the split 'val'" in text for text in said)
    assert read_card(model) == card
    assert card.training["best_step"] == 1
    assert card.training["voxel_f1"] == {}
    assert card.thresholds == {"ball": 0.5}


def test_a_damaged_state_is_not_used(tmp_path):
    path = tmp_path / "state.npz"
    checkpoint.save(path, checkpoint.State("f", step=3, variables=[np.arange(4.0)]))
    assert checkpoint.load(path, "f").step == 3
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoint.load(path, "f") is None


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}], ids=["this processor", "AVX2"])
def test_a_training_that_is_killed_twice_goes_on(corpus, tmp_path, limits):
    """kill -9 while it trains, twice; the same command again ends as a run that nobody killed, to the bit."""
    code = (
        "import sys; from tltrain.training import fit, loop, settings; loop.CHECKPOINT_EVERY = 0.2\n"
        "how = settings.Settings(steps=60, patch=16, batch=2, ema=0.9, validate_every=12, patience=9)\n"
        "fit.fit(sys.argv[1], sys.argv[2], how, say=print)"
    )

    def start(name):
        command = [sys.executable, "-c", code, corpus.url, str(tmp_path / name)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | limits
        )

    state = tmp_path / "killed.tlm.partial" / "state.npz"
    last = 0
    for _ in range(2):
        killed = start("killed.tlm")
        deadline = time.monotonic() + 300
        while not state.exists() or state.stat().st_mtime_ns <= last:
            assert killed.poll() is None, killed.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        killed.stdout.close()
        assert not (tmp_path / "killed.tlm").exists()
        last = state.stat().st_mtime_ns

    again, whole = start("killed.tlm"), start("whole.tlm")
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert "continuing after step " in output
    assert whole.communicate() is not None
    assert whole.returncode == 0
    assert_same_weights(tmp_path / "killed.tlm", tmp_path / "whole.tlm", tmp_path)
    histories = [read_card(tmp_path / f"{name}.tlm").training["history"] for name in ("killed", "whole")]
    for row in itertools.chain(*histories):
        del row["seconds"]
    assert histories[0] == histories[1]
