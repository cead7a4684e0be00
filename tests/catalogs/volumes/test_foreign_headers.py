"""Volumes as other programs write them: headers that are wrong in a word, units, endings, what is packed."""

from __future__ import annotations

import bz2
import gzip
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from catalogs.volumes import open_stack, open_volume, write_ome_zarr
from catalogs.volumes.mrc import edges_of
from catalogs.volumes.units import angstroms_in

DATA = np.random.default_rng(0).integers(-100, 100, (5, 6, 7)).astype(np.int16)


def make_mrc(path: Path, data: np.ndarray = DATA, voxel: Any = 10.0) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        mrc.set_volume()
        mrc.voxel_size = voxel
    return path


def patch(path: Path, offset: int, *numbers: Any, dtype: str = "<i4") -> Path:
    data = bytearray(path.read_bytes())
    raw = np.array(numbers, dtype).tobytes()
    data[offset : offset + len(raw)] = raw
    path.write_bytes(bytes(data))
    return path


# -------------------------------------------------------------------------------------- voxel sizes of MRC


def test_one_interval_along_z(tmp_path: Path) -> None:
    file = patch(patch(make_mrc(tmp_path / "a.mrc"), 36, 1), 88, 0)  # words 10 (mz) and 23 (ispg)
    assert open_volume(file).voxel_size == pytest.approx(10)
    assert open_volume(file).shape == DATA.shape


@pytest.mark.parametrize(
    ("offset", "value", "dtype"),
    [
        (28, 1, "<i4"), (32, 1, "<i4"), (36, 1, "<i4"),  # mx, my, mz
        (28, 0, "<i4"), (36, 0, "<i4"), (36, -1, "<i4"), (28, 4096, "<i4"), (36, 200, "<i4"),
        (40, 0, "<f4"), (44, 0, "<f4"), (48, 0, "<f4"), (48, np.nan, "<f4"), (40, -5, "<f4"),  # cella
    ],
)  # fmt: skip
@pytest.mark.parametrize("group", [0, 1])
def test_a_header_that_is_wrong_in_one_word(
    tmp_path: Path, offset: int, value: float, dtype: str, group: int
) -> None:
    file = patch(patch(make_mrc(tmp_path / "a.mrc"), offset, value, dtype=dtype), 88, group)
    assert open_volume(file).voxel_size == pytest.approx(10)
    assert open_volume(file, voxel_size=7.5).voxel_size == 7.5


def test_what_no_word_explains_is_refused_unless_the_size_is_given(tmp_path: Path) -> None:
    file = make_mrc(tmp_path / "a.mrc", voxel=(10, 10, 33))
    with pytest.raises(InputError, match=r"not cubes \(10 x 10 x 33 Å\)"):
        open_volume(file)
    assert open_volume(file, voxel_size=10.0).voxel_size == 10
    inside = tmp_path / "TS_1" / "VoxelSpacing12.000"
    inside.mkdir(parents=True)
    shutil.copy(make_mrc(tmp_path / "b.mrc"), inside / "b.mrc")
    with pytest.raises(InputError, match="lies in a folder for 12 Å"):
        open_volume(inside / "b.mrc")
    assert open_volume(inside / "b.mrc", voxel_size=10.0).voxel_size == 10


def test_the_unit_cell_may_be_larger_than_the_volume(tmp_path: Path) -> None:
    file = patch(make_mrc(tmp_path / "a.mrc"), 28, 70, 60, 50)  # a tenth of a cell of 700 x 600 x 500 Å
    patch(file, 40, 700, 600, 500, dtype="<f4")
    assert open_volume(file).voxel_size == pytest.approx(10)


