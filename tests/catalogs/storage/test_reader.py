"""Slices mean the same through TensorStore, through Zarr and to NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

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
