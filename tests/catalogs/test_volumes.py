from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import zarr

from catalogs.errors import InputError
from catalogs.volumes import open_volume, write_mrc

SHAPE = (5, 6, 7)
MODES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}


def values(dtype: Any, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def make_mrc(path: Path, data: np.ndarray, voxel: Any = 8.0, *, volume: bool = True) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        if volume and data.ndim == 3:
            mrc.set_volume()
        mrc.voxel_size = voxel
    return path


def patch(path: Path, offset: int, *numbers: Any, dtype: str = "<i4") -> None:
    data = bytearray(path.read_bytes())
    raw = np.array(numbers, dtype).tobytes()
    data[offset : offset + len(raw)] = raw
    path.write_bytes(bytes(data))


class TestMrc:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("suffix", [".mrc", ".rec", ".map", ".st"])
    def test_modes(self, tmp_path: Path, mode: int, suffix: str) -> None:
        file = make_mrc(tmp_path / f"TS_01{suffix}", values(MODES[mode]), 13.48)
        volume = open_volume(file)
        assert volume.shape == SHAPE
        assert volume.voxel_size == pytest.approx(13.48, rel=1e-5)
        assert volume.name == "TS_01"
        read = volume.read()
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values(MODES[mode]).astype(np.float32))
        box = (slice(1, 3), slice(0, 6), slice(2, 7))
        np.testing.assert_array_equal(volume.read(box), read[box])

    @pytest.mark.parametrize("mode", [1, 2, 6, 12])
    def test_big_endian(self, tmp_path: Path, mode: int) -> None:
        data = values(MODES[mode])
        little = make_mrc(tmp_path / "a.mrc", data, 10.0).read_bytes()
        header = np.frombuffer(little[:1024], mrcfile.dtypes.HEADER_DTYPE).copy()
        header = header.astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(">"))
        header["machst"] = [[0x11, 0x11, 0, 0]]
        (tmp_path / "b.mrc").write_bytes(
            header.tobytes() + data.astype(data.dtype.newbyteorder(">")).tobytes()
        )
        volume = open_volume(tmp_path / "b.mrc")
        assert volume.voxel_size == pytest.approx(10.0)
        np.testing.assert_array_equal(volume.read(), data.astype(np.float32))

    @pytest.mark.parametrize("voxel", [0.0, 1.0])
    def test_header_that_does_not_know_the_voxel_size(self, tmp_path: Path, voxel: float) -> None:
        assert open_volume(make_mrc(tmp_path / "a.mrc", values(np.float32), voxel)).voxel_size is None

    def test_no_intervals_in_the_header(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 28, 0, 0, 0)  # mx, my, mz
        assert open_volume(file).voxel_size is None

    def test_anisotropic(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32), (8.0, 8.0, 9.0))
        with pytest.raises(InputError, match=r"a\.mrc are no cubes \(8 x 8 x 9"):
            open_volume(file)

    def test_rounded_cell_is_a_cube(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32), (8.0, 8.0, 8.002))
        assert open_volume(file).voxel_size == pytest.approx(8.0)

    def test_origin(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 196, 1.5, -2.0, 3.0, dtype="<f4")
        assert open_volume(file).origin == (1.5, -2.0, 3.0)

    def test_bytes_of_imod_are_unsigned_unless_it_says_so(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.int8) + np.int8(100))
        assert open_volume(file).read().min() < 0
        patch(file, 152, 1146047817, 0)
        assert open_volume(file).read().min() >= 0
        assert open_volume(file).read().max() > 127
        patch(file, 152, 1146047817, 1)
        assert open_volume(file).read().min() < 0

    def test_axes_in_another_order(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 64, 3, 2, 1)  # columns lie along z, sections along x
        volume = open_volume(file)
        assert volume.shape == SHAPE[::-1]
        np.testing.assert_array_equal(volume.read(), values(np.float32).T)

    def test_a_stack_is_taken_as_a_volume(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.st", values(np.float32), volume=False)
        assert open_volume(file).shape == SHAPE

    def test_sloppy_header(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 208, 0)  # no "MAP "
        np.testing.assert_array_equal(open_volume(file).read(), values(np.float32))

    def test_reads_lazily(self, tmp_path: Path) -> None:
        assert isinstance(open_volume(make_mrc(tmp_path / "a.mrc", values(np.float32))).data, np.memmap)

    def test_refuses(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no volume"):
            open_volume(tmp_path / "none.mrc")
        with pytest.raises(InputError, match="there is no volume"):
            open_volume(tmp_path / "none.zarr")
        (tmp_path / "text.mrc").write_text("hello")
        with pytest.raises(InputError, match=r"text\.mrc"):
            open_volume(tmp_path / "text.mrc")
        (tmp_path / "a.txt").write_text("hello")
        with pytest.raises(InputError, match=r"a\.txt is not a volume"):
            open_volume(tmp_path / "a.txt")
        with pytest.raises(InputError, match="2 axes"):
            open_volume(make_mrc(tmp_path / "image.mrc", values(np.float32, (6, 7))))
        with pytest.raises(InputError, match="mode 4"):
            open_volume(make_mrc(tmp_path / "complex.mrc", values(np.complex64)))
        cut = make_mrc(tmp_path / "cut.mrc", values(np.float32))
        cut.write_bytes(cut.read_bytes()[:-40])
        with pytest.raises(InputError, match="cut off"):
            open_volume(cut)

    def test_write(self, tmp_path: Path) -> None:
        write_mrc(tmp_path / "new" / "a.mrc", values(np.float32), 8.5)
        with mrcfile.open(tmp_path / "new" / "a.mrc") as mrc:  # the strict reader
            assert mrc.is_volume()
            assert mrc.voxel_size.x == pytest.approx(8.5)
        volume = open_volume(tmp_path / "new" / "a.mrc")
        assert volume.voxel_size == pytest.approx(8.5)
        np.testing.assert_array_equal(volume.read(), values(np.float32))
        assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.mrc"]


def axes(*names: str, unit: str | None = "angstrom") -> list[dict[str, str]]:
    units = {} if unit is None else {"unit": unit}
    return [{"name": name, "type": "space", **units} for name in names]


def make_ome(path: Path, version: str, data: np.ndarray, image: dict[str, Any]) -> Path:
    new = version == "0.5"
    attributes: Any = {"multiscales": [{"version": version, **image}]}
    group = zarr.create_group(
        path, zarr_format=3 if new else 2, attributes={"ome": attributes} if new else attributes
    )
    for dataset in image["datasets"]:
        level = group.create_array(dataset["path"], shape=data.shape, dtype=data.dtype, chunks=data.shape)
        level[...] = data
        data = data[::2, ::2, ::2]
    return path


def level(path: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": list(steps)}


def scaled(*factors: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(factors)}


class TestOmeZarr:
    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    def test_finest_level(self, tmp_path: Path, version: str) -> None:
        data = values(np.float32)
        image = {
            "axes": axes(*"zyx"),
            "datasets": [level("s0", scaled(10, 10, 10)), level("s1", scaled(20, 20, 20))],
        }
        volume = open_volume(make_ome(tmp_path / "TS_02.ome.zarr", version, data, image))
        assert (volume.name, volume.voxel_size, volume.shape) == ("TS_02", 10.0, SHAPE)
        np.testing.assert_array_equal(volume.read(), data)

    @pytest.mark.parametrize(
        ("unit", "size"), [("nanometer", 12.5), ("angstrom", 1.25), (None, 1.25), ("micrometer", 12500)]
    )
    def test_units(self, tmp_path: Path, unit: str | None, size: float) -> None:
        image = {"axes": axes(*"zyx", unit=unit), "datasets": [level("0", scaled(1.25, 1.25, 1.25))]}
        volume = open_volume(make_ome(tmp_path / "a.zarr", "0.5", values(np.uint8), image))
        assert volume.voxel_size == pytest.approx(size)

    def test_scales_of_level_and_image_and_translation(self, tmp_path: Path) -> None:
        moved = {"type": "translation", "translation": [1, 2, 3]}
        image = {
            "axes": axes(*"zyx"),
            "datasets": [level("0", scaled(2, 2, 2), moved)],
            "coordinateTransformations": [scaled(3, 3, 3)],
        }
        volume = open_volume(make_ome(tmp_path / "a.zarr", "0.4", values(np.float32), image))
        assert volume.voxel_size == 6.0
        assert volume.origin == (9.0, 6.0, 3.0)

    def test_refuses(self, tmp_path: Path) -> None:
        good, bad = level("0", scaled(8, 8, 8)), level("0", scaled(8, 8, 9))
        for says, image in {
            "no cubes": {"axes": axes(*"zyx"), "datasets": [bad]},
            "must be z, y, x": {"axes": axes(*"xyz"), "datasets": [good]},
            "parsec": {"axes": axes(*"zyx", unit="parsec"), "datasets": [good]},
        }.items():
            file = make_ome(tmp_path / f"{says}.zarr", "0.5", values(np.float32), image)
            with pytest.raises(InputError, match=says):
                open_volume(file)
        zarr.create_group(tmp_path / "d.zarr")
        with pytest.raises(InputError, match="not an OME-Zarr image"):
            open_volume(tmp_path / "d.zarr")
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match="not an OME-Zarr image"):
            open_volume(tmp_path / "folder")
        with pytest.raises(InputError, match="not an OME-Zarr image"):
            open_volume("memory://nothing/here.zarr")
