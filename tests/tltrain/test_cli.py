import re
import subprocess
import sys

import pytest

from catalogs import progress
from catalogs.model_file import read_card
from catalogs.schema import ClassInfo
from tltrain.data.splits import split_samples


def test_fit_trains_says_how_it_goes_and_writes_a_model(tltrain, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)  # every line that a log gets
    model = tmp_path / "new folder" / "balls.tlm"
    status, out, err = tltrain(
        *("fit", corpus.url, "--to", model, "--where", "defocus > 0"),
        *("--steps", 3, "--patch", 16, "--batch", 2, "--seed", 5),
    )
    assert status == 0
    assert "training small on 4 tomograms of 10 Å a voxel, validating on 1" in out
    assert f"wrote {model}: F1 of ball " in out
    assert f"progress: {tmp_path / 'new folder' / 'balls.training' / 'training.html'}" in out
    assert err == ""
    last = [line for line in out.splitlines() if line.startswith("  training ")][-1]
    assert last.startswith("  training 3/3 steps; ")
    for word in ("left; loss ", "val F1 0.", "patches/s", "waited"):
        assert word in last
    card = read_card(model)
    assert card.training["settings"]["seed"] == 5
    # all samples have some defocus, but those of the other splits are kept apart
    splits = {record.sample_id: record.split for record in corpus.records()}
    assert {splits[i] for i in card.provenance["train"]} == {"train"}
    assert {splits[i] for i in card.provenance["val"]} == {"val"}


def test_what_is_held_out_and_how_patches_are_made_stands_in_the_model(tltrain, corpus, tmp_path):
    model = tmp_path / "balls.tlm"
    records = [record for record in corpus.records() if record.split == "train"]
    held = max(records, key=lambda record: record.acquisition.defocus)
    status, out, _ = tltrain(
        *("fit", corpus.url, "--to", model, "--hold-out", f"defocus >= {held.acquisition.defocus}"),
        *("--sampling", "distractor=0,background=0.4", "--augment", "none", "--augment", "noise=0.5:0.4"),
        *("--steps", 2, "--patch", 16, "--batch", 2),
    )
    assert status == 0, out
    card = read_card(model)
    assert held.sample_id in card.provenance["val"]
    assert held.sample_id not in card.provenance["train"]
    settings = card.training["settings"]
    assert settings["shares"] == {"target": 0.6, "distractor": 0.0, "background": 0.4}
    assert settings["augmentation"]["noise"] == {"probability": 0.5, "strength": 0.4}
    assert settings["augmentation"]["half_turns"]["probability"] == 0
    status, out, _ = tltrain("info", model)
    assert status == 0
    assert "sampling (target 0.6, background 0.4), augmentation (half_turns 0:1, " in out
    assert ", noise 0.5:0.4, " in out
    assert "{" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--where", "split == 'test'"], "no sample of the corpus {url} with the split 'train' fits"),
        (["--where", "dose > 1e6"], "tlgen ls shows what there is"),
        (["--where", "doze < 100"], "did you mean 'dose'?"),
        (
            ["--network", "smal"],
            "no network 'smal'; use one of small, deepfinder, residual-unet; did you mean 'small'?",
        ),
        (["--patch", "42"], "--patch 42 is not a multiple of 4, as the network small requires; give 40"),
        (["--hold-out", "defocus > 1e3"], "holds out no sample of the corpus {url}"),
        (["--hold-out", "defocus > 0"], "holds out 4 of the 4 that fit"),
        (["--hold-out", "dose > 0", "--hold-out-by", "dose"], "exclude each other"),
        (["--hold-out-by", "defokus"], "did you mean"),
        (["--hold-out-by", ""], "--hold-out-by names '', which is not a column of the corpus"),
        (["--hold-out", ""], "the selection '' cannot be understood"),
        (
            ["--sampling", "distractors=0.3"],
            "--sampling names 'distractors'; give target, distractor, background",
        ),
        (["--sampling", "target=much"], "--sampling has 'target=much'; give a number from 0"),
        (["--sampling", "target=0,distractor=0,background=0"], "--sampling has only zeros"),
        (["--augment", "nois=0.5"], "augmentation 'nois' is not known; did you mean 'noise'?"),
        (["--max-damaged", "1"], "--max-damaged is 1; give a share from 0 to below 1"),
        (["--steps", "0"], "--steps is 0; give at least 1"),
        (["--learning-rate", "-1"], "--learning-rate is -1; give a positive number"),
        (["--stepz", "3"], "--stepz"),
        (["--loss", "dice"], "--loss is 'dice'; give one of dice-cross-entropy, tversky"),
        (["--dtype", "float16"], "--dtype is 'float16'; give one of float32, bf16, fp16"),
        (["--ema", "1"], "--ema is 1; give a momentum below 1, such as 0.999"),
        (["--class-weights", "bal=2"], "the corpus has background, ball; did you mean 'ball'?"),
        (["--class-weights", "ball"], "--class-weights has 'ball'; give name=weight for each class"),
        (["--class-weights", "ball=-1"], "--class-weights gives ball the weight -1; give 0 or more"),
        (["--class-weights", "ball=0,background=0"], "gives no class a weight"),
        (["--patience", "0"], "--patience is 0; give at least 1"),
        (["--batch", "3", "--devices", "2"], "--batch 3 cannot be shared by 2 devices"),
        (["--from", "nowhere.tlm"], "there is no model nowhere.tlm"),
        (["--where", ""], "the selection '' cannot be understood"),
        (["--to", "s3://bucket/m.tlm"], "--to s3://bucket/m.tlm: this is written to a disk"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tltrain, corpus, tmp_path, arguments, sentence):
    status, _, err = tltrain("fit", corpus.url, "--to", tmp_path / "m.tlm", *arguments)
    assert status == 2
    assert sentence.format(url=corpus.url) in err
    assert err.startswith("tltrain: ")
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_no_corpus_is_refused(tltrain, tmp_path):
    status, _, err = tltrain("fit", tmp_path / "nothing", "--to", tmp_path / "m.tlm")
    assert status == 2
    assert "nothing" in err
    assert "there is no corpus" in err


