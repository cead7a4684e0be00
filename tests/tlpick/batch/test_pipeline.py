"""Resampling keeps every place in Å; a tomogram is known by its content."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from catalogs.seeds import generator
from tlpick.batch.identity import checksum, stamp
from tlpick.network.tomograms.intake import resample


@pytest.mark.parametrize(("voxel_size", "wanted"), [(5.0, 10.0), (10.0, 7.3), (4.0, 9.0)])
def test_resampling_moves_nothing(voxel_size: float, wanted: float) -> None:
    shape = tuple(int(length / voxel_size) for length in (405, 512, 433))
    place = np.array([180.0, 260.0, 201.0])
    places = np.indices(shape) * voxel_size
    blob = np.exp(-((places - place[:, None, None, None]) ** 2).sum(axis=0) / (2 * 30.0**2))

    out = resample(blob.astype(np.float32), voxel_size, wanted)

    for axis in range(3):
        assert (out.shape[axis] - 1) * wanted <= (shape[axis] - 1) * voxel_size + 1e-6
        assert out.shape[axis] * wanted > (shape[axis] - 1) * voxel_size
    there = np.indices(out.shape) * wanted
    np.testing.assert_allclose((there * out).sum(axis=(1, 2, 3)) / out.sum(), place, atol=0.05)


def test_noise_that_coarse_voxels_cannot_hold_is_taken_away() -> None:
    noise = generator("resample").normal(size=(40, 40, 40)).astype(np.float32)
    assert resample(noise, 5.0, 10.0).std() < 0.25
    assert resample(noise, 10.0, 10.0).std() == pytest.approx(noise.std())


def test_a_tomogram_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.mrc"
    file.write_bytes(b"12345")
    first = stamp(str(file)), checksum(str(file))
    assert (stamp(str(file)), checksum(str(file))) == first
    dates = file.stat()
    os.utime(file, (1, 1))
    assert stamp(str(file)) != first[0]
    assert checksum(str(file)) == first[1]
    file.write_bytes(b"54321")  # of the same size, and set back to the old date
    os.utime(file, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert stamp(str(file)) != first[0]
    assert checksum(str(file)) != first[1]
    (tmp_path / "b.zarr" / "c").mkdir(parents=True)
    (tmp_path / "b.zarr" / "c" / "0").write_bytes(b"1")
    second = checksum(str(tmp_path / "b.zarr"))
    (tmp_path / "b.zarr" / "c" / "1").write_bytes(b"1")
    assert checksum(str(tmp_path / "b.zarr")) != second
