"""Copies between stores: whole samples or none, interrupted or not, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.storage.store import Store

MakeSample = Callable[..., Sample]


@pytest.fixture
def three(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    for k in range(3):
        corpus.write(make_sample(k, shape=(9, 14, 11), dose=80.0 + 20 * k))
    corpus.put_molecule("abcd", {"x": np.arange(9)})
    return corpus


def test_to_another_store_and_back(three: Catalog, tmp_path: Path) -> None:
    there, back = f"memory://{uuid4().hex}/c", tmp_path / "back"
    seen: list[tuple[int, int]] = []
    done = three.copy_to(there, on_progress=lambda n, total, _: seen.append((n, total)))
    assert (len(done.copied), done.present, done.failed) == (3, (), {})
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert done.n_bytes == sum(record.n_bytes for record in three.records())
    Catalog.open(there).copy_to(back)
    copy = Catalog.open(back)
    assert copy.records() == three.records()
    assert copy.verify() == []
    assert copy.get_molecule("abcd")["x"].tolist() == list(range(9))
    pd.testing.assert_frame_equal(copy.samples.drop(columns="path"), three.samples.drop(columns="path"))
    again = three.copy_to(back)
    assert (again.copied, len(again.present), again.n_bytes) == ((), 3, 0)


def test_some_then_all(three: Catalog, tmp_path: Path) -> None:
    assert len(three.copy_to(tmp_path / "copy", "dose < 90").copied) == 1
    done = three.copy_to(tmp_path / "copy")
    assert (len(done.copied), len(done.present)) == (2, 1)
    assert len(Catalog.open(tmp_path / "copy").records()) == 3


def test_damaged_samples_stay_behind(three: Catalog, tmp_path: Path) -> None:
    records = three.records()
    shard = Path(three.sample_url(records[0].sample_id)) / "0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(bytes(data))
    (Path(three.sample_url(records[1].sample_id)) / "zarr.json").unlink()
    done = three.copy_to(tmp_path / "copy")
    assert done.copied == (records[2].sample_id,)
    assert done.failed[records[0].sample_id] == f"{shard} has changed since it was written"
    assert "zarr.json is missing" in done.failed[records[1].sample_id]
    assert Catalog.open(tmp_path / "copy").verify() == []


KILLED = """
import os, signal, sys
from catalogs.corpus.catalog import Catalog
from catalogs.storage.store import Store
left = int(sys.argv[3])
write = Store._write_one
def count(self, item):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, item)
Store._write_one = count
Catalog.open(sys.argv[1]).copy_to(sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_copy_goes_on(three: Catalog, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    command = [sys.executable, "-c", KILLED, three.url, str(target), "60"]
    assert subprocess.run(command, timeout=120, check=False, env=os.environ).returncode == -signal.SIGKILL
    begun = Catalog.open(target)
    whole = begun.sample_ids()
    assert len(whole) < 3
    assert all(problem.kind == "orphan" for problem in begun.problems())
    done = three.copy_to(target)
    assert len(done.copied) + len(done.present) == 3
    assert Catalog.open(target).verify() == []  # what was left behind has been written over


def test_made_there_meanwhile(
    three: Catalog, make_sample: MakeSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Catalog.create(tmp_path / "copy", classes=three.classes, recipe={}, name="other")
    create = Store.create

    def late(store: Store, key: str, data: bytes) -> bool:
        if key.startswith("commits") and store.url == target.url and not target.has(f"{0:016x}"):
            monkeypatch.undo()
            target.write(make_sample(0, shape=(9, 14, 11), dose=80.0))
        return create(store, key, data)

    monkeypatch.setattr(Store, "create", late)
    three.copy_to(target.url, "dose < 90")
    assert len(target.records()) == 1
    assert target.verify() == []


def test_refusals(three: Catalog, tmp_path: Path, classes: list[ClassInfo]) -> None:
    with pytest.raises(InputError, match="cannot be copied to itself"):
        three.copy_to(three.url)
    Catalog.create(tmp_path / "other", classes=classes[:1], recipe={}, name="other")
    with pytest.raises(InputError, match="has other classes"):
        three.copy_to(tmp_path / "other")
    with pytest.raises(InputError, match="which is not a column of the corpus"):
        three.copy_to(tmp_path / "new", "doze < 3")
    assert not (tmp_path / "new").exists()


def test_one_corpus_in_the_other(three: Catalog, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(three.url)
    for place in (
        f"{three.url}/inner",
        f"{three.url}/../{Path(three.url).name}/samples/inner",
        link / "inner",
        Path(three.url).parent,
    ):
        with pytest.raises(InputError, match="lie inside each other"):
            three.copy_to(place)
    with pytest.raises(InputError, match="cannot be copied to itself"):
        three.copy_to(link)
    assert three.verify() == []
    assert not (Path(three.url) / "inner").exists()
