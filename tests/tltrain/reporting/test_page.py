"""What a training leaves beside its model: the page, the table, the events."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tltrain.finetune.page import MEASURES
from tltrain.reporting import journal
from tltrain.reporting.journal import Journal, journal_of, table
from tltrain.reporting.page import Facts, grey_levels, page, painted
from tltrain.training.checkpoint import State
from tltrain.training.validation import Preview


def row(step, loss, **judged):
    entry = {"step": step, "loss": loss, "learning_rate": 1e-3 * step, "seconds": 2.0 * step}
    return entry | ({"score": [0.5], "words": "ok", **judged} if judged else {})


def fitted(**changes):
    """A training of which two entries of three are of validations."""
    picks = [
        {"ball": {"f1": f1, "precision": 0.9, "recall": 0.4}, "<b>": {"f1": 0.25}} for f1 in (0.5, 0.625)
    ]
    history = [
        row(10, 0.75),
        row(20, 0.5, f1={"ball": 0.4, "<b>": float("nan")}, picks=picks[0]),
        row(30, 0.25, f1={"ball": 0.7, "<b>": 0.1}, picks=picks[1]),
    ]
    options = {"step": 30, "seconds": 60.0, "best_step": 30, "best_score": [0.625]} | changes
    return State("f", history=history, **options)


def facts(**changes):
    options = {
        "title": "balls & co",
        "lead": "Training.",
        "classes": ["ball", "<b>"],
        "steps": 40,
        "batch": 8,
    }
    return Facts(**(options | {"table": {"Corpus": "s3://a<b"}} | changes))


def preview(**changes):
    grey = np.linspace(-4, 4, 12 * 20, dtype=np.float32).reshape(12, 20)
    truth, found = np.zeros((2, 12, 20), np.uint8)
    truth[:4], found[6:, :5] = 1, 2
    return Preview("val-0, plane 3 of 9", grey, truth, found, **changes)


VOID = {"meta", "link", "img", "br", "path", "circle", "polyline", "line"}


class Reader(HTMLParser):
    """Collects tags and texts, and sees to it that what opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_shows_curves_scores_and_how_long_it_takes():
    text = page(fitted(), facts())
    read = Reader(text)
    for word in ("balls & co", "step 30 of 40 · 60 s so far · 4.0 patches/s, validation included · "
                 "about 20 s left", "s3://a<b", "Loss", "Learning rate"):  # fmt: skip
        assert word in read.texts
    # the best network's scores, of each class by name
    cards = re.findall(r'<div class="label">([^<]*)</div><div class="value">([^<]*)</div>', text)
    assert cards == [
        ("loss", "0.250"),
        *(("F1 of picks, ball", "0.625"), ("F1 of voxels, ball", "0.700")),
        *(("F1 of picks, &lt;b&gt;", "0.250"), ("F1 of voxels, &lt;b&gt;", "0.100")),
    ]
    # a point for each validation, but where there was nothing to score
    dots = [title for title in read.texts if re.fullmatch(r".*, step \d+: 0\.\d{3}", title)]
    assert dots == [
        *("ball, step 20: 0.500", "ball, step 30: 0.625", "<b>, step 20: 0.250", "<b>, step 30: 0.250"),
        *("ball, step 20: 0.400", "ball, step 30: 0.700", "<b>, step 30: 0.100"),
    ]
    loss = next(attrs["points"] for tag, attrs in read.tags if tag == "polyline" and attrs["class"] == "loss")
    xy = np.array([pair.split(",") for pair in loss.split()], float)
    assert np.diff(xy[:, 0]) == pytest.approx(np.diff(xy[:, 0])[0])
    assert (np.diff(xy[:, 1]) > 0).all()  # it falls, and y counts downwards


def test_a_page_loads_itself_again_until_the_training_is_over_and_needs_nothing_else():
    live, done = page(fitted(), facts(), [preview()]), page(fitted(), facts(), [preview()], done=True)
    assert '<meta http-equiv="refresh" content="5">' in live
    assert "refresh" not in done
    assert "finished" in done
    assert "By the network of the last validation." in live
    assert "By the network that is kept." in done
    stopped = page(fitted(stopped="no better score"), facts(), done=True)
    assert "stopped: no better score" in stopped
    for text in (live, done):
        assert "http:" not in text
        assert "https:" not in text
        assert "<script" not in text
        assert "default-src 'none'" in text


def pictures(text):
    coded = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', text)
    return {alt: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for alt, data in coded}


