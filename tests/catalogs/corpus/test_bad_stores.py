"""Storage that loses, lists late, breaks off, or knows nobody: a sentence, and never wrong data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.storage.store import open_store
from catalogs.volumes import open_volume, write_mrc, write_ome_zarr

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

MakeSample = Callable[..., Sample]


@pytest.fixture
def through(
    bucket: str, server: str, bad_storage: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, str]]:
    """Reach the bucket through a storage that misbehaves from now on."""
    from fsspec.config import conf

    def reach(trouble: str, every: float = 1) -> tuple[Any, str]:
        bad = bad_storage(server, trouble, every)
        monkeypatch.setitem(conf, "s3", {"key": "test", "secret": "test", "endpoint_url": bad.url})
        return bad, bucket

    return reach


def test_a_storage_that_loses_what_it_was_given(
    through: Any, classes: list[ClassInfo], make_sample: MakeSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogs.corpus import commit

    monkeypatch.setattr(commit, "_WAITS", (0.01,))
    corpus = Catalog.create(f"{through('none')[1]}/c", classes=classes, recipe={}, name="demo")
    bad, url = through("loses", 7)
    with pytest.raises(InputError, match=r"is damaged \(\d+ objects of \d+"):
        Catalog.open(corpus.url).write(make_sample(0))
    assert bad.counts["trouble"] >= 1
    through("none")
    assert Catalog.open(f"{url}/c").records() == []
    assert open_store(f"{url}/c").sizes("samples") == {}  # nothing half is left
    record = Catalog.open(f"{url}/c").write(make_sample(0))
    assert Catalog.open(f"{url}/c").records() == [record]
    assert Catalog.open(f"{url}/c").verify() == []


def test_a_storage_that_lists_late(through: Any, classes: list[ClassInfo], make_sample: MakeSample) -> None:
    bad, url = through("late", 1.5)
    corpus = Catalog.create(f"{url}/c", classes=classes, recipe={}, name="demo")
    record = corpus.write(make_sample(0))
    assert bad.counts["trouble"] > 0
    assert corpus.write(make_sample(0)) == record
    through("none")
    assert Catalog.open(f"{url}/c").records() == [record]
    assert Catalog.open(f"{url}/c").verify() == []


@pytest.mark.parametrize("every", [1, 3])
def test_a_storage_that_breaks_off(
    through: Any, classes: list[ClassInfo], make_sample: MakeSample, tmp_path: Path, every: int
) -> None:
    """What is read is right, after another try, or there is an error; it is never short."""
    url = through("none")[1]
    sample = make_sample(0)
    corpus = Catalog.create(f"{url}/c", classes=classes, recipe={}, name="demo")
    record = corpus.write(sample)
    data = np.random.default_rng(0).normal(size=(9, 20, 30)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", data, 10.0)
    open_store(url).write({"a.mrc": (tmp_path / "a.mrc").read_bytes()})
    bad, _ = through("short", every)
    right = 0
    for read, expected in (
        (lambda: open_volume(f"{url}/a.mrc").read(), data),
        (lambda: open_volume(f"{url}/a.mrc").data[2:5, 3:, 7:9], data[2:5, 3:, 7:9]),
        (lambda: Catalog.open(f"{url}/c").arrays(record.sample_id)["classes"][...], sample.classes),
    ):
        try:
            found = read()
        except (InputError, OSError, ValueError):
            continue
        right += 1
        np.testing.assert_array_equal(found, expected)
    assert bad.counts["trouble"] > 0
    assert right == 0 or every > 1  # if it always breaks off, nothing can be read


def test_wrong_credentials(
    through: Any, classes: list[ClassInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = through("forbidden")
    says = r"No such key id|Forbidden|Access Denied|InvalidAccessKeyId"
    with pytest.raises(InputError, match=rf"no corpus can be written at {url}/c .*({says})"):
        Catalog.create(f"{url}/c", classes=classes, recipe={}, name="demo")
    for look in (Catalog.open, Catalog.exists, open_volume):
        with pytest.raises(InputError, match=rf"{url}/c.mrc.* cannot be read .*({says})"):
            look(f"{url}/c.mrc")
    from tlgen.cli import tlgen

    for command in (["ls", f"{url}/c"], ["verify", f"{url}/c"], ["copy", f"{url}/c", str(tmp_path / "copy")]):
        ended = CliRunner().invoke(tlgen, command)
        assert isinstance(ended.exception, InputError), (command, ended.output, ended.exception)
        assert re.search(says, str(ended.exception))
    assert not (tmp_path / "copy").exists()


# -------------------------------------------------------------------------------------------- on a disk


def written(folder: Path, kind: str, data: np.ndarray[Any, Any]) -> tuple[Path, Path]:
    """Write a volume; return it and the file of it that is cut."""
    if kind == "mrc":
        write_mrc(folder / "a.mrc", data, 10.0)
        return folder / "a.mrc", folder / "a.mrc"
    if kind in ("h5", "h5.gz"):
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("dataset", data=data, compression="gzip" if kind == "h5.gz" else None)
        return folder / "a.h5", folder / "a.h5"
    if kind.startswith("tif"):
        import tifffile

        how = "zlib" if kind == "tif.zlib" else None
        tifffile.imwrite(folder / "a.tif", data, compression=how, photometric="minisblack")
        return folder / "a.tif", folder / "a.tif"
    if kind == "ome":
        write_ome_zarr(folder / "a.zarr", data, 10.0)
    else:
        packer = {"zarr": zarr.codecs.ZstdCodec(), "blosc": zarr.codecs.BloscCodec(), "none": None}[kind]
        array = zarr.create_array(
            folder / "a.zarr", shape=data.shape, chunks=(32, 32, 32), dtype="f4", compressors=packer
        )
        array[:] = data
    chunks = [file for file in (folder / "a.zarr").rglob("*") if file.is_file() and "c" in file.parts]
    return folder / "a.zarr", max(chunks, key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["mrc", "h5", "h5.gz", "tif", "tif.zlib", "zarr", "blosc", "none", "ome"])
def test_a_file_that_is_cut_off_after_it_was_opened(tmp_path: Path, kind: str, share: float) -> None:
    """As when it is copied anew meanwhile: an error, and never zeros or the process' death."""
    data = np.random.default_rng(3).normal(size=(32, 32, 32)).astype(np.float32)
    path, part = written(tmp_path, kind, data)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), data)
    content = part.read_bytes()
    part.write_bytes(content[: int(len(content) * share)])
    with pytest.raises((InputError, OSError, ValueError, RuntimeError)):
        volume.read()