@given(
    st.tuples(*[st.integers(2, 500)] * 3),
    st.floats(1.5, 50),
    st.integers(0, 5),
    st.sampled_from([0, 1, 0.5, -1]),
)
def test_any_one_word_of_the_cell(counts: tuple[int, ...], size: float, word: int, wrong: float) -> None:
    cell, intervals = [n * size for n in counts], list(counts)
    if word < 3:
        cell[word] = cell[word] * min(wrong, 0)  # 0 or negative: not known
    else:
        intervals[word - 3] = int(counts[word - 3] * wrong)
    assert edges_of(cell, intervals, counts) == pytest.approx((size,) * 3, rel=2e-3)


def test_pixel_size_of_imods_hdf(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        file["MDF/images/0/image"] = DATA
        facts = {f"IMOD.MRC.{axis}len": n * 10.0 for axis, n in zip("xyz", (7, 6, 5), strict=True)}
        facts |= {f"IMOD.MRC.m{axis}": n for axis, n in zip("xyz", (7, 6, 1), strict=True)}
        file["MDF/images/0"].attrs.update(facts)
    assert open_volume(tmp_path / "a.hdf").voxel_size == pytest.approx(10)


@pytest.mark.parametrize("kind", [b"FEI1", b"FEI2", b"old"])
@pytest.mark.parametrize("order", "<>")
def test_pixel_size_of_feis_extended_header(tmp_path: Path, kind: bytes, order: str) -> None:
    plain = make_mrc(tmp_path / "a.mrc", voxel=0.0).read_bytes()
    header = np.frombuffer(plain[:1024], mrcfile.dtypes.HEADER_DTYPE).copy()
    if kind == b"old":
        extended = np.zeros((1024, 32), np.dtype("f4").newbyteorder(order))
        extended[:5, 11] = 8.64e-10
        header["label"][0][0] = b"Fei Company (C)Copyright 2003"
    else:
        header["exttyp"] = kind
        extended = np.zeros(5, mrcfile.dtypes.get_ext_header_dtype(kind, order))
        extended["Pixel size X"] = extended["Pixel size Y"] = 8.64e-10
    header["nsymbt"] = extended.nbytes
    header = header.astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order))
    header["machst"] = [[0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0]]
    voxels = DATA.astype(DATA.dtype.newbyteorder(order))
    (tmp_path / "a.mrc").write_bytes(header.tobytes() + extended.tobytes() + voxels.tobytes())
    volume = open_volume(tmp_path / "a.mrc")
    assert volume.voxel_size == pytest.approx(8.64, rel=1e-6)
    np.testing.assert_array_equal(volume.read(), DATA)
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    assert open_volume(tmp_path / "a.mrc.gz").voxel_size == pytest.approx(8.64, rel=1e-6)
    patch(tmp_path / "a.mrc", 40, 35, 30, 25, dtype=f"{order}f4")  # 5 Å: what the header says goes before
    assert open_volume(tmp_path / "a.mrc").voxel_size == pytest.approx(5)


# ------------------------------------------------------------------------------------- what the file holds


def test_stacks_of_volumes(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.zeros((3, 5, 6, 7), np.int16))
        mrc.voxel_size = 10.0
    for read in (open_volume, open_stack):
        with pytest.raises(InputError, match="space group 401 marks a stack of 3 volumes"):
            read(tmp_path / "a.mrc")
    with mrcfile.new(tmp_path / "b.mrc") as mrc:
        mrc.set_data(DATA[None])
        mrc.voxel_size = 10.0
    assert open_volume(tmp_path / "b.mrc").voxel_size == 10
    np.testing.assert_array_equal(open_volume(tmp_path / "b.mrc").read(), DATA)


