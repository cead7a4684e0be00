"""Volumes that somebody made to read other files, or to fill the memory or the disk."""

from __future__ import annotations

import gzip
import json
import lzma
import resource
import tempfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import zarr
from numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd

from catalogs.errors import InputError
from catalogs.storage.unpacking import zstd_size
from catalogs.volumes import open_volume

HUGE = 64 << 20


def peak() -> int:
    """Most memory that this process has held so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    "packer", [Blosc("lz4"), Blosc("zstd"), Zstd(), GZip(), Zlib(), BZ2(), LZMA(), LZ4()]
)
@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_is_no_larger_than_its_chunk(tmp_path: Path, packer: Any, version: int) -> None:
    codec: Any = packer
    if version == 3:
        names = {
            "blosc": zarr.codecs.BloscCodec(),
            "zstd": zarr.codecs.ZstdCodec(),
            "gzip": zarr.codecs.GzipCodec(),
        }
        if packer.codec_id not in names:
            pytest.skip("no codec of Zarr 3")
        codec = names[packer.codec_id]
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(16, 16, 16), chunks=(8, 8, 8), dtype="f4", compressors=codec,
        zarr_format=version,  # type: ignore[arg-type]
    )  # fmt: skip
    array[:] = np.arange(4096).reshape(16, 16, 16)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").read().ravel(), np.arange(4096))
    chunk = tmp_path / "a.zarr" / ("0.0.0" if version == 2 else "c/0/0/0")
    bomb = bytes(packer.encode(np.zeros(HUGE, np.uint8)))
    assert len(bomb) < HUGE / 50
    chunk.write_bytes(bomb)
    before = peak()
    with pytest.raises(InputError, match="a chunk would unpack to more than the 2048 bytes"):
        open_volume(tmp_path / "a.zarr").read()
    assert peak() - before < HUGE / 3


def test_chunks_in_shards(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(16, 16, 16), chunks=(8, 8, 8), shards=(16, 16, 16), dtype="f4",
        compressors=zarr.codecs.ZstdCodec(),
    )  # fmt: skip
    array[:] = 1
    bomb = bytes(Zstd().encode(np.zeros(HUGE, np.uint8)))
    index = np.full((8, 2), 2**64 - 1, "<u8")
    index[0] = 0, len(bomb)
    from numcodecs import CRC32C  # as the index of a shard is written

    (tmp_path / "a.zarr/c/0/0/0").write_bytes(bomb + bytes(CRC32C(location="end").encode(index.tobytes())))
    before = peak()
    with pytest.raises(InputError, match="a chunk would unpack to more"):
        open_volume(tmp_path / "a.zarr").read()
    assert peak() - before < HUGE / 3


@pytest.mark.parametrize("n", [1, 200, 300, 70_000, 5_000_000])
def test_what_a_frame_says_of_its_size(n: int) -> None:
    assert zstd_size(bytes(Zstd().encode(np.zeros(n, np.uint8)))[:18]) == n
    assert zstd_size(b"no frame") is None


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**9] * 3},
        {"shape": [0, 4, 4]},
        {"chunks": [0, 0, 0]},
        {"chunks": [10**6] * 3},
        {"chunks": [-1, 4, 4]},
    ],
)
def test_sizes_that_no_volume_has(tmp_path: Path, change: dict[str, Any]) -> None:
    zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="f4", zarr_format=2
    )[:] = 1  # fmt: skip
    file = tmp_path / "a.zarr/.zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr").read()


@pytest.mark.parametrize("name", [".zarray", "zarr.json"])
def test_metadata_without_end(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / name).write_bytes(b'{"a":' * 100_000)
    with pytest.raises(InputError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr")


def test_a_zipped_mrc_that_holds_more_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.ones((8, 8, 8), np.float32))
        file.voxel_size = 10.0
    whole = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress(whole))
    assert open_volume(tmp_path / "a.mrc.gz").read().sum() == 512
    (tmp_path / "b.mrc.gz").write_bytes(gzip.compress(whole + b"\0" * HUGE))
    # its end says what the header states: a second part follows
    (tmp_path / "c.mrc.gz").write_bytes(gzip.compress(b"\0" * HUGE) + gzip.compress(whole))
    (tmp_path / "d.mrc.gz").write_bytes(gzip.compress(whole + b"\0" * HUGE) + gzip.compress(whole))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("b", "c", "d"):
        with pytest.raises(InputError, match=rf"{name}\.mrc\.gz"):
            open_volume(tmp_path / f"{name}.mrc.gz").read()
    used = sum(file.stat().st_size for file in (tmp_path / "tmp").rglob("*") if file.is_file())
    assert used < 1 << 20


def test_hdf5_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dataset"] = np.ones((4, 4, 4), np.uint8)
    layout = h5py.VirtualLayout(shape=(4, 4, 4), dtype="u1")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "dataset", shape=(4, 4, 4))
    stored: dict[str, Any] = {
        "shape": (4, 4, 4),
        "dtype": "u1",
        "external": [(str(tmp_path / "secret"), 0, 64)],
    }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("dataset", **stored)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("somewhere/data", **stored)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["dataset"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/dataset")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_virtual_dataset("dataset", layout)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["MDF"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for k in range(4):
            file.create_dataset(f"MDF/images/{k}/image", **(stored | {"shape": (8, 8)}))
    for name in "abcdef":
        with pytest.raises(InputError, match=r"in (an)?other file"):
            open_volume(tmp_path / f"{name}.h5")
    assert open_volume(tmp_path / "other.h5").read().sum() == 64


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"fletcher32": True},
        {},
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "u1", "<f8"])
def test_hdf5_in_chunks(tmp_path: Path, how: dict[str, Any], dtype: str) -> None:
    """Every box of it is what HDF5 reads, chunks that were never written too."""
    data = np.random.default_rng(1).integers(0, 200, (7, 11, 13)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset(
            "dataset", shape=data.shape, dtype=dtype, chunks=(3, 4, 5), fillvalue=7, **how
        )
        made[:6, :8, :10] = data[:6, :8, :10]
    data[6:], data[:, 8:], data[:, :, 10:] = 7, 7, 7
    with h5py.File(tmp_path / "a.h5") as file:
        expected = file["dataset"][:]
    volume = open_volume(tmp_path / "a.h5")
    for box in np.s_[:, :, :], np.s_[2:4, 3:9, 1:12], np.s_[5, :, 12], np.s_[3:3, :, :]:
        np.testing.assert_array_equal(volume.data[box], expected[box])
    if not how:
        return
    with h5py.File(tmp_path / "b.h5", "w") as file:  # a mask says that a filter was left out
        made = file.create_dataset("dataset", shape=(4, 4, 4), dtype="<i2", chunks=(4, 4, 4), **how)
        made.id.write_direct_chunk((0, 0, 0), np.arange(64, dtype="<i2").tobytes(), filter_mask=0b111)
    np.testing.assert_array_equal(open_volume(tmp_path / "b.h5").read().ravel(), np.arange(64))


@pytest.mark.parametrize("images", [False, True])
def test_an_hdf5_chunk_is_no_larger_than_its_chunk(tmp_path: Path, images: bool) -> None:
    name, shape = ("MDF/images/0/image", (8, 8)) if images else ("dataset", (8, 8, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for k in range(8 if images else 1):
            made = file.create_dataset(
                name.replace("0", str(k)), shape=shape, dtype="u1", chunks=shape, compression="gzip"
            )
            made[:] = 1
        file[name].id.write_direct_chunk((0,) * len(shape), zlib.compress(bytes(HUGE)))
    before = peak()
    volume = open_volume(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a\.h5 .*(would unpack to more than|has a chunk of)"):
        volume.read()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file[name].id.write_direct_chunk((0,) * len(shape), b"no deflate")
    with pytest.raises(InputError, match=r"a chunk of .*a\.h5 is damaged"):
        open_volume(tmp_path / "a.h5").read()
    assert peak() - before < HUGE / 3


@pytest.mark.parametrize("packer", ["zlib", "lzma"])
def test_a_plane_of_a_tiff_is_no_larger_than_it_is(tmp_path: Path, packer: str) -> None:
    import tifffile

    data = np.arange(4 * 64, dtype=np.float32).reshape(4, 8, 8)
    tifffile.imwrite(tmp_path / "a.tif", data, compression=packer, photometric="minisblack")
    np.testing.assert_array_equal(open_volume(tmp_path / "a.tif").read(), data)
    tifffile.imwrite(tmp_path / "t.tif", data, compression=packer, photometric="minisblack", tile=(16, 16))
    np.testing.assert_array_equal(open_volume(tmp_path / "t.tif").read(), data)
    bomb = {"zlib": zlib.compress, "lzma": lzma.compress}[packer](bytes(HUGE))
    for name in "at":
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as file:
            page = file.pages[2]  # a later plane, so that opening reads none of it
            offsets = page.tags[324 if page.is_tiled else 273]
            counts = page.tags[325 if page.is_tiled else 279]
            where = offsets.valueoffset, counts.valueoffset, counts.dtype
        content = bytearray((tmp_path / f"{name}.tif").read_bytes())
        content[where[0] : where[0] + 4] = len(content).to_bytes(4, "little")
        size = 2 if where[2] == 3 else 4
        if len(bomb) >> (8 * size):
            pytest.skip("the field of the size has no room")
        content[where[1] : where[1] + size] = len(bomb).to_bytes(size, "little")
        (tmp_path / f"{name}.tif").write_bytes(bytes(content) + bomb)
        before = peak()
        with pytest.raises(InputError, match=r"plane 2 of .* would unpack to more than it can have"):
            open_volume(tmp_path / f"{name}.tif").read()
        assert peak() - before < HUGE / 3


def test_filters_of_zarr_that_compress(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1", zarr_format=2,
        filters=[Zlib()], compressors=None,
    )  # fmt: skip
    (tmp_path / "a.zarr/0.0.0").write_bytes(zlib.compress(bytes(64)))
    with pytest.raises(InputError, match="the compression zlib among its filters"):
        open_volume(tmp_path / "a.zarr").read()
