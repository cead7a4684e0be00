"""Voxel sizes in the units of other programs, and axes in other orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from catalogs.volumes import open_volume
from catalogs.volumes.units import factor_of

A = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"voxel_size": 1.3, "unit": "nm"}, 13.0),
        ({"voxel_size": [1.3, 1.3, 1.3], "voxel_size_unit": "nanometer"}, 13.0),
        ({"voxel_size": 13.0, "unit": b"angstrom"}, 13.0),
        ({"voxel_size": 13.0}, 13.0),
        ({"voxel_size": 13.0, "unit": "electrons"}, 13.0),  # of the values
        ({"voxel_size": 13.0, "unit": "pixel"}, None),
        ({"voxel_spacing": 1.3e-3, "units": "µm"}, 13.0),
        ({"element_size_um": [1.3e-3] * 3}, 13.0),
    ],
)
def test_units_of_hdf5_and_zarr(tmp_path: Path, attributes: dict[str, Any], size: float | None) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=A).attrs.update(attributes)
    assert open_volume(tmp_path / "a.h5").voxel_size == (size if size is None else pytest.approx(size))
    if "element_size_um" in attributes or isinstance(attributes.get("unit"), bytes):
        return
    array = zarr.create_array(tmp_path / "a.zarr", data=A)
    array.attrs.update(attributes)
    assert open_volume(tmp_path / "a.zarr").voxel_size == (size if size is None else pytest.approx(size))


def test_a_unit_of_nothing() -> None:
    assert factor_of({}) == 1.0
    assert factor_of({"unit": ""}) == 1.0
    assert factor_of({"unit": np.array([1, 2])}) == 1.0


@pytest.mark.parametrize("names", ["zyx", "ZYX", "xyz", "yzx", "XYZ"])
def test_the_order_of_axes(tmp_path: Path, names: str, caplog: pytest.LogCaptureFixture) -> None:
    order = ["zyx".index(name) for name in names.lower()]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=np.ascontiguousarray(A.transpose(order)))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in names]
    steps = [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]},
        {"type": "translation", "translation": [1.0, 2.0, 3.0]},
    ]
    levels = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    volume = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.read(), A)
    assert volume.voxel_size == 10.0
    at = dict(zip(names.lower(), (10.0, 20.0, 30.0), strict=True))
    assert volume.origin == (at["x"], at["y"], at["z"])
    assert ("are turned to z, y, x" in caplog.text) == (names.lower() != "zyx")


def test_axes_without_a_unit_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=A)
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [8.0, 8.0, 8.0]}]}]
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    assert open_volume(tmp_path / "a.zarr").voxel_size == 8.0
    assert "state no unit; they are taken as Å" in caplog.text
    caplog.clear()
    assert open_volume(tmp_path / "a.zarr", voxel_size=4.0).voxel_size == 4.0
    assert caplog.text == ""
