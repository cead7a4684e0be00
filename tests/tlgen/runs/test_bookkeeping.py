"""What a run keeps in the corpus beside the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalogs.corpus import failures
from catalogs.corpus.catalog import Catalog
from catalogs.schema import ClassInfo
from tlgen.commands.listing import failed_items
from tlgen.runs import bookkeeping
from tlgen.runs.bookkeeping import Bookkeeping
from tlrun.fan_out import Failure

FAILURE = Failure(
    "00ff", "ChildDied: it was ended by SIGSEGV", "Traceback ...", "simulate_tilt", 3,
    ("ChildDied: ...",) * 3, "node7", "Fatal Python error: Segmentation fault",
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Catalog:
    classes = [ClassInfo(name="ribosome", label=1, radius=108)]
    return Catalog.create(tmp_path / "corpus", classes=classes, recipe={}, name="demo")


def test_why_a_sample_failed_is_kept_until_it_is_made(corpus: Catalog) -> None:
    with Bookkeeping(corpus.url) as book:
        book.failed(FAILURE, "train-007")
    assert list(failed_items(corpus.url)) == [
        "00ff  train-007  simulate_tilt, 3 attempts on node7: ChildDied: it was ended by SIGSEGV",
        "1 failed",
    ]
    [text] = failed_items(corpus.url, as_json=True)
    content = json.loads(text)
    assert content["log"] == "Fatal Python error: Segmentation fault"
    assert len(content["causes"]) == 3
    assert content["when"].endswith("+00:00")
    assert corpus.verify() == []

    with Bookkeeping(corpus.url) as book:  # the next run
        book.made("another")
        book.made("00ff")
    assert failures.names(corpus.url) == set()
    assert list(failed_items(corpus.url)) == ["0 failed"]


def test_storage_that_refuses_to_forget_stops_nothing(
    corpus: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bookkeeping(corpus.url) as book:
        book.failed(FAILURE, "train-007")
    original, refused = failures.forget, [1]

    def forget(url: str, items: Any) -> None:
        if refused:
            refused.pop()
            raise OSError("503")
        original(url, items)

    monkeypatch.setattr(failures, "forget", forget)
    with Bookkeeping(corpus.url) as book:
        book.made("00ff")
        assert not refused
        assert failures.names(corpus.url) == {"00ff"}
    assert failures.names(corpus.url) == set()  # at the end it was tried again


def test_half_a_note_is_left_out(corpus: Catalog) -> None:
    failures.note(corpus.url, "aa", {"id": "aa"})
    (Path(corpus.url) / "failures" / "bb.json").write_text('{"id": "b')
    assert [content["id"] for content in failures.read(corpus.url)] == ["aa"]
    assert failures.names(corpus.url) == {"aa", "bb"}


def test_the_index_is_written_on_the_way_and_a_run_does_not_depend_on_it(
    corpus: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def compact(self: Catalog) -> int:
        written.append(self.url)
        if len(written) == 2:
            raise OSError("no space")
        return 0

    monkeypatch.setattr(Catalog, "compact", compact)
    monkeypatch.setattr(bookkeeping, "SAMPLES", 2)
    with Bookkeeping(corpus.url) as book:
        book.made("a")
        assert not written
        book.made("b")
        assert book._writing is not None
        book._writing.result(60)
        assert len(written) == 1
    assert len(written) == 2
    assert "the index could not be written (no space)" in book.complaint
    with pytest.raises(KeyboardInterrupt), Bookkeeping(corpus.url):
        raise KeyboardInterrupt
    assert len(written) == 2  # twice Ctrl-C stops at once
