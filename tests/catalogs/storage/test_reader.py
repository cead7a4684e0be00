"""Slices mean the same through TensorStore, through Zarr and to NumPy."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import CRC32C, Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from catalogs.errors import InputError
from catalogs.storage import reader
from catalogs.storage.reader import StoredArray, _box, _place

SHAPE = (5, 70, 6)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[zarr.Array[Any], np.ndarray[Any, Any], str]:
    path = tmp_path_factory.mktemp("array") / "a"
    data = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
    array = zarr.create_array(
        path, shape=SHAPE, dtype=data.dtype, chunks=(2, 32, 4), shards=(6, 96, 8), dimension_names="zyx"
    )
    array[...] = data
    return array, data, str(path)


index = st.one_of(
    st.integers(-5, 4),
    st.just(Ellipsis),
    st.builds(slice, *[st.one_of(st.none(), st.integers(-80, 80))] * 2),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(index, max_size=3).filter(lambda words: words.count(Ellipsis) < 2))
def test_slices(stored: Any, where: list[Any]) -> None:
    _, data, path = stored
    pytest.importorskip("tensorstore", reason="the extra fast is not installed")
    array = StoredArray(zarr.open_array(path, mode="r"), path)
    assert array._fast is not None
    try:
        expected = data[tuple(where)]
    except IndexError:
        with pytest.raises((IndexError, zarr.errors.BoundsCheckError)):
            array[tuple(where)]
        return
    np.testing.assert_array_equal(array[tuple(where)], expected)


def test_without_tensorstore_and_beyond_boxes(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr_array, data, path = stored
    monkeypatch.setattr(reader, "_place", lambda url: None)
    array = StoredArray(zarr_array, path)
    assert array._fast is None
    np.testing.assert_array_equal(array[1:3, -4:, ...], data[1:3, -4:])
    np.testing.assert_array_equal(array[::2], data[::2])
    assert (array.shape, array.dtype, array.chunks, array.shards) == (SHAPE, "uint16", (2, 32, 4), (6, 96, 8))
    np.testing.assert_array_equal(np.asarray(array), data)
    assert _box((slice(None, None, 2),), SHAPE) is None
    assert _box(([1, 2],), SHAPE) is None


def test_where_tensorstore_may_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore", reason="the extra fast is not installed")
    from fsspec.config import conf

    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(conf, "s3", {})
    assert _place(str(tmp_path)) == {"driver": "file", "path": f"{tmp_path}/"}
    assert _place("s3://lab/corpus/0") == {"driver": "s3", "bucket": "lab", "path": "corpus/0/"}
    assert _place("memory://a/b") is None
    assert _place("gs://a/b") is None
    monkeypatch.setitem(conf, "s3", {"endpoint_url": "http://here:1"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    place = _place("s3://lab/c")
    assert place is not None
    assert place["endpoint"] == "http://here:1"
    assert place["aws_credentials"] == {"type": "environment"}
    for theirs in ({"key": "k", "secret": "s"}, {"anon": True}, {"client_kwargs": {"verify": False}}):
        monkeypatch.setitem(conf, "s3", theirs)
        assert _place("s3://lab/c") is None  # it would not find these credentials


@pytest.mark.parametrize("shards", [None, (16, 16, 16)])
@pytest.mark.parametrize("packer", [BloscCodec(), ZstdCodec(), GzipCodec()])
def test_tensorstore_unpacks_no_more_than_a_chunk(tmp_path: Path, shards: Any, packer: Any) -> None:
    """One chunk of 2 kB that says it is 256 MB: refused or stopped; the chunks beside it are read."""
    pytest.importorskip("tensorstore", reason="the extra fast is not installed")
    huge = 256 << 20
    path = tmp_path / "a"
    array = zarr.create_array(
        path, shape=(16, 16, 16), chunks=(8, 8, 8), shards=shards, dtype="f4", compressors=packer
    )
    data = np.random.default_rng(0).normal(size=(16, 16, 16)).astype("f4")
    array[...] = data
    codec = {"BloscCodec": Blosc("zstd"), "ZstdCodec": Zstd(), "GzipCodec": GZip()}[type(packer).__name__]
    bomb = bytes(codec.encode(np.zeros(huge, np.uint8)))
    first = path / "c/0/0/0"
    if shards is None:
        first.write_bytes(bomb)
    else:
        content = first.read_bytes()
        index = np.frombuffer(content[-8 * 16 - 4 : -4], "<u8").copy()
        index[:2] = len(content), len(bomb)
        first.write_bytes(content + bomb + bytes(CRC32C(location="end").encode(index.tobytes())))
    stored = StoredArray(zarr.open_array(path, mode="r"), str(path))
    assert stored._fast is not None
    before = _peak()
    with pytest.raises((ValueError, InputError)):
        stored[0:4, 0:4, 0:4]
    with pytest.raises((ValueError, InputError)):
        stored[...]
    assert _peak() - before < huge / 4
    np.testing.assert_array_equal(stored[8:, 3:, 9:], data[8:, 3:, 9:])
    np.testing.assert_array_equal(stored[8:, 3, -1], data[8:, 3, -1])
    np.testing.assert_array_equal(stored[8:, 3, -1], data[8:, 3, -1])  # heads that were seen


def test_layouts_whose_heads_do_not_tell(tmp_path: Path) -> None:
    """Blosc below another compression is left to Zarr, whose chunks are bounded layer by layer."""
    pytest.importorskip("tensorstore", reason="the extra fast is not installed")
    data = np.arange(512, dtype="f4").reshape(8, 8, 8)
    array = zarr.create_array(
        tmp_path / "a", shape=(8, 8, 8), chunks=(8, 8, 8), dtype="f4", compressors=(BloscCodec(), ZstdCodec())
    )
    array[...] = data
    stored = StoredArray(zarr.open_array(tmp_path / "a", mode="r"), str(tmp_path / "a"))
    assert stored._fast is None
    np.testing.assert_array_equal(stored[...], data)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