@pytest.mark.parametrize("n", [255, 256, 257, 512])
def test_a_wrong_stamp_whichever_the_size(tmp_path: Path, n: int) -> None:
    data = np.arange(n * n * 2, dtype=np.int64).reshape(2, n, n).astype(np.int8)
    for stamp in (0x44, 0x11):
        file = patch(make_mrc(tmp_path / "a.mrc", data), 212, stamp, stamp, dtype="u1")
        assert open_volume(file).shape == (2, n, n)
        (tmp_path / "b.mrc.gz").write_bytes(gzip.compress(file.read_bytes()))
        assert open_volume(tmp_path / "b.mrc.gz").shape == (2, n, n)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_numbers_of_four_bits(tmp_path: Path, width: int) -> None:
    data = np.random.default_rng(width).integers(0, 16, (5, 6, width)).astype(np.uint8)
    file = make_mrc(tmp_path / "a.mrc", data.astype(np.int8), 10.0)
    even = np.concatenate([data, np.zeros((5, 6, width % 2), np.uint8)], axis=2)
    packed = even[:, :, ::2] | even[:, :, 1::2] << 4
    file.write_bytes(patch(file, 12, 101).read_bytes()[:1024] + packed.tobytes())
    volume = open_volume(file)
    assert (volume.shape, volume.voxel_size) == (data.shape, 10)
    np.testing.assert_array_equal(volume.read(), data)
    for start in range(width):
        for stop in range(start, width + 1):
            np.testing.assert_array_equal(volume.data[1:3, 2, start:stop], data[1:3, 2, start:stop])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), data)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="is cut off"):
        open_volume(file)


def test_bytes_after_the_voxels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = make_mrc(tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc").write_bytes(plain + bytes(512))
    np.testing.assert_array_equal(open_volume(tmp_path / "a.mrc").read(), DATA)
    assert "a.mrc has 512 bytes of zeros after its voxels" in caplog.text
    (tmp_path / "b.mrc").write_bytes(plain + b"x" * 512)
    with pytest.raises(InputError, match=r"header \(nsymbt\) of 512 or 512 bytes that do not belong"):
        open_volume(tmp_path / "b.mrc")
    (tmp_path / "c.mrc.gz").write_bytes(gzip.compress(plain + bytes(512)))
    np.testing.assert_array_equal(open_volume(tmp_path / "c.mrc.gz").read(), DATA)


def test_bzip2(tmp_path: Path) -> None:
    plain = make_mrc(tmp_path / "TS_01.rec", voxel=13.48).read_bytes()
    (tmp_path / "TS_01.rec.bz2").write_bytes(bz2.compress(plain))
    volume = open_volume(tmp_path / "TS_01.rec.bz2")
    assert (volume.name, volume.voxel_size, volume.shape) == ("TS_01", pytest.approx(13.48), DATA.shape)
    np.testing.assert_array_equal(volume.data[1:3, ::2, 4], DATA[1:3, ::2, 4])
    assert mrcfile.open(tmp_path / "TS_01.rec.bz2").data.shape == DATA.shape
    assert open_stack(tmp_path / "TS_01.rec.bz2").shape == DATA.shape
    for name, content in {
        "cut.mrc.bz2": bz2.compress(plain)[:-20],
        "short.mrc.bz2": bz2.compress(plain[:-20]),
        "crc.mrc.bz2": bz2.compress(plain)[:-60] + b"x" * 60,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name} is cut off"):
            open_volume(tmp_path / name).read()


# --------------------------------------------------------------------------------------------------- EM


EM_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}


def em_file(path: Path, data: np.ndarray, code: int, order: str, machine: int) -> Path:
    header = bytearray(512)
    header[0], header[3] = machine, code
    header[4:16] = np.array(data.shape[::-1], f"{order}i4").tobytes()
    path.write_bytes(bytes(header) + data.astype(f"{order}{EM_TYPES[code]}").tobytes())
    return path


@pytest.mark.parametrize("code", EM_TYPES)
@pytest.mark.parametrize(("order", "machine"), [("<", 6), (">", 5), (">", 3), (">", 0), (">", 6), ("<", 5)])
def test_em_of_any_machine(tmp_path: Path, code: int, order: str, machine: int) -> None:
    volume = open_volume(em_file(tmp_path / "TS_01.em", DATA, code, order, machine))
    assert (volume.name, volume.shape, volume.voxel_size) == ("TS_01", DATA.shape, None)
    np.testing.assert_array_equal(volume.read(), DATA)
    assert open_volume(tmp_path / "TS_01.em", voxel_size=10.0).voxel_size == 10
    (tmp_path / "a.em.gz").write_bytes(gzip.compress((tmp_path / "TS_01.em").read_bytes()))
    np.testing.assert_array_equal(open_volume(tmp_path / "a.em.gz").read(), DATA)


