"""A corpus under any path: relative, with ``..``, behind a link, with odd characters, moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.export import export
from catalogs.schema import ClassInfo
from catalogs.volumes import open_volume

MakeSample = Callable[..., Sample]
NAMES = [
    "plain",
    "a b",
    "100%",
    "%2e%2e",
    "Åkesson 蛋白",
    "quote's",
    'double"',
    "[x]*?",
    "#1",
    "a+b&c",
    "~x",
    "-f",
]


def whole(catalog: Catalog) -> bool:
    """Read a corpus in all the ways there are."""
    [sample_id] = catalog.sample_ids()
    arrays = catalog.arrays(sample_id)
    tomogram = arrays["tomogram"][...]
    np.testing.assert_array_equal(tomogram[3], arrays["tomogram"][3])
    for _, piece in arrays["classes"].pieces((0, 0, 0), (4, 4, 4)):
        assert piece.ndim == 3
    np.testing.assert_array_equal(open_volume(catalog.sample_url(sample_id)).read(), tomogram)
    assert len(catalog.particles(sample_id)) == 3
    assert catalog.open_sample(sample_id)["tomogram"].shape == tomogram.shape
    return catalog.verify() == []


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(
    tmp_path: Path,
    name: str,
    classes: list[ClassInfo],
    make_sample: MakeSample,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = Catalog.create(tmp_path / name / "corpus", classes=classes, recipe={}, name="demo")
    corpus.write(make_sample(0, shape=(9, 14, 11)))
    corpus.compact()
    assert whole(Catalog.open(tmp_path / name / "corpus"))
    monkeypatch.chdir(tmp_path / name)
    assert whole(Catalog.open("corpus"))
    (tmp_path / name / "inner").mkdir()
    monkeypatch.chdir("inner")
    assert whole(Catalog.open("../corpus"))
    assert not export("../corpus", "../out", "mrc").failed
    assert Catalog.open("../corpus").copy_to("../copy").failed == {}
    assert whole(Catalog.open(tmp_path / name / "copy"))


def test_links_home_and_elsewhere(
    tmp_path: Path, classes: list[ClassInfo], make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    corpus = Catalog.create("~/corpus", classes=classes, recipe={}, name="demo")
    corpus.write(make_sample(0, shape=(9, 14, 11)))
    assert (tmp_path / "home" / "corpus" / "corpus.json").exists()
    assert whole(Catalog.open("~/corpus"))
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(tmp_path / "home" / "corpus")
    assert whole(Catalog.open(deep / "link"))
    (tmp_path / "short").symlink_to(deep)
    (deep.parent / "corpus").symlink_to(tmp_path / "home" / "corpus")
    assert whole(Catalog.open(tmp_path / "short" / ".." / "corpus"))  # as the system reads it: deep/corpus
    shutil.move(tmp_path / "home" / "corpus", tmp_path / "moved")
    assert whole(Catalog.open(tmp_path / "moved"))


@pytest.mark.parametrize("name", ["thesis.txt", "data"])
def test_a_folder_with_other_files(tmp_path: Path, classes: list[ClassInfo], name: str) -> None:
    (tmp_path / "here" / name).mkdir(parents=True)
    with pytest.raises(
        InputError, match=rf"holds other files \({name}\) and no corpus; give an empty folder"
    ):
        Catalog.create(tmp_path / "here", classes=classes, recipe={}, name="demo")
    assert [path.name for path in (tmp_path / "here").iterdir()] == [name]


def test_what_an_interrupted_start_left_is_no_other_file(tmp_path: Path, classes: list[ClassInfo]) -> None:
    for name in ("probe-0123", ".probe-0123.x", ".nfs0001", "samples", "structures", ".corpus.json.12345678"):
        (tmp_path / "here" / name).mkdir(parents=True)
    Catalog.create(tmp_path / "here", classes=classes, recipe={}, name="demo")
