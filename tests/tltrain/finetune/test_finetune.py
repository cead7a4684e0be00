"""Fine-tuning on tomograms in files, as a user does it."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.model_file import fingerprint, read_card, with_card
from catalogs.particle_formats.base import Context
from catalogs.schema import ClassInfo
from catalogs.volumes import open_volume, write_mrc
from tlpick.network.keras_network import load_keras
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.finetune.evaluation import Assessment, outcome_of
from tltrain.finetune.finetune import finetune
from tltrain.finetune.settings import FineTuning
from tltrain.finetune.training_material import (
    gather,
    settled,
)
from tltrain.training import checkpoint, loop
from tltrain.training.validation import PickScore, Scores

# seconds, to see the machinery and not how good the network gets
QUICK = FineTuning(steps=6, patch=16, batch=4, validate_every=3, max_forgetting=1.0, simulated_share=0.5)


def command(model, data, *more, picks="picks.star"):
    return ("finetune", model, "-t", data / "*.mrc", "-p", data / picks, *more)


def weights(path):
    return load_keras(path).get_weights()


def assert_same_weights(one, two):
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- the command


def test_a_command_tunes_and_the_card_says_what_of(tltrain, model, corpus, data, annotations, tmp_path):
    tuned = tmp_path / "tuned.tlm"
    more = ("--to", tuned, "--steps", 3, "--patch", 16, "--batch", 4, "--max-forgetting", 1)
    status, out, err = tltrain(*command(model, data, *more, "--simulated-share", 0.25))
    assert status == 0, err
    assert "1 simulated patches to every 3; held out: TS_0" in out
    assert "before: F1 simulated 0." in out
    assert f"wrote {tuned}: F1 on held-out tomograms" in out
    card, parent = read_card(tuned), read_card(model)
    assert (card.classes, card.voxel_size, card.network) == (
        parent.classes,
        parent.voxel_size,
        parent.network,
    )
    tuning = card.training["fine_tuning"]
    assert tuning["parent"] == fingerprint(model)
    (held,) = tuning["held_out"]
    learned = {each["name"]: each["annotations"] for each in tuning["tomograms"]}
    assert {held, *learned} == {"TS_01", "TS_02", "TS_03"}
    assert (
        sum(learned.values())
        == tuning["annotations"]["ball"]
        == len(annotations.table) - len(annotations.of(held))
    )
    assert tuning["mix"] == 0.25
    assert tuning["forgotten"] is not None
    assert card.provenance["corpus"] == corpus.url
    assert card.provenance["parent"] == parent.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuned.tlm", "tuned.training"]
    assert f"progress: {tmp_path / 'tuned.training' / 'training.html'}" in out
    page = (tmp_path / "tuned.training" / "training.html").read_text()
    for word in ("1 simulated patches to every 3", "F1 of picks, on simulated tomograms", "finished"):
        assert word in page
    # a plane of what is held out, with its annotations, and one of a simulated tomogram, with the truth
    assert re.findall(r'<img alt="([^"]*)"', page) == [
        *("The tomogram", "Annotations", "Prediction", "The tomogram", "Truth", "Prediction"),
    ]
    assert re.findall(r">(\S+), plane \d+ of 40", page) == [held, "val-0"]
    table = (tmp_path / "tuned.training" / "history.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert rows[0]["step"] == "0"
    assert float(rows[0]["simulated/f1"]) == pytest.approx(tuning["before"]["simulated"]["f1"])

    status, out, _ = tltrain("info", tuned)
    assert (
        f"fine-tuned   from balls ({fingerprint(model)}) on {sum(learned.values())} of ball; F1 on held-"
        in out
    )

    before = tuned.read_bytes()
    status, out, _ = tltrain(*command(model, data, *more, "--simulated-share", 0.25))
    assert status == 0
    assert f"{tuned} is already fine-tuned with these settings on these annotations" in out
    assert tuned.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--steps", 0], "--steps is 0; give at least 1"),
        (["--batch", -4], "--batch is -4; give at least 1"),
        (["--learning-rate", 0], "--learning-rate is 0; give a positive number"),
        (["--precision", "half"], "--dtype is 'half'; give one of float32, bf16, fp16"),
        (["--annotations", 20, "--learning-curve", "0,20"], "--annotations and --learning-curve exclude"),
        (["--unlabelled", "positive-unlabelled", "--prior", 2], "--prior is 2; give a share between 0 and 1"),
        (["--to", "s3://bucket/m.tlm"], "--to s3://bucket/m.tlm: this is written to a disk"),
        (["--simulated-share", 1], "--simulated-share 1 leaves no room for the annotated tomograms"),
        (["--simulated-share", -1], "--simulated-share is -1; give a number from 0 to 1"),
        (["--targets", "shapes"], "--targets is 'shapes'; give one of shape, sphere, oriented; did you mean"),
        (
            ["--targets", "oriented"],
            "--targets oriented needs picks with orientations, and no pick has one",
        ),
        (["--unlabelled", "pu"], "--unlabelled is 'pu'; give one of ignore, background, positive-unlabelled"),
        (["--patch", 18], "--patch 18 is not a multiple of 4, as the network small requires; give 16"),
        (["--held-out", "TS_9"], "--held-out TS_9: there is no tomogram of that name, only TS_01, TS_02"),
        (["--annotations", 500], "500 annotations were requested, but"),
        (["--corpus", "nowhere"], "tomograms to learn from as well: there is no corpus at nowhere"),
        (["--class", "ball"], "--class ball is not THEIRS=OURS"),
        (["--class", "ball=bal"], "has no class 'bal', only ball; did you mean 'ball'?"),
        (["--learning-curve", "0,500"], "--learning-curve asks for 500 annotations, and"),
        (["--learning-curve", "0,x"], "is not a list of numbers; give one such as 0,25,50,150"),
        (["--learning-curve", "0,5", "--held-out", "none"], "a learning curve needs a tomogram that is not"),
        (["--voxel-size", 12], "voxels of 12 Å, the model 'balls' was trained at 10 Å; add --rescale"),
        (
            ["--background-shell", 0, "--simulated-share", 0],
            "would call everything a particle; give one of them more",
        ),
        (["-t", "missing.mrc"], "there is no volume missing.mrc"),
        (["-p", "missing.star"], "there is no particle list missing.star"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tltrain, model, data, tmp_path, more, sentence):
    before = sorted(model.parent.iterdir())
    status, _, err = tltrain(*command(model, data, "--to", tmp_path / "m.tlm", *more))
    assert status == 2
    assert sentence in err
    assert err.startswith("tltrain: ")
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nothing was written
    assert sorted(model.parent.iterdir()) == before


def test_a_card_of_another_network_is_refused(tltrain, model, data, tmp_path):
    foreign = tmp_path / "foreign.tlm"
    with_card(model, read_card(model).model_copy(update={"halo": 400}), foreign)
    status, _, err = tltrain(*command(foreign, data, "--to", tmp_path / "m.tlm"))
    assert status == 2
    assert "foreign.tlm says that its network sees 400 voxels a side" in err
    assert "the card is of another network" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["foreign.tlm"]


def test_what_is_unusual_is_refused_unless_it_is_meant(model, annotations, tmp_path):
    fast, target = replace(QUICK, learning_rate=3.0, simulated_share=0.0), tmp_path / "m.tlm"
    with pytest.raises(InputError, match=r"`learning_rate` is 3: networks learn .* is meant, add `yes`$"):
        finetune(model, annotations, target, fast)
    with pytest.raises(InputError, match=r"the factor is 10: resampling by more than 2\.5 .* add `yes`$"):
        finetune(model, annotations, target, QUICK, preprocessing=Preprocessing(voxel_size=1.0, rescale=True))
    assert not target.exists()


def test_the_model_to_begin_with_is_not_overwritten(tltrain, model, data):
    before = model.read_bytes()
    status, _, err = tltrain(*command(model, data, "--to", model))
    assert status == 2
    assert f"{model} is the model that the training begins with; give --to another path" in err
    assert model.read_bytes() == before


def test_a_tomogram_that_cannot_be_used_is_named_and_nothing_is_left(tltrain, model, data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    values = open_volume(data / "TS_03.mrc").read()
    values[3, 4, 5] = np.nan
    write_mrc(folder / "TS_03.mrc", values, 10.0)
    status, _, err = tltrain(*command(model, folder, "--to", tmp_path / "m.tlm"))
    assert status == 2
    assert "TS_03.mrc: the volume holds values that are not finite numbers" in err
    assert len(err.strip().splitlines()) == 1
    curve = ("--learning-curve", "0,10", "--held-out", "TS_01", "--to", tmp_path / "curve")
    status, _, err = tltrain(*command(model, folder, *curve))
    assert status == 2
    assert "TS_03.mrc: the volume holds values" in err
    assert [p.name for p in tmp_path.iterdir()] in (["data"], ["curve", "data"], ["data", "curve"])
    assert not (tmp_path / "curve" / "tomograms.partial").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.assign(x=t["x"] * 8),
            "lie outside of the tomogram 'TS_01' (70 x 72 x 40 voxels of",
        ),
        (lambda t: t[t["tomogram"] != "TS_02"], "has no particles in the tomogram 'TS_02'; annotate some"),
        (lambda t: t.assign(tomogram="other"), "has particles in 'other', but the tomograms are 'TS_01'"),
        (
            lambda t: t.assign(class_name="bell"),
            "has the class 'bell', the model 'balls' knows ball; did you",
        ),
        (
            lambda t: t.groupby("tomogram").head(2),
            "has 6 particles of the class 'ball' in these tomo",
        ),
    ],
)
def test_picks_that_do_not_fit_are_refused(tltrain, model, data, annotations, tmp_path, change, sentence):
    table = change(annotations.table).reset_index(drop=True)
    particles.save(table, tmp_path / "wrong.csv", "csv", Context())
    status, _, err = tltrain(*command(model, data, "--to", tmp_path / "m.tlm", picks=tmp_path / "wrong.csv"))
    assert status == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_without_its_corpus_a_model_learns_from_the_annotated_tomograms_alone(
    tltrain, corpus, model, data, tmp_path
):
    lost = tmp_path / "lost.tlm"
    card = read_card(model)
    with_card(model, card.model_copy(update={"provenance": card.provenance | {"corpus": "/no/such"}}), lost)
    status, _, err = tltrain(*command(lost, data, "--to", tmp_path / "m.tlm", "--simulated-share", 0.5))
    assert status == 2
    assert "there are no simulated tomograms to learn from as well: there is no corpus at /no/such" in err
    assert "or give --simulated-share 0 --targets sphere to do without" in err
    quick = ("--steps", 2, "--patch", 16, "--batch", 2)
    status, out, err = tltrain(*command(lost, data, "--to", tmp_path / "m.tlm", *quick))
    assert status == 0, err
    assert "'balls' learns from these tomograms alone" in out
    assert "there is no corpus at /no/such" in out
    assert "with more than 90% stays background; --corpus names" in out
    assert "forgetting is not measured" in out
    tuned = read_card(tmp_path / "m.tlm").training
    assert tuned["fine_tuning"]["forgotten"] is None
    assert tuned["settings"] | {"mix": 0.0, "background_below": 0.1, "targets": "sphere"} == tuned["settings"]


def test_settings_are_settled_by_whether_the_corpus_is_there(corpus, model):
    card, said = read_card(model), []
    here = settled(FineTuning(), card, said.append)
    assert (here.simulated_share, here.background_below, here.targets) == (0.5, 0.0, None)
    assert not said
    lost = card.model_copy(update={"provenance": {}})
    alone = settled(FineTuning(), lost, said.append)
    assert (alone.simulated_share, alone.background_below, alone.targets) == (0.0, 0.1, "sphere")
    assert len(said) == 1
    assert settled(FineTuning(background_below=0.3), lost, said.append).background_below == 0.3
    # what the user asks for stays, and is refused later if it cannot be
    for asked in (
        FineTuning(simulated_share=0.5),
        FineTuning(corpus="/no/such"),
        FineTuning(targets="shape"),
        FineTuning(from_scratch=True),
    ):
        assert settled(asked, lost, said.append).targets == asked.targets
        assert settled(asked, lost, said.append).simulated_share == 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"voxel_size": 20.0}, "has no samples of the split 'train' with voxels of 20 Å, as the model"),
        (
            {"contrast": "bright"},
            "protein is dark in the corpus {url}, and the model 'balls' expects it bright",
        ),
        (
            {"classes": [ClassInfo(name="box", label=1, radius=50)]},
            "has the classes ball, the model 'balls' box",
        ),
        ({"provenance": {}}, "the model 'balls' does not say which corpus it was trained on"),
    ],
)
def test_a_corpus_of_another_kind_is_refused_unless_it_is_not_needed(
    corpus, model, annotations, change, sentence
):
    card, said = read_card(model).model_copy(update=change), []
    sentence = sentence.format(url=corpus.url)
    for settings in (QUICK, replace(QUICK, simulated_share=0, targets="shape")):
        with pytest.raises(InputError) as refused:
            gather(card, annotations, (), settings, said.append)
        assert sentence in str(refused.value)
        assert "or give `simulated_share=0` `targets=sphere` to do without" in str(refused.value)
    if "classes" not in change:  # of which the annotations are
        without = gather(
            card, annotations, (), replace(QUICK, simulated_share=0, targets="sphere"), said.append
        )
        assert without.simulation is None
        assert any(sentence in text and "forgetting is not measured" in text for text in said)


def test_what_the_model_never_saw_tells_what_is_forgotten(corpus, model, annotations):
    card = read_card(model)
    gathered = gather(card, annotations, (), QUICK, lambda _: None).simulation
    assert {record.split for record in gathered.train} == {"train"}
    assert {record.split for record in gathered.val} == {"val"}
    # trained with --hold-out, by which samples of the split train validate
    *rest, out = card.provenance["train"]
    held = card.model_copy(update={"provenance": card.provenance | {"train": rest, "val": [out]}})
    gathered = gather(held, annotations, (), QUICK, lambda _: None).simulation
    assert [record.sample_id for record in gathered.val] == [out]
    assert {record.sample_id for record in gathered.train} == set(rest)
    # on another corpus than that of the model its splits count
    other = card.model_copy(update={"provenance": {"corpus": corpus.url, "train": ["?"], "val": ["?"]}})
    gathered = gather(other, annotations, (), QUICK, lambda _: None).simulation
    assert (len(gathered.train), len(gathered.val)) == (4, 1)


# ---------------------------------------------------------------- forgetting


class Simulated:
    """Simulated tomograms on which networks score what is said, one after the other."""

    def __init__(self, *f1):
        self.left = list(f1)

    def score(self, network, thresholds=None):
        f1 = self.left.pop(0)
        return Scores({"ball": f1}, {"ball": 0.5}, {"ball": PickScore(f1, f1, f1)})


@pytest.mark.parametrize(
    ("after", "allowed", "stops"),
    [(0.8, 0.05, False), (0.75, 0.05, False), (0.7499, 0.05, True), (0.9, 0.0, False), (0.7999, 0.0, True)],
)
def test_more_than_is_allowed_may_not_be_forgotten(after, allowed, stops):
    scores = Simulated(0.8, after)
    begin = Assessment(scores.score(None), None, {}).facts
    outcome = outcome_of(Assessment(scores.score(None), None, {}), begin, FineTuning(max_forgetting=allowed))
    assert bool(outcome.stop) == stops
    assert (outcome.score < (0.0,)) == stops  # and is never the best
    scratch = FineTuning(max_forgetting=allowed, from_scratch=True)
    assert not outcome_of(Assessment(Simulated(after).score(None), None, {}), begin, scratch).stop


@pytest.mark.parametrize("held", [(), ("--held-out", "none")])
def test_who_forgets_stops_with_what_was_best_before_and_status_3(
    tltrain, model, data, tmp_path, monkeypatch, held
):
    monkeypatch.setattr(
        "tltrain.finetune.training_material.simulated", lambda material: Simulated(0.9, 0.88, 0.5, 0.88)
    )
    tuned = tmp_path / "tuned.tlm"
    status, _, err = tltrain(
        *command(model, data, "--to", tuned, "--steps", 9, "--validate-every", 2, "--patch", 16, *held),
        *("--batch", 2, "--max-forgetting", 0.1, "--targets", "sphere"),
    )
    assert status == 3
    why = "F1 on simulated tomograms fell from 0.900 to 0.500, more than --max-forgetting 0.1 allows"
    assert err.splitlines()[-1] == f"tltrain: stopped: {why}; the best network before that is kept"
    card = read_card(tuned)
    why = why.replace("--max-forgetting 0.1", "`max_forgetting=0.1`")  # which no command line has seen
    assert (card.training["steps"], card.training["stopped"]) == (4, why)
    assert card.training["best_step"] in ((0, 2) if not held else (2,))
    assert card.training["fine_tuning"]["forgotten"] == 0.02
    assert why in (tmp_path / "tuned.training" / "training.html").read_text()
    # the same command again has nothing to do, and says the same
    status, out, err = tltrain(
        *command(model, data, "--to", tuned, "--steps", 9, "--validate-every", 2, "--patch", 16, *held),
        *("--batch", 2, "--max-forgetting", 0.1, "--targets", "sphere"),
    )
    assert status == 3
    assert "is already fine-tuned with these settings" in out


# ---------------------------------------------------------------- going on


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on_to_the_same_weights(model, annotations, tmp_path, monkeypatch):
    finetune(model, annotations, tmp_path / "whole.tlm", QUICK, say=lambda _: None)
    save = checkpoint.save

    def save_then_stop(path, state):
        save(path, state)
        if state.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(checkpoint, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, annotations, tmp_path / "parts.tlm", QUICK, say=lambda _: None)
    assert not (tmp_path / "parts.tlm").exists()
    monkeypatch.setattr(checkpoint, "save", save)
    said = []
    finetune(model, annotations, tmp_path / "parts.tlm", QUICK, say=said.append)
    assert "continuing after step 4" in said
    assert not any(text.startswith("reading") for text in said)  # nor are tomograms read again
    assert_same_weights(tmp_path / "whole.tlm", tmp_path / "parts.tlm")
    assert any((a != b).any() for a, b in zip(weights(model), weights(tmp_path / "whole.tlm"), strict=True))


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_tuning_goes_on(model, data, annotations, tmp_path):
    """kill -9 while it learns; the same command again ends with the weights of one that was not killed."""
    arguments = [
        *map(str, command(model, data, "--steps", 40, "--patch", 16, "--batch", 4, "--max-forgetting", 1)),
        "--to",
    ]
    code = (
        "import sys; from tltrain.training import loop; loop.CHECKPOINT_EVERY = 0.2\n"
        "from tltrain.cli import main; main()"
    )

    def start(name):
        line = [sys.executable, "-c", code, *arguments, str(tmp_path / name)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    killed = start("killed.tlm")
    state = tmp_path / "killed.tlm.partial" / "state.npz"
    deadline = time.monotonic() + 300
    while not state.exists():
        assert killed.poll() is None, killed.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    assert not (tmp_path / "killed.tlm").exists()
    again, whole = start("killed.tlm"), start("whole.tlm")
    output = again.communicate()[0]
    assert again.returncode == 0, output
    assert "continuing after step " in output
    whole.communicate()
    assert whole.returncode == 0
    assert_same_weights(tmp_path / "killed.tlm", tmp_path / "whole.tlm")
