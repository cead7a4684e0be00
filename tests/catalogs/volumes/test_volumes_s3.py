"""Volumes in a bucket: read by ranges, and written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from catalogs.errors import InputError
from catalogs.storage.store import filesystem
from catalogs.volumes import open_volume, write_mrc, write_ome_zarr

SHAPE = (32, 64, 128)
DATA = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def fetched(bucket: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each range that is asked for."""
    fs, _ = filesystem(bucket)
    asked: list[int] = []
    original = fs.cat_file

    def cat_file(path: str, **how: Any) -> Any:
        data = original(path, **how)
        asked.append(len(data))
        return data

    monkeypatch.setattr(fs, "cat_file", cat_file)
    return asked


def test_mrc_is_read_by_ranges(bucket: str, fetched: list[int]) -> None:
    url = f"{bucket}/lab/TS_01.mrc"
    write_mrc(url, DATA, 10.0)
    volume = open_volume(url)
    assert (volume.shape, volume.voxel_size, volume.name) == (SHAPE, 10.0, "TS_01")
    assert sum(fetched) == 1024  # the header
    fetched.clear()
    box = (slice(4, 8), slice(10, 20), slice(30, 40))
    np.testing.assert_array_equal(volume.data[box], DATA[box])
    assert fetched == [10 * 128 * 4] * 4  # the rows of each plane
    fetched.clear()
    np.testing.assert_array_equal(volume.data[3:30], DATA[3:30])
    assert fetched == [27 * 64 * 128 * 4]  # planes that follow each other, in one
    np.testing.assert_array_equal(volume.dask(n_bytes=2**18).compute(scheduler="threads"), DATA)


def test_other_formats(bucket: str, tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("s3")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dataset"] = DATA
    tifffile.imwrite(tmp_path / "a.tif", DATA, compression="zlib")
    tifffile.imwrite(tmp_path / "b.tif", DATA)
    write_mrc(tmp_path / "a.mrc.gz", DATA, 10.0)
    for name in ("a.h5", "a.tif", "b.tif", "a.mrc.gz"):
        fs.put_file(str(tmp_path / name), f"{bucket}/{name}")
        volume = open_volume(f"{bucket}/{name}")
        np.testing.assert_array_equal(volume.data[3:9, 5:60:7, -3], DATA[3:9, 5:60:7, -3])


def test_image(bucket: str) -> None:
    url = f"{bucket}/lab/a.zarr"
    write_ome_zarr(url, iter(DATA), 10.0, shape=SHAPE, dtype="f4", levels=2)
    np.testing.assert_array_equal(open_volume(url).data[:], DATA)
    assert open_volume(f"{url}/1").voxel_size == 20.0
    with pytest.raises(InputError, match=r"a\.zarr already exists"):
        write_ome_zarr(url, DATA, 10.0)
    with pytest.raises(ValueError, match="planes were given"):
        write_ome_zarr(f"{bucket}/lab/b.zarr", iter(DATA), 10.0, shape=(33, 64, 128), dtype="f4")
    with pytest.raises(InputError, match=r"b\.zarr is not a Zarr array"):
        open_volume(f"{bucket}/lab/b.zarr")


def test_data_portal(bucket: str) -> None:
    run = f"{bucket}/10301/14069-b3"
    write_mrc(f"{run}/Reconstructions/VoxelSpacing13.480/Tomograms/100/14069-b3.mrc", DATA, 0.0)
    volume = open_volume(run)
    assert (volume.name, volume.voxel_size) == ("14069-b3", 13.48)


def test_what_cannot_be_reached(bucket: str) -> None:
    with pytest.raises(InputError, match=r"there is no volume s3://.*/none\.mrc"):
        open_volume(f"{bucket}/none.mrc")
    with pytest.raises(InputError, match="is not a Zarr array"):
        open_volume(f"{bucket}/none.zarr")
    with pytest.raises(InputError, match=r"s3://no-such-bucket/a\.mrc"):
        open_volume("s3://no-such-bucket/a.mrc")
    with pytest.raises(InputError, match=r"s3://no-such-bucket/a\.mrc cannot be written"):
        write_mrc("s3://no-such-bucket/a.mrc", DATA, 10.0)
    with pytest.raises(InputError, match=r"s3://no-such-bucket/a\.zarr cannot be written"):
        write_ome_zarr("s3://no-such-bucket/a.zarr", DATA, 10.0)
    with pytest.raises(InputError, match=r"nosuch://a/b\.mrc cannot be read"):
        open_volume("nosuch://a/b.mrc")
