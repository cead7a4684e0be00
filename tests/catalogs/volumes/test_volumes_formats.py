"""Volumes in HDF5, TIFF, Zarr, and in the folders of copick and of the CryoET Data Portal."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from catalogs.errors import InputError
from catalogs.volumes import Binning, open_volume, write_mrc, write_ome_zarr

SHAPE = (5, 6, 7)
DATA = np.arange(210).reshape(SHAPE).astype(np.float32)

IMOD = {
    **{f"IMOD.MRC.m{axis}": n for axis, n in zip("xyz", (7, 6, 5), strict=True)},
    **{f"IMOD.MRC.{axis}len": np.float32(n * 9.5) for axis, n in zip("xyz", (7, 6, 5), strict=True)},
    **{f"IMOD.MRC.{axis}origin": np.float32(o) for axis, o in zip("xyz", (1, -2, 3), strict=True)},
}


def make_hdf5(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, dict[str, Any]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(2,) * array.ndim if array.ndim > 1 else None)
        for name, values in attributes.items():
            file[name].attrs.update(values)
    return path


class TestHdf5:
    def test_deepfinder(self, tmp_path: Path) -> None:
        arrays = {"dataset": DATA.astype(np.int8), "another": DATA}
        volume = open_volume(make_hdf5(tmp_path / "tomo1.h5", arrays, {}))
        assert (volume.name, volume.voxel_size, volume.shape) == ("tomo1", None, SHAPE)
        assert volume.dtype == np.int8
        np.testing.assert_array_equal(volume.data[1:3, ::2, -1], DATA.astype(np.int8)[1:3, ::2, -1])

    def test_volume_of_imod(self, tmp_path: Path) -> None:
        file = make_hdf5(tmp_path / "a.hdf", {"MDF/images/0/image": DATA}, {"MDF/images/0": IMOD})
        volume = open_volume(file.rename(tmp_path / "TS_01.rec"))  # as IMOD names all its output
        assert (volume.name, volume.voxel_size, volume.origin) == ("TS_01", 9.5, (1.0, -2.0, 3.0))
        np.testing.assert_array_equal(volume.read(), DATA)

    def test_stack_of_imod(self, tmp_path: Path) -> None:
        order = [3, 0, 4, 10, 2]  # as the file system may list them; 10 comes after 4
        arrays = {f"MDF/images/{k}/image": DATA[sorted(order).index(k)] for k in order}
        volume = open_volume(make_hdf5(tmp_path / "a.hdf", arrays, {"MDF/images": IMOD}))
        assert (volume.shape, volume.voxel_size) == (SHAPE, 9.5)
        np.testing.assert_array_equal(volume.read(), DATA)
        np.testing.assert_array_equal(volume.data[2:4, 1:3, 5], DATA[2:4, 1:3, 5])
        assert volume.data[2:2].shape == (0, 6, 7)

    def test_eman(self, tmp_path: Path) -> None:
        facts = {f"EMAN.apix_{axis}": 6.25 for axis in "xyz"} | {f"EMAN.origin_{axis}": 1.0 for axis in "xyz"}
        file = make_hdf5(tmp_path / "a.hdf", {"MDF/images/0/image": DATA}, {"MDF/images/0": facts})
        assert (open_volume(file).voxel_size, open_volume(file).origin) == (6.25, (1.0, 1.0, 1.0))

    def test_the_one_volume(self, tmp_path: Path) -> None:
        arrays = {"a/b/deep": DATA, "angles": np.arange(5)}
        file = make_hdf5(tmp_path / "a.h5", arrays, {"a/b/deep": {"voxel_size": 12.0}})
        volume = open_volume(file)
        assert volume.voxel_size == 12.0
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), DATA)
        assert volume.dask(n_bytes=64).chunksize == (2, 2, 4)

    def test_refuses(self, tmp_path: Path) -> None:
        for says, arrays in {
            r"it holds several \(a, b\)": {"a": DATA, "b": DATA},
            "it holds none": {"angles": np.arange(5)},
            "dataset has 2 axes": {"dataset": DATA[0]},
            "holds complex64": {"dataset": DATA.astype(np.complex64)},
            "it holds 2 volumes": {"MDF/images/0/image": DATA, "MDF/images/1/image": DATA},
            "images differ in size": {"MDF/images/0/image": DATA[0], "MDF/images/1/image": DATA[0, 1:]},
        }.items():
            with pytest.raises(InputError, match=says):
                open_volume(make_hdf5(tmp_path / "a.h5", arrays, {}))
        make_hdf5(tmp_path / "cut.h5", {"dataset": DATA}, {})
        (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:1000])
        with pytest.raises(InputError, match=r"cut\.h5 is not an HDF5 file that can be read"):
            open_volume(tmp_path / "cut.h5")
        flat = {f"IMOD.MRC.{axis}len": np.float32(9) for axis in "xyz"}
        file = make_hdf5(tmp_path / "b.h5", {"MDF/images/0/image": DATA}, {"MDF/images/0": IMOD | flat})
        with pytest.raises(InputError, match=r"b\.h5 are not cubes"):
            open_volume(file)


class TestTiff:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("how", [{"bigtiff": True}, {"compression": "zlib"}, {"contiguous": False}])
    def test_stack(self, tmp_path: Path, dtype: Any, order: Any, how: dict[str, Any]) -> None:
        with tifffile.TiffWriter(
            tmp_path / "a.tif", byteorder=order, bigtiff=how.pop("bigtiff", False)
        ) as out:
            for plane in DATA.astype(dtype):
                out.write(plane, **{"contiguous": "compression" not in how, **how})
        volume = open_volume(tmp_path / "a.tif")
        assert (volume.shape, volume.voxel_size, volume.name) == (SHAPE, None, "a")
        np.testing.assert_array_equal(volume.data[1:4, 2:, ::-1], DATA[1:4, 2:, ::-1])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), DATA)

    @pytest.mark.parametrize(
        ("unit", "size"),
        [("nm", 10.52), ("\\u00B5m", 10520.0), ("micron", 10520.0), ("Angstrom", 1.052), ("pixel", None)],
    )
    def test_voxel_size_of_imagej(self, tmp_path: Path, unit: str, size: float | None) -> None:
        meta = {"axes": "ZYX", "unit": unit, "spacing": 1.052}
        tifffile.imwrite(tmp_path / "a.tif", DATA, imagej=True, resolution=(1 / 1.052,) * 2, metadata=meta)
        assert open_volume(tmp_path / "a.tif").voxel_size == (pytest.approx(size) if size else None)

    def test_planes_further_apart_than_pixels(self, tmp_path: Path) -> None:
        meta = {"axes": "ZYX", "unit": "nm", "spacing": 2.0}
        tifffile.imwrite(tmp_path / "a.tif", DATA, imagej=True, resolution=(1.0, 1.0), metadata=meta)
        with pytest.raises(InputError, match=r"not cubes \(10 x 10 x 20 Å\)"):
            open_volume(tmp_path / "a.tif")

    @pytest.mark.parametrize(
        ("resolution", "unit", "size"),
        [(1e7, "CENTIMETER", 10.0), (2.54e7, "INCH", 10.0), (72, "INCH", None), (1.0, "NONE", None)],
    )
    def test_voxel_size_of_the_resolution(
        self, tmp_path: Path, resolution: float, unit: str, size: float | None
    ) -> None:
        how = {"resolution": (resolution, resolution), "resolutionunit": unit, "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", DATA, photometric="minisblack", **how)
        assert open_volume(tmp_path / "a.tif").voxel_size == (pytest.approx(size, 1e-6) if size else None)

    def test_voxel_size_of_ome(self, tmp_path: Path) -> None:
        meta: dict[str, Any] = {"axes": "ZYX"}
        for axis in "XYZ":
            meta |= {f"PhysicalSize{axis}": 0.001348, f"PhysicalSize{axis}Unit": "µm"}
        tifffile.imwrite(tmp_path / "a.ome.tif", DATA, metadata=meta)
        volume = open_volume(tmp_path / "a.ome.tif")
        assert volume.voxel_size == pytest.approx(13.48)
        np.testing.assert_array_equal(volume.read(), DATA)

    def test_refuses(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((5, 6, 7, 3), np.uint8), photometric="rgb")
        with pytest.raises(InputError, match=r"rgb\.tif is not one volume: .*give a stack of grey images"):
            open_volume(tmp_path / "rgb.tif")
        tifffile.imwrite(tmp_path / "one.tif", DATA[0])
        with pytest.raises(InputError, match="it has the axes YX of sizes 6 x 7"):
            open_volume(tmp_path / "one.tif")
        for how in ({}, {"compression": "zlib"}, {"bigtiff": True}):
            tifffile.imwrite(tmp_path / "good.tif", DATA, metadata=None, **how)  # type: ignore[arg-type]
            content = (tmp_path / "good.tif").read_bytes()
            for n in range(200, len(content) - 200, 97):
                (tmp_path / "cut.tif").write_bytes(content[:-n])
                with pytest.raises(InputError, match=r"cut\.tif is (cut off|not a TIFF file)"):
                    open_volume(tmp_path / "cut.tif")
        (tmp_path / "bad.tif").write_bytes(b"II*\0garbage that is no directory")
        with pytest.raises(InputError, match=r"bad\.tif is cut off"):
            open_volume(tmp_path / "bad.tif")

    def test_real_stacks(self, shared: Path) -> None:
        for name, shape in {"13pf_MT": (36, 206, 94), "14pf_MT": (44, 136, 84)}.items():
            volume = open_volume(shared / "tomograms" / f"{name}.tif")
            assert (volume.name, volume.shape) == (name, shape)
            assert volume.voxel_size == pytest.approx(10.52, rel=1e-4)
            whole = tifffile.imread(shared / "tomograms" / f"{name}.tif")
            np.testing.assert_array_equal(volume.data[10:12, 5:50, 7:9], whole[10:12, 5:50, 7:9])


def make_array(store: Any, data: np.ndarray, version: Any, **attributes: Any) -> None:
    array = zarr.create_array(
        store, shape=data.shape, dtype=data.dtype, chunks=(2,) * data.ndim, zarr_format=version
    )
    array[...] = data
    array.attrs.update(attributes)


class TestZarr:
    @pytest.mark.parametrize("version", [2, 3])
    def test_array(self, tmp_path: Path, version: int) -> None:
        make_array(tmp_path / "tomo.zarr", DATA, version, voxel_size=[7.5, 7.5, 7.5])
        volume = open_volume(tmp_path / "tomo.zarr")
        assert (volume.name, volume.voxel_size, volume.shape) == ("tomo", 7.5, SHAPE)
        np.testing.assert_array_equal(volume.read(), DATA)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).data[2], DATA[2])

    @pytest.mark.parametrize("version", [2, 3])
    def test_group_with_one_volume(self, tmp_path: Path, version: Any) -> None:
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version, attributes={"voxel_spacing": 10})
        make_array(tmp_path / "a.zarr" / "data", DATA, version)
        make_array(tmp_path / "a.zarr" / "angles", np.arange(4), version)
        assert group
        assert open_volume(tmp_path / "a.zarr").voxel_size == 10.0
        make_array(tmp_path / "a.zarr" / "more", DATA, version)
        with pytest.raises(InputError, match=r"holds several \(data, more\); name one of them"):
            open_volume(tmp_path / "a.zarr")
        assert open_volume(tmp_path / "a.zarr" / "more").voxel_size is None

    def test_level_of_an_image(self, tmp_path: Path) -> None:
        write_ome_zarr(tmp_path / "a.zarr", DATA, 8.0, origin=(10.0, 20.0, 30.0), levels=3)
        level = open_volume(tmp_path / "a.zarr" / "2")
        assert (level.voxel_size, level.binning) == (32.0, Binning(4, "box"))
        # voxel 0 of the coarser level lies in the middle of those that it is the mean of
        assert level.origin == (10.0 + 12.0, 20.0 + 12.0, 30.0 + 12.0)
        finest = open_volume(tmp_path / "a.zarr" / "0")
        assert (finest.voxel_size, finest.binning, finest.origin) == (8.0, None, (10.0, 20.0, 30.0))

    def test_axes_of_length_one(self, tmp_path: Path) -> None:
        axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
        axes += [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        scale = {"type": "scale", "scale": [1, 1, 1.348, 1.348, 1.348]}
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
        # as bioformats2raw writes it: the image is in a group called 0
        zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
        zarr.create_group(tmp_path / "a.zarr" / "0", zarr_format=2, attributes={"multiscales": [image]})
        make_array(tmp_path / "a.zarr" / "0" / "0", DATA[None, None], 2)
        volume = open_volume(tmp_path / "a.zarr")
        assert (volume.shape, volume.voxel_size) == (SHAPE, pytest.approx(13.48))
        np.testing.assert_array_equal(volume.data[1:3, 2], DATA[1:3, 2])
        assert volume.dask(n_bytes=64).chunksize == (2, 2, 4)
        make_array(tmp_path / "b.zarr" / "0", np.stack([DATA, DATA])[None], 2)
        zarr.create_group(tmp_path / "b.zarr", zarr_format=2, attributes={"multiscales": [image]})
        with pytest.raises(InputError, match="it has several along c"):
            open_volume(tmp_path / "b.zarr")

    def test_refuses(self, tmp_path: Path) -> None:
        make_array(tmp_path / "flat.zarr", DATA[0], 3)
        with pytest.raises(InputError, match="its array has 2 axes"):
            open_volume(tmp_path / "flat.zarr")
        make_array(tmp_path / "text.zarr", DATA, 3, voxel_size="large")
        with pytest.raises(InputError, match=r"attribute voxel_size of .*text\.zarr must be in Å"):
            open_volume(tmp_path / "text.zarr")
        make_array(tmp_path / "bad.zarr", DATA, 3)
        (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
        with pytest.raises(InputError, match=r"bad\.zarr is not Zarr that can be read"):
            open_volume(tmp_path / "bad.zarr")


class TestLayouts:
    def test_copick(self, tmp_path: Path) -> None:
        run = tmp_path / "ExperimentRuns" / "TS_01"
        write_ome_zarr(run / "VoxelSpacing10.000" / "wbp.zarr", DATA, 10.0)
        write_ome_zarr(run / "VoxelSpacing10.000" / "wbp_sobel_features.zarr", DATA, 10.0)
        write_ome_zarr(run / "Segmentations" / "10.000_me_0_all-multilabel.zarr", DATA, 10.0)
        for place in (run, run / "VoxelSpacing10.000", run / "VoxelSpacing10.000" / "wbp.zarr"):
            volume = open_volume(place)
            assert (volume.name, volume.voxel_size, volume.shape) == ("TS_01", 10.0, SHAPE)
        write_ome_zarr(run / "VoxelSpacing10.000" / "denoised.zarr", DATA, 10.0)
        with pytest.raises(InputError, match=r"holds 2 \(denoised\.zarr, wbp\.zarr\); name the one"):
            open_volume(run)
        write_ome_zarr(run / "VoxelSpacing20.000" / "wbp.zarr", DATA, 20.0)
        with pytest.raises(InputError, match=r"holds 2 \(VoxelSpacing10\.000, VoxelSpacing20\.000\)"):
            open_volume(run)

    @pytest.mark.parametrize("layout", ["Reconstructions/VoxelSpacing13.480/Tomograms/100",
                                        "Tomograms/VoxelSpacing13.480/CanonicalTomogram"])  # fmt: skip
    def test_data_portal(self, tmp_path: Path, layout: str) -> None:
        run = tmp_path / "10301" / "14069-b3"
        write_mrc(run / layout / "14069-b3.mrc", DATA, 0.0)
        for place in (run, run / layout.partition("/")[0], run / layout, run / layout / "14069-b3.mrc"):
            volume = open_volume(place)
            assert (volume.name, volume.shape) == ("14069-b3", SHAPE)
            assert volume.voxel_size == 13.48  # the header does not know, the folder does
        write_ome_zarr(run / layout / "14069-b3.zarr", DATA + 1, 13.48)
        assert open_volume(run).data[0, 0, 0] == 1  # of the same tomogram twice, Zarr

    def test_memory(self) -> None:
        place = "memory://portal/10301/ts/Reconstructions/VoxelSpacing10.000/Tomograms/7"
        write_mrc(f"{place}/ts.mrc", DATA, 10.0)
        assert open_volume("memory://portal/10301/ts").name == "ts"

    def test_header_against_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "TS_01" / "VoxelSpacing10.000" / "wbp.zarr"
        write_ome_zarr(file, DATA, 8.0)
        with pytest.raises(InputError, match="states voxels of 8 Å and lies in a folder for 10 Å"):
            open_volume(file)

    def test_other_folders(self, tmp_path: Path) -> None:
        (tmp_path / "Tomograms").mkdir()
        with mrcfile.new(tmp_path / "Tomograms" / "a.mrc") as mrc:
            mrc.set_data(DATA)
        with pytest.raises(InputError, match="is not a Zarr array or an OME-Zarr image"):
            open_volume(tmp_path)