def test_em_of_another_program(tmp_path: Path) -> None:
    import emfile

    emfile.write(tmp_path / "a.em", DATA.astype(np.float32), {}, overwrite=True)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.em").read(), DATA)
    em_file(tmp_path / "b.em", DATA, 5, "<", 6)
    np.testing.assert_array_equal(emfile.read(tmp_path / "b.em")[1], DATA)


def test_em_that_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = em_file(tmp_path / "a.em", DATA, 5, "<", 6)
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"a.em is cut off: its header states 7 x 6 x 5 voxels of 4 bytes"):
        open_volume(file)
    file.write_bytes(whole + bytes(100))
    np.testing.assert_array_equal(open_volume(file).read(), DATA)
    assert "a.em has 100 bytes after its voxels" in caplog.text
    for says, content in {
        "no whole header": b"\6\0\0\5",
        "holds complex numbers": b"\6\0\0\10".replace(b"\10", bytes([8])) + whole[4:],
        "no known machine and type": b"\x20" + whole[1:],
        "no possible size": whole[:4] + bytes(12) + whole[16:],
        "a single image": em_file(tmp_path / "one.em", DATA[:1], 5, "<", 6).read_bytes(),
    }.items():
        file.write_bytes(content)
        with pytest.raises(InputError, match=says):
            open_volume(file)


# ------------------------------------------------------------------------------------------------- Zarr


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("angstrom", 8.0), ("Angstrom", 8.0), ("Å", 8.0), ("\u212b", 8.0), ("ångström", 8.0),
        ("nanometer", 80.0),
        ("nm", 80.0), ("nanometre", 80.0), ("um", 8e4), ("µm", 8e4), ("\u03bcm", 8e4), ("micron", 8e4),
        ("micrometer", 8e4), ("picometer", 0.08), ("mm", 8e7), ("meter", 8e10),
        ("pixel", None), ("pixels", None), ("voxel", None), ("parsec-ish", None), ("px", None),
    ],
)  # fmt: skip
def test_units_of_axes(tmp_path: Path, unit: str, size: float | None) -> None:
    write_ome_zarr(tmp_path / "a.zarr", DATA.astype(np.float32), 8.0)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    words = dict(group.attrs["ome"])  # type: ignore[call-overload]
    for axis in words["multiscales"][0]["axes"]:
        axis["unit"] = unit
    group.attrs["ome"] = words
    assert open_volume(tmp_path / "a.zarr").voxel_size == (None if size is None else pytest.approx(size))
    assert open_volume(tmp_path / "a.zarr", voxel_size=10.0).voxel_size == 10


def test_units_are_told_by_their_names() -> None:
    assert [angstroms_in(word) for word in ("A", " nm ", "NM", "UM", "furlong", "")] == [
        1,
        10,
        10,
        1e4,
        None,
        None,
    ]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("nested", [True, False])
def test_zipped_zarr(tmp_path: Path, version: Any, nested: bool) -> None:
    inside = tmp_path / "in" / "TS_01.zarr"
    array = zarr.create_array(inside, shape=DATA.shape, dtype="i2", chunks=(2, 3, 4), zarr_format=version)
    array[...] = DATA
    array.attrs["voxel_size"] = 10.0
    packed = shutil.make_archive(str(tmp_path / "TS_01.zarr"), "zip", tmp_path / "in" if nested else inside)
    volume = open_volume(packed)
    assert (volume.name, volume.voxel_size, volume.shape) == ("TS_01", 10.0, DATA.shape)
    np.testing.assert_array_equal(volume.read(), DATA)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).data[2], DATA[2])