def test_several_voxel_sizes_are_refused_unless_one_is_chosen(tltrain, make_catalog, write_balls, tmp_path):
    catalog = make_catalog(tmp_path / "corpus")
    for name, split, size in (
        ("a", "train", 10.0),
        ("b", "train", 8.0),
        ("c", "val", 10.0),
        ("d", "val", 8.0),
    ):
        write_balls(catalog, name, split, voxel_size=size)
    status, _, err = tltrain("fit", catalog.url, "--to", tmp_path / "m.tlm")
    assert status == 2
    assert "voxels of 8 and 10 Å" in err
    assert '--where "voxel_size == 8"' in err
    train, val = split_samples(catalog, "voxel_size == 8")
    assert [record.name for record in train] == ["b"]
    assert [record.name for record in val] == ["d"]


def test_several_classes_are_said_by_name(tltrain, make_catalog, write_balls, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)  # every line that a log gets
    classes = [ClassInfo(name="ball", label=3, radius=50), ClassInfo(name="absent", label=1, radius=50)]
    catalog = make_catalog(tmp_path / "corpus", classes)
    write_balls(catalog, "one", "train", label=3)
    write_balls(catalog, "two", "val", label=3)
    model = tmp_path / "m.tlm"
    status, out, err = tltrain("fit", catalog.url, "--to", model, "--steps", 2, "--patch", 16, "--batch", 1)
    assert (status, err) == (0, "")
    assert "val F1 absent nan, ball 0." in out
    assert re.search(r"picks absent (nan|0\.000), ball 0\.", out)  # nothing was learned in so few steps
    card = read_card(model)
    assert [info.name for info in card.classes] == ["absent", "ball"]  # the order of the network's outputs
    assert card.training["voxel_f1"]["absent"] is None


def test_what_is_no_model_is_not_overwritten(tltrain, corpus, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    status, _, err = tltrain("fit", corpus.url, "--to", notes)
    assert status == 2
    assert "not a model file" in err
    assert notes.read_text() == "precious"
    status, _, err = tltrain("fit", corpus.url, "--to", tmp_path)
    assert status == 2
    assert f"{tmp_path} is a folder" in err


def test_a_training_that_diverges_says_so(tltrain, corpus, tmp_path):
    status, _, err = tltrain(
        *("fit", corpus.url, "--to", tmp_path / "m.tlm", "--patch", 16, "--batch", 1),
        *("--steps", 30, "--learning-rate", 1e30, "--yes"),
    )
    assert status == 2
    assert "the training diverged at step" in err
    assert "lower --learning-rate" in err


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['tltrain', 'fit', '--help']\n"
        "from tltrain.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('tensorflow', 'keras', 'zarr', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--learning-rate" in done.stdout


@pytest.mark.slow
def test_nothing_is_on_stderr(corpus, tmp_path):
    arguments = ["fit", corpus.url, "--to", str(tmp_path / "m.tlm"), "--steps=1", "--patch=16", "--batch=1"]
    code = f"import sys; sys.argv = ['tltrain', *{arguments}]\nfrom tltrain.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  training ")]
    assert len(lines) == 3, done.stdout


def test_a_corpus_without_a_target_or_in_a_strange_unit_is_refused(
    tltrain, make_catalog, write_balls, tmp_path
):
    catalog = make_catalog(tmp_path / "empty")
    write_balls(catalog, "a", "train", n=0)
    status, _, err = tltrain("fit", catalog.url, "--to", tmp_path / "m.tlm", "--steps", 1)
    assert (status, (tmp_path / "m.tlm").exists()) == (2, False)
    assert "none of the 1 samples to train on holds a particle of ball" in err

    small = make_catalog(tmp_path / "small")
    write_balls(small, "a", "train", voxel_size=1.0)
    status, _, err = tltrain("fit", small.url, "--to", tmp_path / "m.tlm", "--steps", 1)
    assert (status, (tmp_path / "m.tlm").exists()) == (2, False)
    assert (
        "the voxel size of the corpus is 1 Å: tomograms to pick in have voxels of 4 to 25 Å; is it in nm?"
        in err
    )
    assert "if this is meant, add --yes" in err


def test_a_model_that_nothing_validated_says_so_at_the_end(tltrain, make_catalog, write_balls, tmp_path):
    catalog = make_catalog(tmp_path / "corpus")
    write_balls(catalog, "a", "train")
    status, out, err = tltrain("fit", catalog.url, "--to", tmp_path / "m.tlm", "--steps", 1, "--batch", 1)
    assert status == 0, err
    assert "not validated, since no sample has the split val" in out.splitlines()[-1]
