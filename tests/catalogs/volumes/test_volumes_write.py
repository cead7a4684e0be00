"""Writing volumes: whole or not at all, from arrays and streams, and within a bound of memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import mrcfile
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from catalogs.volumes import Binning, Volume, open_volume, write_mrc, write_ome_zarr
from catalogs.volumes import ome_writer as ome_writer_module
from catalogs.volumes.volume import blocks

SHAPE = (5, 6, 7)
DATA = np.arange(210).reshape(SHAPE).astype(np.float32)
KNOWN: dict[str, Any] = {
    "origin": (1.5, -2.0, 3.0),
    "contrast": "dark",
    "binning": Binning(4, "box"),
}


def stream(data: np.ndarray) -> Iterator[np.ndarray]:
    yield data[0]  # a plane
    yield data[1:4]  # a slab
    yield data[4:]


def facts(volume: Volume) -> dict[str, Any]:
    return {"origin": volume.origin, "contrast": volume.contrast, "binning": volume.binning}


class TestMrc:
    @pytest.mark.parametrize(
        ("dtype", "written", "mode"),
        [("i1", "i1", 0), ("i2", "i2", 1), ("u1", "u2", 6), ("u2", "u2", 6), ("f2", "f2", 12),
         ("f4", "f4", 2), ("f8", "f4", 2), (">i2", "i2", 1), ("?", "i1", 0)],
    )  # fmt: skip
    def test_modes(self, tmp_path: Path, dtype: str, written: str, mode: int) -> None:
        data = (DATA % 100).astype(dtype)
        write_mrc(tmp_path / "new" / "a.mrc", data, 8.5, **KNOWN)
        if mode != 12:  # of which mrcfile computes the spread in half precision, which overflows
            assert mrcfile.validate(tmp_path / "new" / "a.mrc")
        with mrcfile.open(tmp_path / "new" / "a.mrc") as mrc:  # the strict reader
            assert mrc.is_volume()
            assert mrc.header.mode == mode
            np.testing.assert_array_equal(mrc.data, data)
            assert mrc.header.dmax == data.max()
            assert mrc.header.dmean == pytest.approx(data.mean(dtype=float))
            assert mrc.header.rms == pytest.approx(data.std(dtype=float))
        volume = open_volume(tmp_path / "new" / "a.mrc")
        assert volume.voxel_size == pytest.approx(8.5)
        assert facts(volume) == KNOWN
        assert volume.dtype == np.dtype(written)
        assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.mrc"]

    def test_sources(self, tmp_path: Path) -> None:
        stored = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype="f4", chunks=(2, 2, 2))
        stored[...] = DATA
        write_mrc(tmp_path / "array.mrc", DATA, 10.0)
        expected = (tmp_path / "array.mrc").read_bytes()
        volume = open_volume(tmp_path / "array.mrc")
        for name, source in {"zarr": stored, "dask": da.from_array(DATA, chunks=2), "volume": volume}.items():
            write_mrc(tmp_path / f"{name}.mrc", source, 10.0)
            assert (tmp_path / f"{name}.mrc").read_bytes() == expected
        write_mrc(tmp_path / "stream.mrc", stream(DATA), 10.0, shape=SHAPE, dtype="f4")
        assert (tmp_path / "stream.mrc").read_bytes() == expected
        write_mrc(tmp_path / "a.mrc.gz", stream(DATA), 10.0, shape=SHAPE, dtype="f4")
        assert gzip.decompress((tmp_path / "a.mrc.gz").read_bytes()) == expected
        np.testing.assert_array_equal(open_volume(tmp_path / "a.mrc.gz").read(), DATA)

    def test_to_a_url(self) -> None:
        write_mrc("memory://lab/tomo.mrc", DATA, 10.0)
        volume = open_volume("memory://lab/tomo.mrc")
        assert volume.voxel_size == 10.0
        np.testing.assert_array_equal(volume.read(), DATA)
        np.testing.assert_array_equal(volume.data[1:4, 2:5, 3], DATA[1:4, 2:5, 3])

    def test_not_at_all(self, tmp_path: Path) -> None:
        def breaks() -> Iterator[np.ndarray]:
            yield DATA[:2]
            raise RuntimeError("the source broke")

        write_mrc(tmp_path / "a.mrc", DATA, 10.0)
        before = (tmp_path / "a.mrc").read_bytes()
        with pytest.raises(RuntimeError, match="the source broke"):
            write_mrc(tmp_path / "a.mrc", breaks(), 10.0, shape=SHAPE, dtype="f4")
        with pytest.raises(ValueError, match="5 planes were given for a volume of"):
            write_mrc(tmp_path / "a.mrc", stream(DATA), 10.0, shape=(6, 6, 7), dtype="f4")
        with pytest.raises(ValueError, match="does not fit a volume"):
            write_mrc(tmp_path / "a.mrc", stream(DATA), 10.0, shape=(5, 6, 8), dtype="f4")
        with pytest.raises(InputError, match="MRC cannot hold int64; convert it to float32"):
            write_mrc(tmp_path / "a.mrc", DATA.astype(int), 10.0)
        with pytest.raises(ValueError, match="need the shape"):
            write_mrc(tmp_path / "a.mrc", stream(DATA), 10.0)
        with pytest.raises(ValueError, match="at least one voxel"):
            write_mrc(tmp_path / "a.mrc", DATA[:0], 10.0)
        assert (tmp_path / "a.mrc").read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["a.mrc"]


class TestOmeZarr:
    @pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "i4", "f2", "f4", "f8"])
    @pytest.mark.parametrize("place", ["disk", "memory"])
    def test_round_trip(self, tmp_path: Path, dtype: str, place: str) -> None:
        path = str(tmp_path / "a.zarr") if place == "disk" else f"memory://round/{dtype}.zarr"
        write_ome_zarr(path, DATA.astype(dtype), 8.5, **KNOWN)
        volume = open_volume(path)
        assert (volume.voxel_size, volume.dtype, volume.name) == (8.5, np.dtype(dtype), volume.name)
        assert facts(volume) == KNOWN
        np.testing.assert_array_equal(volume.data[:], DATA.astype(dtype))
        if place == "disk":
            assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]

    def test_unknown_voxel_size(self, tmp_path: Path) -> None:
        write_ome_zarr(tmp_path / "a.zarr", DATA, None)
        assert open_volume(tmp_path / "a.zarr").voxel_size is None

    def test_pyramid_averages(self, tmp_path: Path) -> None:
        write_ome_zarr(tmp_path / "a.zarr", DATA, 8.0, levels=2)
        coarse = open_volume(tmp_path / "a.zarr" / "1").data[:]
        assert coarse.shape == (3, 3, 4)
        assert coarse[0, 1, 2] == DATA[0:2, 2:4, 4:6].mean()
        assert coarse[2, 2, 3] == DATA[4, 4:6, 6].mean()  # at the odd ends only what there is

    def test_pyramid_of_labels(self, tmp_path: Path) -> None:
        labels = np.random.default_rng(0).choice([0, 7, 200], SHAPE).astype(np.uint8)
        write_ome_zarr(tmp_path / "a.zarr", labels, 8.0, levels=2, labels=True, origin=(8.0, 0.0, 0.0))
        level = open_volume(tmp_path / "a.zarr" / "1")
        np.testing.assert_array_equal(level.data[:], labels[::2, ::2, ::2])
        assert (level.origin, level.binning) == ((8.0, 0.0, 0.0), Binning(2))

    @pytest.mark.parametrize("held", [10**9, 0])
    def test_streams(self, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ome_writer_module, "_SHARD", 64)
        monkeypatch.setattr(ome_writer_module, "_STREAMED", held)  # 0: everything goes to a file first
        data = np.random.default_rng(0).normal(size=(150, 70, 130)).astype(np.float32)
        slabs = (data[k : k + 17] for k in range(0, 150, 17))
        write_ome_zarr(tmp_path / "a.zarr", slabs, 8.0, shape=data.shape, dtype="f4", levels=2)
        np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").data[:], data)
        assert {file.name for file in tmp_path.iterdir()} == {"a.zarr"}
        with pytest.raises(ValueError, match="150 planes were given"):
            write_ome_zarr(tmp_path / "b.zarr", iter(data), 8.0, shape=(151, 70, 130), dtype="f4")
        assert not (tmp_path / "b.zarr").exists()

    def test_what_is_there_stays(self, tmp_path: Path) -> None:
        for path in (tmp_path / "a.zarr", "memory://stays/a.zarr"):
            write_ome_zarr(path, DATA, 8.0)
            with pytest.raises(InputError, match=r"a\.zarr already exists"):
                write_ome_zarr(path, DATA, 8.0)
            np.testing.assert_array_equal(open_volume(path).data[:], DATA)
            write_ome_zarr(path, DATA[:3], 4.0, overwrite=True)
            assert (open_volume(path).shape, open_volume(path).voxel_size) == ((3, 6, 7), 4.0)
        with pytest.raises(ValueError, match="planes"):
            write_ome_zarr(tmp_path / "a.zarr", iter(DATA), 8.0, shape=(6, 6, 7), dtype="f4", overwrite=True)
        assert open_volume(tmp_path / "a.zarr").shape == (3, 6, 7)
        assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]

    def test_nobody_sees_it_before_it_is_whole(self, tmp_path: Path) -> None:
        for path in (str(tmp_path / "a.zarr"), "memory://half/a.zarr"):

            def watched(path: str = path) -> Iterator[np.ndarray]:
                for plane in DATA:
                    with pytest.raises(InputError):
                        open_volume(path)
                    yield plane

            write_ome_zarr(path, watched(), 8.0, shape=SHAPE, dtype="f4", levels=2)
            assert open_volume(path).shape == SHAPE

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        import fsspec

        class Breaks:
            shape, dtype = SHAPE, DATA.dtype

            def __getitem__(self, key: Any) -> np.ndarray:
                raise RuntimeError("the source broke")

        for path in (str(tmp_path / "a.zarr"), "memory://broken/a.zarr"):
            with pytest.raises(RuntimeError, match="the source broke"):
                write_ome_zarr(path, Breaks(), 8.0)
        assert not list(tmp_path.iterdir())
        assert not fsspec.filesystem("memory").find("/broken")


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    chunks=st.tuples(*[st.integers(1, 80)] * 3),
    n_bytes=st.integers(1, 10**7),
)
@settings(max_examples=200, deadline=None)
def test_blocks(shape: tuple[int, int, int], chunks: tuple[int, int, int], n_bytes: int) -> None:
    row = min(chunks[0], shape[0]) * min(chunks[1], shape[1]) * shape[2] * 4
    covered, at = 0, 0
    for z, y, x in blocks(shape, chunks, 4, n_bytes):
        size = (z.stop - z.start) * (y.stop - y.start) * (x.stop - x.start)
        assert z.start % chunks[0] == y.start % chunks[1] == 0
        assert size * 4 <= max(n_bytes, row)
        covered, at, last = covered + size, z.start, at
        assert at >= last
    assert covered == np.prod(shape)


_CONVERT = """
import json, sys
from catalogs.volumes import open_volume, write_mrc, write_ome_zarr
mrc, image, back = sys.argv[1:]
source = open_volume(mrc)
write_ome_zarr(image, source, source.voxel_size, origin=source.origin)
image = open_volume(image)
write_mrc(back, image, image.voxel_size, origin=image.origin)
places = ((0, 0, 0), (700, 900, 1100), (1023, 1023, 2047))
marks = [float(open_volume(back).data[place]) for place in places]
# of this process alone: the kernel's ru_maxrss begins with that of the process which started it
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print(json.dumps({"rss": 1024 * peak, "marks": marks}))
"""


@pytest.mark.slow
def test_8_gib_within_bounded_memory(tmp_path: Path) -> None:
    """From MRC to OME-Zarr and back, in a process of its own that never holds more than 1 GiB."""
    shape, voxel = (1024, 1024, 2048), 4
    n_bytes = int(np.prod(shape)) * voxel
    assert n_bytes == 8 * 2**30
    file = tmp_path / "large.mrc"
    write_mrc(file, np.zeros((1, 1, 1), np.float32), 5.0, origin=(1.0, 2.0, 3.0))
    with open(file, "r+b") as raw:
        raw.write(np.array(shape[::-1], "<i4").tobytes())
        raw.seek(28)
        raw.write(np.array(shape[::-1], "<i4").tobytes())
        raw.write((np.array(shape[::-1], "<f4") * 5).tobytes())
        for mark, (z, y, x) in enumerate(((0, 0, 0), (700, 900, 1100), (1023, 1023, 2047)), start=1):
            raw.seek(1024 + ((z * 1024 + y) * 2048 + x) * voxel)
            raw.write(np.array(mark, "<f4").tobytes())
    assert os.path.getsize(file) == 1024 + n_bytes
    assert os.stat(file).st_blocks * 512 < 2**20  # holes: nothing but the marks is on the disk
    image, back = tmp_path / "large.zarr", tmp_path / "back.mrc"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, str(file), str(image), str(back)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        said = json.loads(done.stdout)
        print(f"peak of the process: {said['rss'] / 2**20:.0f} MiB for 8192 MiB")
        assert said["marks"] == [1.0, 2.0, 3.0]
        assert said["rss"] < 2**30
        volume = open_volume(back)
        assert (volume.shape, volume.voxel_size, volume.origin) == (shape, 5.0, (1.0, 2.0, 3.0))
    finally:
        for path in (file, back):
            path.unlink(missing_ok=True)