def test_zipped_images(tmp_path: Path) -> None:
    write_ome_zarr(tmp_path / "a.zarr", DATA, 8.0, levels=2)
    packed = Path(shutil.make_archive(str(tmp_path / "a.ome.zarr"), "zip", tmp_path / "a.zarr"))
    assert (open_volume(packed).name, open_volume(packed).voxel_size) == ("a", 8.0)
    np.testing.assert_array_equal(open_volume(packed.rename(tmp_path / "a.ozx")).read(), DATA)
    with zarr.storage.ZipStore(tmp_path / "b.zip", mode="w") as store:  # as zarr writes it itself
        zarr.create_array(store, data=DATA)
    np.testing.assert_array_equal(open_volume(tmp_path / "b.zip").read(), DATA)
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as file:
        file.writestr("hello.txt", "hello")
    with pytest.raises(InputError, match=r"text.zip holds no Zarr array"):
        open_volume(tmp_path / "text.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cut.zip is not a zip file that can be read"):
        open_volume(tmp_path / "cut.zip")


@given(st.binary(max_size=2000), st.sampled_from([".mrc", ".em", ".mrc.bz2", ".zip", ".h5"]))
@settings(max_examples=60, deadline=None)
def test_garbage_is_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    file = tmp_path_factory.mktemp("garbage") / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        open_volume(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("axes", ["xyz", "zyx", "yxz", "xzy"])
@pytest.mark.parametrize("kind", ["dimension_names", "xarray", "hdf5"])
def test_axes_that_have_names(tmp_path: Path, axes: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A volume is z, y, x whatever the order in which it is stored, if its axes say which they are."""
    import h5py

    zyx = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    stored = zyx.transpose([*("zyx".index(axis) for axis in axes)])
    path = tmp_path / f"{axes}.{'h5' if kind == 'hdf5' else 'zarr'}"
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            made = file.create_dataset("volume", data=stored)
            for k, axis in enumerate(axes):
                made.dims[k].label = axis.upper()
    else:
        named: dict[str, Any] = (
            {"dimension_names": [*axes]} if kind == "dimension_names" else {"zarr_format": 2}
        )
        array = zarr.create_array(path, shape=stored.shape, chunks=(2, 2, 2), dtype="f4", **named)
        array[:] = stored
        if kind == "xarray":
            array.attrs["_ARRAY_DIMENSIONS"] = [*axes]
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), zyx)
    np.testing.assert_array_equal(volume.data[1:, :2, 3], zyx[1:, :2, 3])
    assert (axes != "zyx") == any("turned to z, y, x" in record.message for record in caplog.records)


@pytest.mark.parametrize(("unit", "scale", "size"), [(None, 1, None), (None, 7.5, 7.5)])
def test_a_scale_of_1_without_a_unit_is_none(
    tmp_path: Path, unit: str | None, scale: float, size: Any
) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.create_array("0", shape=(4, 4, 4), dtype="f4")
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    steps = [{"type": "scale", "scale": [scale] * 3}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    assert open_volume(tmp_path / "a.zarr").voxel_size == size


def test_images_of_a_tiff_that_are_no_planes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import tifffile

    data = np.zeros((3, 8, 9), np.float32)
    tifffile.imwrite(tmp_path / "z.tif", data, imagej=True, metadata={"axes": "ZYX"})
    assert open_volume(tmp_path / "z.tif").shape == (3, 8, 9)
    assert not caplog.records
    for axis, word in (("C", "channels"), ("T", "of different times")):
        tifffile.imwrite(tmp_path / f"{axis}.tif", data, imagej=True, metadata={"axes": f"{axis}YX"})
        assert open_volume(tmp_path / f"{axis}.tif").shape == (3, 8, 9)
        assert word in caplog.records[-1].message
