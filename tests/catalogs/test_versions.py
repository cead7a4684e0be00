"""What older programs wrote is read; what newer ones wrote is refused in words; fixture: format version 1."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, Acquisition, ClassInfo
from catalogs.versions import NewerFormat, parse_record

MakeSample = Callable[..., Sample]
SHAPE = (9, 14, 11)


@pytest.fixture
def old(tmp_path: Path) -> Catalog:
    """Two samples that the program wrote when the format had version 1."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "corpus-v1.zip") as packed:
        packed.extractall(tmp_path / "old")
    return Catalog.open(tmp_path / "old")


def test_version_1_is_read(old: Catalog, make_sample: MakeSample, classes: list[ClassInfo]) -> None:
    assert old.info["format_version"] == 1
    assert old.classes == classes
    assert old.samples["dose"].tolist() == [80.0, 100.0]
    for k, record in enumerate(old.records()):
        sample = make_sample(k, shape=SHAPE, dose=80.0 + 20 * k, defocus=2.0 + k)
        assert record.acquisition == sample.facts["acquisition"]
        assert (record.format_version, record.n_objects) == (1, len(record.checksums))
        arrays = old.arrays(record.sample_id)
        np.testing.assert_allclose(arrays["tomogram"][...], sample.tomogram, rtol=2**-11)
        np.testing.assert_array_equal(arrays["instances"][...], sample.instances)
        pd.testing.assert_frame_equal(old.particles(record.sample_id), sample.particles)
        np.testing.assert_allclose(
            old.tilts(record.sample_id)["images"].values, sample.tilt_images, rtol=2**-11
        )
        assert old.provenance(record.sample_id)["seed"] == k
    assert old.get_molecule("abcd")["x"].tolist() == [0, 1, 2]
    assert old.verify() == []


def test_version_1_grows_and_is_indexed(old: Catalog, make_sample: MakeSample) -> None:
    record = old.write(make_sample(2, shape=SHAPE))
    assert record.format_version == FORMAT_VERSION
    assert old.compact() == 3
    fresh = Catalog.open(old.url)
    assert [r.format_version for r in fresh.records()] == [1, 1, 2]
    assert fresh.verify() == []
    # an old program writes into it without a word in recent/: a record is found all the same
    file = Path(old.url) / "commits/00" / f"{1:016x}.json"
    text = file.read_text().replace(f"{1:016x}", "00ffffffffffffff")
    (file.parent / "00ffffffffffffff.json").write_text(text)
    assert "00ffffffffffffff" in Catalog.open(old.url).sample_ids()


def test_version_1_is_copied_as_it_is(old: Catalog, tmp_path: Path) -> None:
    done = old.copy_to(tmp_path / "new")
    assert len(done.copied) == 2
    new = Catalog.open(tmp_path / "new")
    assert new.info["format_version"] == FORMAT_VERSION
    assert new.records() == old.records()
    assert new.verify() == []


def test_damage_in_version_1_is_found(old: Catalog) -> None:
    path = Path(old.sample_url(f"{1:016x}"))
    (path / "0/c/0/0/0").unlink()
    assert old.verify() == [f"{path}/0/c/0/0/0 is missing"]


def test_a_parameter_of_a_later_version_gets_its_default(corpus: Catalog, make_sample: MakeSample) -> None:
    record = corpus.write(make_sample(0, dose=60.0))
    file = Path(corpus.url) / f"commits/00/{record.sample_id}.json"
    content = json.loads(file.read_text())
    del content["acquisition"]["damage"]  # as if it had been written before there was this parameter
    file.write_text(json.dumps(content))
    read = Catalog.open(corpus.url).record(record.sample_id)
    assert read is not None
    assert read.acquisition == Acquisition(dose=60.0)


def test_newer_records_are_refused_in_words(corpus: Catalog, make_sample: MakeSample) -> None:
    for k in range(3):
        corpus.write(make_sample(k))
    assert corpus.compact() == 3

    def from_the_future(k: int) -> str:
        file = Path(corpus.url) / f"commits/00/{k:016x}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99, "new": "word"}))
        (Path(corpus.url) / f"recent/{k:016x}-ffffff").write_text("x")
        return str(file)

    file = from_the_future(0)
    fresh = Catalog.open(corpus.url)
    with pytest.raises(NewerFormat, match=rf"{file} has format version 99.*update this program"):
        fresh.records()
    from_the_future(1)
    with pytest.raises(NewerFormat, match=r"2 samples are of a newer format, for example: .*version 99"):
        _ = fresh.samples
    assert fresh.record(f"{2:016x}") is not None  # the others can be read
    with pytest.raises(NewerFormat):
        fresh.arrays(f"{0:016x}")
    problems = list(fresh.problems())
    assert [p.kind for p in problems] == ["newer", "newer"]
    todo = fresh.plan_repair(grace=-1)
    assert len(todo.newer) == 2
    assert (todo.remake, todo.groups, todo.objects) == ({}, (), ())  # never touches what it cannot read


def test_no_record_at_all() -> None:
    for text in (
        "{",
        "[]",
        "{}",
        '{"format_version": 2}',
        '{"format_version": "x"}',
        '{"format_version": 1}',
    ):
        with pytest.raises(InputError, match="here is not the record of a sample; tlgen repair"):
            parse_record(text, "here")
