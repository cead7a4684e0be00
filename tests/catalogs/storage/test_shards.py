"""Chunks come out of shards as Zarr reads them, and what is damaged is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import CRC32C
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from catalogs.storage.reader import StoredArray
from catalogs.storage.shards import local_shards

SHAPE, CHUNK, SHARD = (13, 20, 9), (4, 4, 4), (8, 12, 8)
LZ4 = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")


def written(path: Path, dtype: str, **options: Any) -> tuple[zarr.Array[Any], Any]:
    data = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    usual: dict[str, Any] = {"chunks": CHUNK, "shards": SHARD, "compressors": LZ4, "dimension_names": "zyx"}
    full = {"write_empty_chunks": True}
    array = zarr.create_array(path, shape=SHAPE, dtype=dtype, config=full, **usual | options)
    array[...] = data
    return array, data


LAYOUTS = [
    ("float32", (LZ4, Crc32cCodec())),
    ("float32", LZ4),
    ("uint8", (ZstdCodec(level=3), Crc32cCodec())),
    ("uint16", ZstdCodec(level=3)),
]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[StoredArray, Any]]:
    folder = tmp_path_factory.mktemp("shards")
    made = []
    for k, (dtype, compressors) in enumerate(LAYOUTS):
        array, data = written(folder / str(k), dtype, compressors=compressors)
        made.append((StoredArray(array, str(folder / str(k))), data))
    return made


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_box_is_put_together_from_its_pieces(arrays: Any, data: st.DataObject) -> None:
    array, values = data.draw(st.sampled_from(arrays))
    ends = [sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in SHAPE]
    start, stop = zip(*ends, strict=True)
    whole = np.full(SHAPE, 255, values.dtype)
    n = 0
    for first, piece in array.pieces(start, stop):
        assert piece.dtype == values.dtype
        place = tuple(slice(a, a + edge) for a, edge in zip(first, piece.shape, strict=True))
        here = whole[place]
        here[...] = piece[tuple(map(slice, here.shape))]
        n += 1
    box = tuple(map(slice, start, stop))
    np.testing.assert_array_equal(whole[box], values[box])
    edges = zip(start, stop, CHUNK, strict=True)
    assert n == np.prod([-(-b // edge) - a // edge for a, b, edge in edges])  # nothing twice, nothing in vain


@pytest.mark.parametrize("options", [
    {"shards": None},
    {"compressors": GzipCodec()},
    {"compressors": (LZ4, ZstdCodec())},
    {"compressors": None},
    {"serializer": BytesCodec(endian="big")},
    {"chunk_key_encoding": {"name": "default", "separator": "."}},
])  # fmt: skip
def test_other_layouts_are_read_by_a_library(tmp_path: Path, options: dict[str, Any]) -> None:
    array, data = written(tmp_path / "a", "uint16", **options)
    assert local_shards(array, str(tmp_path / "a")) is None
    pieces = list(StoredArray(array, str(tmp_path / "a")).pieces((1, 2, 3), (5, 6, 7)))
    assert [first for first, _ in pieces] == [(1, 2, 3)]
    np.testing.assert_array_equal(pieces[0][1], data[1:5, 2:6, 3:7])


def test_what_is_not_on_a_disk_is_left_to_a_library(tmp_path: Path) -> None:
    array, _ = written(tmp_path / "a", "uint16")
    assert local_shards(array, "s3://bucket/a") is None


def read(path: Path) -> None:
    shards = local_shards(zarr.open_array(path, mode="r"), str(path))
    assert shards is not None
    for _ in shards.chunks((0, 0, 0), SHAPE):
        pass


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    written(path, "float32", compressors=(LZ4, Crc32cCodec()))
    shard = path / "c" / "0" / "1" / "0"
    whole = shard.read_bytes()
    read(path)
    for at, says in ((3, "checksum of a chunk"), (len(whole) - 20, "checksum of the index")):
        changed = bytearray(whole)
        changed[at] ^= 1
        shard.write_bytes(changed)
        with pytest.raises(ValueError, match=says):
            read(path)
    shard.write_bytes(whole[-50:])
    with pytest.raises(ValueError, match="cut off"):
        read(path)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        read(path)


def test_a_chunk_that_was_never_written_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a"
    array = zarr.create_array(
        path, shape=SHAPE, dtype="uint8", chunks=CHUNK, shards=SHARD, compressors=(ZstdCodec(), Crc32cCodec())
    )
    array[:4, :4, :4] = 1
    with pytest.raises(ValueError, match="a chunk is lost"):
        read(path)


def test_a_layout_compressed_twice_is_read_within_its_bounds(tmp_path: Path) -> None:
    from catalogs.errors import InputError
    from catalogs.storage.bounded import bound

    bound()
    small, large = {"chunks": (8, 8), "shards": None}, {"chunks": (4096, 4096), "shards": None}
    for options in (small, large):
        array = zarr.create_array(
            tmp_path / str(options["chunks"][0]), shape=options["chunks"], dtype="uint8",
            compressors=(LZ4, ZstdCodec()), fill_value=1, config={"write_empty_chunks": True}, **options,
        )  # fmt: skip
        array[...] = 7
    assert (zarr.open_array(tmp_path / "8", mode="r")[...] == 7).all()
    # the chunk of the large array, in the place of the small one's: 16 MB where 64 bytes may stand
    (tmp_path / "8" / "c" / "0" / "0").write_bytes((tmp_path / "4096" / "c" / "0" / "0").read_bytes())
    with pytest.raises(InputError, match="would unpack to more than the 64 bytes"):
        zarr.open_array(tmp_path / "8", mode="r")[...]


@pytest.mark.parametrize(
    "packers",
    [(LZ4, ZstdCodec()), (GzipCodec(), ZstdCodec(), Crc32cCodec()), (ZstdCodec(), GzipCodec(), LZ4)],
)
def test_each_layer_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packers: tuple[Any, ...]
) -> None:
    from catalogs.storage.bounded import bound

    bound()
    array = zarr.create_array(
        tmp_path / "a", shape=(16, 16), chunks=(8, 8), dtype="uint8", compressors=packers, fill_value=0
    )
    data = np.arange(256, dtype=np.uint8).reshape(16, 16)
    array[...] = data
    counted: list[str] = []
    for kind in (BloscCodec, ZstdCodec, GzipCodec):
        theirs = kind.decode

        def decode(self: Any, pairs: Any, theirs: Any = theirs) -> Any:
            pairs = list(pairs)
            counted.extend([type(self).__name__] * len(pairs))
            return theirs(self, pairs)

        monkeypatch.setattr(kind, "decode", decode)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[...], data)
    assert {name: counted.count(name) for name in set(counted)} == {
        type(packer).__name__: 4 for packer in packers if not isinstance(packer, Crc32cCodec)
    }


def test_a_shard_whose_index_lies_about_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    array = zarr.create_array(
        path, shape=SHAPE, dtype="uint8", chunks=CHUNK, shards=SHARD, compressors=(ZstdCodec(), Crc32cCodec())
    )
    array[...] = 1
    shard = next(file for file in sorted((path / "c").rglob("*")) if file.is_file())
    content = bytearray(shard.read_bytes())
    n = int(np.prod(np.array(SHARD) // np.array(CHUNK)))
    index = np.frombuffer(bytes(content[-16 * n - 4 : -4]), "<u8").copy()
    index[1] = 1 << 60  # an exabyte
    content[-16 * n - 4 :] = bytes(CRC32C(location="end").encode(index.tobytes()))
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cut off"):
        read(path)