def test_planes_are_shown_as_they_are_with_the_truth_and_with_the_prediction():
    seen = preview()
    shown = pictures(page(fitted(), facts(), [seen]))
    assert list(shown) == ["The tomogram", "Truth", "Prediction"]
    times = 512 // 20
    grey = grey_levels(seen.grey)
    for name, labels in (("The tomogram", None), ("Truth", seen.truth), ("Prediction", seen.found)):
        picture = shown[name][::times, ::times, :3]
        assert shown[name].shape[:2] == (12 * times, 20 * times)
        assert picture.shape == (12, 20, 3)
        coloured = (
            (picture.max(axis=2) > picture.min(axis=2)) if labels is not None else np.zeros((12, 20), bool)
        )
        np.testing.assert_array_equal(coloured, np.zeros((12, 20)) if labels is None else labels > 0)
        np.testing.assert_array_equal(picture[~coloured], np.repeat(grey[..., None], 3, axis=2)[~coloured])
        if labels is not None:
            np.testing.assert_array_equal(picture, painted(grey, labels))
    assert painted(grey, seen.truth)[0, 0].tolist() != painted(grey, seen.found)[11, 0].tolist()  # by class
    two = page(fitted(), facts(), [preview(called="Annotations"), preview()])
    assert "Annotations" in pictures(two)
    assert two.count("val-0, plane 3 of 9") == 2


def test_the_page_of_a_fine_tuning_shows_what_was_before_and_both_kinds_of_tomograms():
    scores = [
        {"f1": f1, "precision": None, "recall": 0.5, "classes": {"ball": f1, "<b>": None}}
        for f1 in (0.3, 0.6)
    ]
    history = [
        {"step": 0, "loss": None, "words": "F1", "held_out": scores[0], "simulated": scores[1]},
        row(20, 0.5, held_out=scores[1], simulated=scores[0]),
    ]
    text = page(
        State("f", step=20, history=history, best_step=20, best_score=[0.6]), facts(measures=MEASURES)
    )
    dots = [title for title in Reader(text).texts if re.fullmatch(r".*, step \d+: 0\.\d{3}", title)]
    assert dots == [
        *("ball, step 0: 0.300", "ball, step 20: 0.600", "ball, step 0: 0.600", "ball, step 20: 0.300"),
    ]
    assert "F1 of picks, on annotated tomograms held out" in text
    assert "F1 of picks, on simulated tomograms" in text
    assert "on annotated tomograms held out, of step 20" in text
    # nothing but what was before, or nothing at all: from scratch, without a corpus
    for first in (history[0], {"step": 0, "loss": None}):
        Reader(page(State("f", history=[first], best_score=[0.3]), facts(measures=MEASURES)))
    Reader(page(State("f"), facts()))


def test_the_table_has_a_row_for_each_entry():
    rows = list(csv.DictReader(io.StringIO(table(fitted()))))
    assert [r["step"] for r in rows] == ["10", "20", "30"]
    assert [float(r["loss"]) for r in rows] == [0.75, 0.5, 0.25]
    assert [r["picks/ball/f1"] for r in rows] == ["", "0.5", "0.625"]
    assert [r["f1/<b>"] for r in rows] == ["", "", "0.1"]  # nan is no number
    assert not {"score", "words"} & rows[0].keys()


def read_events(folder):
    tf = pytest.importorskip("tensorflow")
    (file,) = folder.iterdir()
    events = [tf.compat.v1.Event.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset([str(file)])]
    assert events[0].file_version == "brain.Event:2"
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events[1:]]


def test_tensorboard_gets_every_entry_once_also_after_going_on(tmp_path):
    pytest.importorskip("tensorflow")
    written = Journal(tmp_path / "t", facts())
    state = fitted()
    written.write(state)
    # killed, and gone on from an earlier step: nothing is there twice
    again = Journal(tmp_path / "t", facts())
    state.history = state.history[:2]
    again.write(state)
    assert [step for step, _ in read_events(tmp_path / "t" / "tensorboard")] == [10, 20]
    state.history = fitted().history
    again.write(state, done=True)
    events = dict(read_events(tmp_path / "t" / "tensorboard"))
    assert list(events) == [10, 20, 30]
    assert events[30]["loss"] == pytest.approx(0.25)
    assert events[30]["picks/ball/f1"] == pytest.approx(0.625)
    assert "seconds" not in events[30]
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"training.html", "history.csv", "tensorboard"}


def test_it_is_written_every_so_often_and_at_every_validation(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(journal, "events", lambda folder, state: None)
    file = tmp_path / "history.csv"
    state, kept = fitted(), fitted().history
    watch = Journal(tmp_path, facts())

    def rows(history):
        state.history = history
        watch(state)
        return len(file.read_text().splitlines()) - 1

    assert rows(kept[:1]) == 1
    assert rows([*kept[:1], row(11, 0.7)]) == 1  # too soon
    assert rows([*kept[:1], row(11, 0.7), kept[1]]) == 3  # but a validation is told at once
    now[0] += journal.EVERY
    assert rows([*kept[:2], row(21, 0.4), row(22, 0.4)]) == 4
    assert journal_of(tmp_path / "a.b.tlm") == tmp_path / "a.b.training"
