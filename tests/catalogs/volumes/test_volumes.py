from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from catalogs.volumes import Binning, open_volume

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
        with pytest.raises(InputError, match=r"a\.mrc are not cubes \(8 x 8 x 9"):
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
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        volume = open_volume(file)
        patch(file, 1024 + 4 * (2 * 6 * 7 + 3), 77.5, dtype="<f4")  # after it was opened
        assert volume.data[2, 0, 3] == 77.5
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(InputError, match="became shorter while it was read"):
            volume.read()

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

    def test_headers_that_lie(self, tmp_path: Path) -> None:
        good = make_mrc(tmp_path / "a.mrc", values(np.float32)).read_bytes()
        size = len(good)
        for says, offset, numbers in (
            (r"states 7 x 6 x 5 voxels of mode 1 .* would fit mode 2 or an extended header", 12, (1,)),
            (rf"is cut off: .* 8 x 6 x 5 .* {size + 120} bytes in all, and the file has {size}", 0, (8,)),
            (r"has a wrong header: .* would fit an extended header \(nsymbt\) of 140", 4, (5,)),
            (r"along the axes \(1, 1, 3\)", 64, (1, 1, 3)),
            (r"is wrong: -5 bytes of extended header", 92, (-5,)),
            (r"voxels of mode 101 .* would fit mode 2 or", 12, (101,)),
            (r"mode 7;", 12, (7,)),
            (r"no possible size or mode", 0, (-1,)),
            (r"no possible size or mode", 12, (-3,)),
        ):
            file = tmp_path / "lie.mrc"
            file.write_bytes(good)
            patch(file, offset, *numbers)
            with pytest.raises(InputError, match=says):
                open_volume(file)

    def test_a_mode_too_large(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.int16))
        patch(file, 12, 2)
        with pytest.raises(InputError, match=r"cut off or has a wrong header: .* would fit mode 1 or mode 6"):
            open_volume(file)

    def test_an_extended_header_that_is_not_stated(self, tmp_path: Path) -> None:
        good = make_mrc(tmp_path / "a.mrc", values(np.int16)).read_bytes()
        file = tmp_path / "b.mrc"
        file.write_bytes(good[:1024] + bytes(2048) + good[1024:])
        with pytest.raises(InputError, match=r"would fit an extended header \(nsymbt\) of 2048"):
            open_volume(file)
        patch(file, 92, 2048)
        np.testing.assert_array_equal(open_volume(file).read(), values(np.float32))

    def test_stamp_of_the_other_byte_order(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.int16))
        patch(file, 212, 0x11, 0x11, dtype="u1")
        np.testing.assert_array_equal(open_volume(file).read(), values(np.float32))

    def test_bytes_above_127_are_unsigned(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.int8) + np.int8(100))
        patch(file, 76, 0, 209, dtype="<f4")  # dmin and dmax
        assert open_volume(file).read().min() >= 0
        assert open_volume(file).dtype == np.uint8

    def test_skew_cell(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 52, 90, 90, 120, dtype="<f4")
        with pytest.raises(InputError, match=r"not at right angles \(120°\)"):
            open_volume(file)

    def test_origin_from_where_the_grid_starts(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32), 2.0)
        patch(file, 16, -3, 4, 5)
        assert open_volume(file).origin == (-6.0, 8.0, 10.0)
        patch(file, 64, 3, 2, 1)  # the first number now belongs to z
        assert open_volume(file).origin == (10.0, 8.0, -6.0)

    def test_origin_of_imod_counts_backwards_before_the_standard(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        patch(file, 196, 1.5, -2.0, 3.0, dtype="<f4")
        patch(file, 152, 1146047817, 1)
        assert open_volume(file).origin == (1.5, -2.0, 3.0)  # nversion 20140: to the standard
        patch(file, 108, 0)
        assert open_volume(file).origin == (-1.5, 2.0, -3.0)
        patch(file, 152, 1146047817, 1 + 4)
        assert open_volume(file).origin == (1.5, -2.0, 3.0)

    def test_binning_of_imod(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        assert open_volume(file).binning is None
        with mrcfile.open(file, "r+") as mrc:
            mrc.add_label("BINVOL: Volume binned down by factors   2   2   2       25-Nov-26  10:00:00")
            mrc.add_label("BINVOL: Volume binned down by factors   4   4   4       25-Nov-26  10:00:00")
        binning = open_volume(file).binning
        assert binning == Binning(8, "box")
        np.testing.assert_array_equal(binning.unbinned([0, 1]), [3.5, 11.5])
        np.testing.assert_array_equal(Binning(8, "fourier").unbinned([0, 1]), [0, 8])
        with pytest.raises(InputError, match="binned 8 times by averaging or by cropping"):
            Binning(8).unbinned(0)

    def test_gzip(self, tmp_path: Path) -> None:
        plain = make_mrc(tmp_path / "TS_01.rec", values(np.int16), 13.48).read_bytes()
        (tmp_path / "TS_01.rec.gz").write_bytes(gzip.compress(plain))
        volume = open_volume(tmp_path / "TS_01.rec.gz")
        assert (volume.name, volume.voxel_size, volume.shape) == ("TS_01", pytest.approx(13.48), SHAPE)
        np.testing.assert_array_equal(volume.data[1:3, ::2, 4], values(np.int16)[1:3, ::2, 4])
        # as pigz and bgzip write it, in parts
        (tmp_path / "b.mrc.gz").write_bytes(gzip.compress(plain[:700]) + gzip.compress(plain[700:]))
        np.testing.assert_array_equal(open_volume(tmp_path / "b.mrc.gz").data[:], values(np.int16))
        for name, content in {
            "cut.mrc.gz": gzip.compress(plain)[:-20],
            "short.mrc.gz": gzip.compress(plain[:-20]),
            "head.mrc.gz": gzip.compress(plain)[:40],
            "crc.mrc.gz": gzip.compress(plain)[:-8] + b"1234" + gzip.compress(plain)[-4:],
        }.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=rf"{name} is cut off"):
                open_volume(tmp_path / name).read()

    def test_a_name_that_lies(self, tmp_path: Path) -> None:
        make_mrc(tmp_path / "a.mrc", values(np.float32)).rename(tmp_path / "a.h5")
        assert open_volume(tmp_path / "a.h5").shape == SHAPE
        (tmp_path / "b.h5").write_text("hello")
        with pytest.raises(InputError, match=r"b\.h5 is damaged: it does not begin as \.h5 files do"):
            open_volume(tmp_path / "b.h5")

    @pytest.mark.parametrize("key", [
        ..., 0, -1, (1, 2), (slice(None), 3), (slice(4, 1, -2), slice(1, None, 3), -2), (..., 0),
        (slice(2, 2), 0), (1, 2, 3), (slice(-2, None), ..., slice(1, 3)),
    ])  # fmt: skip
    def test_indices_are_numpys(self, tmp_path: Path, key: Any) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.float32))
        data = open_volume(file).data
        np.testing.assert_array_equal(data[key], values(np.float32)[key])
        patch(file, 64, 2, 3, 1)  # columns lie along y, rows along z, sections along x
        turned = values(np.float32).transpose(1, 2, 0)
        np.testing.assert_array_equal(open_volume(file).data[:], turned)
        if key != (1, 2, 3):
            np.testing.assert_array_equal(open_volume(file).data[key], turned[key])

    @pytest.mark.parametrize("key", [5, (0, 0, 0, 0), (0, 9), ([0, 1],), "z", (..., ...)])
    def test_other_indices_are_refused(self, tmp_path: Path, key: Any) -> None:
        with pytest.raises(IndexError):
            open_volume(make_mrc(tmp_path / "a.mrc", values(np.float32))).data[key]

    def test_boxes(self, tmp_path: Path) -> None:
        file = make_mrc(tmp_path / "a.mrc", values(np.int16), 4.0)
        patch(file, 196, 1.0, 2.0, 3.0, dtype="<f4")
        part = open_volume(file)[1:4, 2:, :5]
        assert (part.shape, part.voxel_size, part.origin) == ((3, 4, 5), 4.0, (1.0, 10.0, 7.0))
        np.testing.assert_array_equal(part.read(), values(np.int16)[1:4, 2:, :5])
        again = part[1:, 1:, 1:]
        assert again.origin == (5.0, 14.0, 11.0)
        np.testing.assert_array_equal(np.asarray(again), values(np.int16)[2:4, 3:, 1:5])
        with pytest.raises(IndexError, match="without a step"):
            part[::2]

    def test_blocks_cover_it_once(self, tmp_path: Path) -> None:
        volume = open_volume(make_mrc(tmp_path / "a.mrc", values(np.float32)))
        for n_bytes in (1, 28, 100, 170, 400, 10**9):
            seen = np.full(SHAPE, -1.0)
            for box, block in volume.blocks(n_bytes):
                assert (seen[box] == -1).all()
                assert block.nbytes <= max(n_bytes, 6 * 7 * 4)
                seen[box] = block
            np.testing.assert_array_equal(seen, values(np.float32))

    def test_another_process_reads_it(self, tmp_path: Path) -> None:
        volume = open_volume(make_mrc(tmp_path / "a.mrc", values(np.float32)))
        assert len(pickle.dumps(volume)) < 1000  # no voxels in it
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), values(np.float32))
        lazy = volume.dask(n_bytes=200)
        assert lazy.chunks == ((1,) * 5, (6,), (7,))
        assert volume.dask(n_bytes=400).chunks[0] == (2, 2, 1)
        np.testing.assert_array_equal(lazy[1:3].sum(axis=0).compute(scheduler="synchronous"),
                                      values(np.float32)[1:3].sum(axis=0))  # fmt: skip


