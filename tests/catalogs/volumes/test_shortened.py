"""Files that another program cuts off while they are read: one sentence, no zeros, no killed process."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.seeds import generator
from catalogs.volumes import Volume, open_volume, write_mrc, write_ome_zarr

SHAPE = (12, 20, 28)
WHOLE = (slice(None), slice(None), slice(None))
PART = (slice(3, 11), slice(2, 17), slice(5, 21))
SHORTER = "became shorter while it was read"
Write = Callable[[Path, NDArray[Any]], object]


def values(dtype: str = "float32", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    return generator("shortened").integers(1, 100, shape).astype(dtype)


def _packed(path: Path, data: NDArray[Any], pack: Callable[[bytes], bytes]) -> None:
    plain = path.with_name("plain.mrc")
    write_mrc(plain, data, 10.0)
    path.write_bytes(pack(plain.read_bytes()))


def _halves(path: Path, data: NDArray[Any]) -> None:
    write_mrc(path, np.zeros((SHAPE[0], SHAPE[1], SHAPE[2] // 2), np.int8), 10.0)
    raw = bytearray(path.read_bytes())
    raw[0:4], raw[12:16] = SHAPE[2].to_bytes(4, "little"), (101).to_bytes(4, "little")
    path.write_bytes(raw)


def _em(path: Path, data: NDArray[Any]) -> None:
    head = np.zeros(128, "<i4")
    head.view("u1")[:4] = 6, 0, 0, 5
    head[1:4] = data.shape[::-1]
    path.write_bytes(head.tobytes() + data.astype("<f4").tobytes())


def _hdf5(path: Path, data: NDArray[Any], **how: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", data=data, **how)


def _images(path: Path, data: NDArray[Any]) -> None:
    with h5py.File(path, "w") as file:
        for k, plane in enumerate(data):
            file[f"MDF/images/{k}/image"] = plane


FILES: dict[str, tuple[str, Write]] = {
    "MRC": ("a.mrc", lambda path, data: write_mrc(path, data, 10.0)),
    "MRC of half floats": ("a.mrc", lambda path, data: write_mrc(path, data.astype(np.float16), 10.0)),
    "MRC of 4 bits": ("a.mrc", _halves),
    "EM": ("a.em", _em),
    "TIFF": ("a.tif", lambda path, data: tifffile.imwrite(path, data)),
    "TIFF in strips": ("a.tif", lambda path, data: tifffile.imwrite(path, data, rowsperstrip=3)),
    "TIFF of zlib": ("a.tif", lambda path, data: tifffile.imwrite(path, data, compression="zlib")),
    "HDF5": ("a.h5", _hdf5),
    "HDF5 in chunks": ("a.h5", lambda path, data: _hdf5(path, data, chunks=(4, 10, 14))),
    "HDF5 of deflate": ("a.h5", lambda path, data: _hdf5(path, data, chunks=(4, 10, 14), compression=4)),
    "HDF5 of LZF": ("a.h5", lambda path, data: _hdf5(path, data, chunks=(4, 10, 14), compression="lzf")),
    "HDF5 of images": ("a.hdf", _images),
}


def _read(volume: Volume, box: tuple[slice, ...] = WHOLE) -> tuple[NDArray[Any] | None, str]:
    """Return the voxels, or why there are none."""
    try:
        return volume.read(box), ""
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("box", [WHOLE, PART])
def test_files_that_become_shorter(tmp_path: Path, kind: str, box: tuple[slice, ...]) -> None:
    name, write = FILES[kind]
    file = tmp_path / name
    write(file, values())
    size = file.stat().st_size
    before = open_volume(file).read(box)
    if "4 bits" not in kind:
        np.testing.assert_array_equal(before, values()[box])
    for left in (0, 7, 600, 1500, size // 2, size - SHAPE[1] * SHAPE[2] * 4, size - 1):
        volume = open_volume(file)
        kept = file.read_bytes()
        os.truncate(file, left)
        read, told = _read(volume, box)
        assert (SHORTER in told and name in told) or read is not None
        if read is not None:  # its voxels are still there
            assert left > size // 2
            np.testing.assert_array_equal(read, before)
        file.write_bytes(kept)


@pytest.mark.parametrize(("name", "pack"), [("a.mrc.gz", gzip.compress), ("a.mrc.bz2", bz2.compress)])
def test_packed_files_that_become_shorter(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    for k, share in enumerate((0.1, 0.5, 0.99)):  # an unpacked file is kept as long as the process runs
        file = tmp_path / f"{k}-{name}"
        _packed(file, values(), pack)
        content = file.read_bytes()
        volume = open_volume(file)
        file.write_bytes(content[: int(len(content) * share)])
        read, told = _read(volume)
        assert read is not None or "is cut off or damaged" in told
        if read is not None:
            assert name.endswith("bz2")  # which was unpacked when it was opened
            np.testing.assert_array_equal(read, values())


def _zarr(version: int, packer: Any, shards: tuple[int, ...] | None = None) -> Write:
    def write(path: Path, data: NDArray[Any]) -> None:
        if version == 2:
            array = zarr.create_array(
                path, shape=SHAPE, dtype=data.dtype, chunks=(4, 10, 14), zarr_format=2, compressors=packer
            )
        else:
            array = zarr.create_array(
                path, shape=SHAPE, dtype=data.dtype, chunks=(4, 10, 14), compressors=packer, shards=shards
            )
        array[...] = data

    return write


def _numcodec(name: str) -> Any:
    import numcodecs

    found = {"blosc": numcodecs.Blosc, "zstd": numcodecs.Zstd, "gzip": numcodecs.GZip, "lz4": numcodecs.LZ4}
    return found[name]()


def _codec(name: str) -> Any:
    from zarr import codecs

    return {"blosc": codecs.BloscCodec(), "zstd": codecs.ZstdCodec(), "gzip": codecs.GzipCodec()}[name]


FOLDERS: dict[str, Write] = {
    "2, raw": _zarr(2, None),
    **{f"2, {name}": _zarr(2, _numcodec(name)) for name in ("blosc", "zstd", "gzip", "lz4")},
    "3, raw": _zarr(3, None),
    **{f"3, {name}": _zarr(3, _codec(name)) for name in ("blosc", "zstd", "gzip")},
    "3, shards": _zarr(3, _codec("zstd"), (8, 20, 28)),
    "3, raw shards": _zarr(3, None, (8, 20, 28)),
    "OME": lambda path, data: write_ome_zarr(path, data, 10.0),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_chunks_that_become_shorter(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a.zarr"
    FOLDERS[kind](folder, values())
    np.testing.assert_array_equal(open_volume(folder).read(), values())
    metadata = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    chunks = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in metadata]
    for chunk in (chunks[0], chunks[-1]):
        kept = chunk.read_bytes()
        for left in (0, 1, 7, 15, len(kept) // 2, len(kept) - 1):
            volume = open_volume(folder)
            os.truncate(chunk, left)
            if "OME" in kind and _finest(folder) not in chunk.parents:
                continue
            with pytest.raises(InputError, match=r"cut off|damaged|cannot be read") as told:
                volume.read()
            assert "\n" not in str(told.value)
        chunk.write_bytes(kept)
    np.testing.assert_array_equal(open_volume(folder).read(), values())


def _finest(folder: Path) -> Path:
    attributes: Any = dict(zarr.open_group(folder, mode="r").attrs)
    path: str = attributes["ome"]["multiscales"][0]["datasets"][0]["path"]
    return folder / path


def test_a_zip_that_becomes_shorter(tmp_path: Path) -> None:
    _zarr(3, None)(tmp_path / "a.zarr", values())
    file = Path(shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path, "a.zarr"))
    size = file.stat().st_size
    for left in (0, size // 3, size - 200):
        content = file.read_bytes()
        volume = open_volume(file)
        volume.data[0, 0, 0]  # its list of files is read
        os.truncate(file, left)
        read, told = _read(volume)
        assert read is not None or "a.zarr.zip" in told
        if read is not None:
            assert left > size // 2
            np.testing.assert_array_equal(read, values())
        file.write_bytes(content)


def test_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mrc"
    write_mrc(file, values(), 10.0)
    plain, reads = os.preadv, []

    def cutting(*given: Any) -> int:
        reads.append(given)
        if len(reads) == 3:
            os.truncate(file, 2000)
        return plain(*given)

    volume = open_volume(file)
    monkeypatch.setattr(os, "preadv", cutting)
    with pytest.raises(InputError, match=rf"a\.mrc {SHORTER}: another program writes to it"):
        volume.read(PART)


@pytest.mark.parametrize("kind", ["HDF5 in chunks", "TIFF of zlib"])
def test_after_the_library_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """HDF5 and tifffile give zeros for what lies beyond the end."""
    name, write = FILES[kind]
    file = tmp_path / name
    write(file, values())
    volume: Volume = open_volume(file)
    size = file.stat().st_size
    library: Any = h5py.Dataset if "HDF5" in kind else tifffile.TiffPage
    method = "__getitem__" if "HDF5" in kind else "asarray"
    plain = getattr(library, method)

    def cutting(*given: Any, **named: Any) -> Any:
        os.truncate(file, size // 2)
        return plain(*given, **named)

    monkeypatch.setattr(library, method, cutting)
    with pytest.raises(InputError, match=SHORTER):
        volume.read()


def test_any_box_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.volumes.source._PIECE", 300)  # two rows at a time
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(values("int16"))
    volume = open_volume(tmp_path / "a.mrc")
    rng = generator("boxes")
    for _ in range(300):
        ends = [np.sort(rng.integers(0, n + 1, 2)) for n in SHAPE]
        box = tuple(slice(int(a), int(b)) for a, b in ends)
        np.testing.assert_array_equal(volume.data[box], values("int16")[box])
