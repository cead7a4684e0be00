"""What verify finds, what repair does about it, and what it leaves alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalogs.corpus import index, verification
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.storage.store import Store

MakeSample = Callable[..., Sample]
DAY = 24 * 3600


@pytest.fixture
def four(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    for k in range(4):
        corpus.write(make_sample(k, shape=(9, 14, 11)))
    corpus.put_molecule("abcd", {"x": np.arange(50)})
    corpus.compact()
    return corpus


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for file in [folder, *folder.rglob("*")]:
        os.utime(file, (then, then))


def kinds(corpus: Catalog, *, deep: bool = True) -> list[str]:
    return [problem.kind for problem in corpus.problems(deep=deep)]


def test_a_whole_corpus_needs_nothing(four: Catalog) -> None:
    seen: list[tuple[int, int]] = []
    assert list(four.problems(on_progress=lambda done, total, _: seen.append((done, total)))) == []
    assert seen == [(k, 4) for k in range(1, 5)]
    todo = four.plan_repair()
    assert (todo.problems, todo.remake) == ((), {})
    four.repair(todo)
    assert len(four.records()) == 4
    assert four.verify() == []


def test_everything_at_once(four: Catalog, make_sample: MakeSample) -> None:
    root = Path(four.url)
    records = four.records()
    groups = [Path(four.sample_url(record.sample_id)) for record in records]
    (groups[0] / "tilts/images/c/0/0/0").unlink()  # a lost object
    shard = groups[1] / "0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[30] ^= 1
    shard.write_bytes(bytes(data))  # a flipped bit
    (root / f"commits/00/{records[2].sample_id}.json").write_text("{")  # a broken record
    (groups[3] / ".DS_Store").write_text("x")  # a stranger in a sample that is well
    abandoned = root / "samples/00/00000000000000aa-123456.zarr"
    (abandoned / "0").mkdir(parents=True)
    (abandoned / "0/zarr.json").write_text("{}")
    age(abandoned, 2 * DAY)
    young = root / "samples/11/11000000000000aa-123456.zarr"
    young.mkdir(parents=True)
    (young / "zarr.json").write_text("{}")
    left = root / "commits/00/.x.json.12345678"
    left.write_text("x")
    age(left, 2 * DAY)
    (root / "structures/abcd.npz").write_bytes(b"PK")

    todo = four.plan_repair()
    assert todo.remake == {
        records[0].sample_id: "demo-000",
        records[1].sample_id: "demo-001",
        records[2].sample_id: "",
    }
    assert set(todo.groups) == {
        "samples/00/00000000000000aa-123456.zarr",
        "commits/00/.x.json.12345678",
    }
    assert todo.young == ("samples/11/11000000000000aa-123456.zarr",)
    assert set(todo.objects) == {f"{records[3].path}/.DS_Store", "structures/abcd.npz"}
    assert abandoned.exists()  # so far it is a plan

    four.repair(todo)
    fresh = Catalog.open(four.url)
    assert fresh.records() == [records[3]]
    assert kinds(fresh) == ["orphan"]  # the young one
    assert not abandoned.exists()
    assert not left.exists()
    assert young.exists()
    assert not fresh.has_molecule("abcd")
    for k in range(3):
        fresh.write(make_sample(k, shape=(9, 14, 11)))
    assert len(Catalog.open(four.url).records()) == 4
    assert kinds(fresh) == ["orphan"]


def test_names_and_sizes_only(four: Catalog) -> None:
    groups = [Path(four.sample_url(record.sample_id)) for record in four.records()]
    flipped = groups[0] / "0/c/0/0/0"
    data = bytearray(flipped.read_bytes())
    data[30] ^= 1
    flipped.write_bytes(bytes(data))
    (groups[1] / "0/c/0/0/0").write_bytes(b"short")
    assert kinds(four) == ["sample", "sample"]
    assert kinds(four, deep=False) == ["sample"]


def test_a_changed_root_is_not_believed(four: Catalog) -> None:
    record = four.records()[0]
    root = Path(four.sample_url(record.sample_id)) / "zarr.json"
    content = json.loads(root.read_text())
    content["attributes"]["template_learning"]["checksums"]["0/c/0/0/0"] = "00"
    root.write_text(json.dumps(content))
    problems = list(four.problems())
    assert [p.kind for p in problems] == ["sample"]
    assert f"{root} has changed since it was written" in problems[0].text
    root.unlink()
    assert "zarr.json is missing" in four.verify()[0]


def test_a_lost_group(four: Catalog) -> None:
    import shutil

    record = four.records()[0]
    shutil.rmtree(four.sample_url(record.sample_id))
    assert four.verify() == [f"{four.sample_url(record.sample_id)} is missing"]
    assert list(four.plan_repair().remake) == [record.sample_id]


def test_the_index_against_the_records(four: Catalog, make_sample: MakeSample) -> None:
    records = four.records()
    commits = Path(four.url) / "commits/00"
    (commits / f"{records[0].sample_id}.json").unlink()  # by hand
    other = records[1].model_copy(update={"occupancy": 0.9})
    (commits / f"{records[1].sample_id}.json").write_text(other.model_dump_json())
    four.write(make_sample(9, shape=(9, 14, 11)))
    for file in (Path(four.url) / "recent").iterdir():
        file.unlink()  # by hand
    texts = {p.sample_id: p.text for p in four.problems() if p.kind == "index"}
    assert texts[records[0].sample_id].endswith("is in the index but does not exist")
    assert texts[records[1].sample_id].endswith("differs from the index")
    assert texts[f"{9:016x}"].endswith("is not in the index")
    todo = four.plan_repair(grace=0)
    four.repair(todo)
    fresh = Catalog.open(four.url)
    assert [r.sample_id for r in fresh.records()] == [*(r.sample_id for r in records[1:]), f"{9:016x}"]
    assert fresh.record(other.sample_id) == other
    assert fresh.verify() == []


def test_a_damaged_index_is_found_and_mended(four: Catalog) -> None:
    (Path(four.url) / "index/index-00000001.parquet").write_bytes(b"PAR1")
    assert kinds(four) == ["index"]
    four.repair(four.plan_repair())
    assert Catalog.open(four.url).verify() == []


def test_a_sample_that_appears_meanwhile_is_no_problem(
    four: Catalog, make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed after its folder has been listed, or after the last record was read."""
    unseen = [make_sample(k, shape=(9, 14, 11)) for k in (7, 8)]
    entries, look = Store.entries, index.find_samples

    def listing(store: Store, prefix: str) -> object:
        found = entries(store, prefix)
        if prefix == "samples/00" and len(unseen) == 2:
            four.write(unseen.pop())
        return found

    def looking(store: Store, *args: object, **words: object) -> object:
        if len(unseen) == 1:
            four.write(unseen.pop())
        return look(store, *args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "entries", listing)
    monkeypatch.setattr(verification.index, "find_samples", looking)
    assert kinds(four) == []
    assert unseen == []


def test_an_interrupted_repair_is_finished_by_the_next(
    four: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = four.records()[0]
    (Path(four.sample_url(record.sample_id)) / "0/c/0/0/0").unlink()
    todo = four.plan_repair()

    def stop(store: Store, prefix: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "remove", stop)
    with pytest.raises(KeyboardInterrupt):
        four.repair(todo)
    monkeypatch.undo()
    fresh = Catalog.open(four.url)
    assert record.sample_id not in fresh.sample_ids()
    fresh.repair(fresh.plan_repair(grace=-1))
    assert fresh.verify() == []
    assert len(fresh.records()) == 3