@st.composite
def mrc_files(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "shape": draw(st.tuples(*[st.integers(1, 6)] * 3)),
        "mode": draw(st.sampled_from(sorted(MODES))),
        "order": draw(st.sampled_from("<>")),
        "extended": draw(st.sampled_from([0, 80, 1024])),
        "axes": draw(st.permutations([1, 2, 3])),
        "voxel": draw(st.floats(1.5, 50)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(file=mrc_files(), gz=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_mrc_file(tmp_path_factory: pytest.TempPathFactory, file: dict[str, Any], gz: bool) -> None:
    """Files put together byte by byte from the standard, not by a library."""
    rng = np.random.default_rng(file["seed"])
    sections = rng.integers(-100, 100, file["shape"]).astype(MODES[file["mode"]])
    nz, ny, nx = file["shape"]
    order, axes = file["order"], file["axes"]
    counts = dict(zip(axes, (nx, ny, nz), strict=True))  # axis -> voxels
    header = bytearray(1024)

    def put(offset: int, kind: str, *numbers: float) -> None:
        raw = np.array(numbers, order + kind).tobytes()
        header[offset : offset + len(raw)] = raw

    put(0, "i4", nx, ny, nz, file["mode"])
    put(28, "i4", *(counts[axis] for axis in (1, 2, 3)))
    put(40, "f4", *(counts[axis] * file["voxel"] for axis in (1, 2, 3)), 90, 90, 90)
    put(64, "i4", *axes)
    put(88, "i4", 1, file["extended"])
    header[208:216] = b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    content = (
        bytes(header) + bytes(file["extended"]) + sections.astype(order + sections.dtype.str[1:]).tobytes()
    )
    path = tmp_path_factory.mktemp("mrc") / ("a.mrc.gz" if gz else "a.mrc")
    path.write_bytes(gzip.compress(content, 1) if gz else content)

    volume = open_volume(path)
    along = axes[::-1]
    expected = sections.transpose([along.index(axis) for axis in (3, 2, 1)])
    assert volume.voxel_size == pytest.approx(file["voxel"], rel=1e-5)
    np.testing.assert_array_equal(volume.data[:], expected)
    low = [int(rng.integers(0, n)) for n in expected.shape]
    box = tuple(slice(k, int(rng.integers(k, n)) + 1) for k, n in zip(low, expected.shape, strict=True))
    np.testing.assert_array_equal(volume[box].read(), expected[box].astype(np.float32))


def test_real_files(shared: Path) -> None:
    for file in sorted((shared / "maps").glob("*.mrc")):
        volume = open_volume(file)
        with mrcfile.open(file, permissive=True) as mrc:
            np.testing.assert_array_equal(volume.data[:], mrc.data)
            assert volume.voxel_size == pytest.approx(float(mrc.voxel_size.x), rel=1e-5)
    assert open_volume(shared / "tomograms" / "beta-tubulin.mrc").voxel_size == pytest.approx(5.144)


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
            "not cubes": {"axes": axes(*"zyx"), "datasets": [bad]},
            "must be z, y, x": {"axes": axes(*"zyy"), "datasets": [good]},
        }.items():
            file = make_ome(tmp_path / f"{says}.zarr", "0.5", values(np.float32), image)
            with pytest.raises(InputError, match=says):
                open_volume(file)
        zarr.create_group(tmp_path / "d.zarr")
        with pytest.raises(InputError, match="Zarr group with one volume: it holds none"):
            open_volume(tmp_path / "d.zarr")
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match="not a Zarr array or an OME-Zarr image"):
            open_volume(tmp_path / "folder")
        with pytest.raises(InputError, match="not a Zarr array or an OME-Zarr image"):
            open_volume("memory://nothing/here.zarr")
