"""The small picture of each sample."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalogs.corpus import commit, thumbnail
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.storage.checksums import checksums_of

MakeSample = Callable[..., Sample]
BEFORE = Path(__file__).parents[2] / "data" / "corpus-before.zip"


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def test_it_shows_the_middle_of_the_tomogram(corpus: Catalog, make_sample: MakeSample) -> None:
    sample = make_sample(0, shape=(21, 300, 200))
    sample.tomogram[8:13, :150] -= 6
    record = corpus.write(sample)
    picture = opened(corpus.thumbnail(record.sample_id))
    assert picture.shape == (128, 85)
    assert picture[:64].mean() + 50 < picture[65:].mean()


def test_it_is_an_object_of_the_sample_that_changes_no_other(
    corpus: Catalog, make_sample: MakeSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checksums(catalog: Catalog) -> dict[str, str]:
        return checksums_of(catalog._store, catalog.records()[0])

    corpus.write(make_sample(0))
    drawn = thumbnail.draw
    monkeypatch.setattr(commit.thumbnail, "draw", lambda *_: b"another picture")
    other = Catalog.create(tmp_path / "other", classes=corpus.classes, recipe={"seed": 1}, name="demo")
    other.write(make_sample(0))
    assert other.sample_ids() == corpus.sample_ids()
    ours, theirs = checksums(corpus), checksums(other)
    different = {key for key in ours if ours[key] != theirs.get(key)}
    assert different == {"0/thumbnail.png", "zarr.json"}  # the root lists all checksums
    assert drawn(make_sample(0).tomogram).startswith(b"\x89PNG")


def test_verify_repair_and_copy_know_it(corpus: Catalog, make_sample: MakeSample, tmp_path: Path) -> None:
    record = corpus.write(make_sample(0))
    assert corpus.verify() == []
    corpus.copy_to(tmp_path / "copy")
    copy = Catalog.open(tmp_path / "copy")
    assert copy.verify() == []
    assert copy.thumbnail(record.sample_id) == corpus.thumbnail(record.sample_id)
    file = Path(copy.sample_url(record.sample_id)) / "0/thumbnail.png"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    [problem] = copy.verify()
    assert "thumbnail.png has changed" in problem
    copy.repair(copy.plan_repair(grace=0))
    assert copy.sample_ids() == []


def test_older_samples_have_it_drawn_on_demand(tmp_path: Path) -> None:
    with zipfile.ZipFile(BEFORE) as archive:
        archive.extractall(tmp_path)
    corpus = Catalog.open(tmp_path / "corpus")
    [sample_id] = corpus.sample_ids()
    picture = corpus.thumbnail(sample_id)
    expected = thumbnail.draw(corpus.arrays(sample_id)["tomogram"][...])
    assert picture == expected
    assert opened(picture).std() > 10
    assert corpus.verify() == []  # nothing was written


def test_a_lost_one_is_a_fault(corpus: Catalog, make_sample: MakeSample) -> None:
    record = corpus.write(make_sample(0))
    (Path(corpus.sample_url(record.sample_id)) / "0/thumbnail.png").unlink()
    with pytest.raises(InputError, match="is damaged"):
        corpus.thumbnail(record.sample_id)
