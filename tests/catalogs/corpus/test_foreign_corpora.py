"""A corpus that somebody else made: nothing outside of it is read, written or removed."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catalogs.corpus import thumbnail
from catalogs.corpus.catalog import Catalog, Sample
from catalogs.errors import InputError
from catalogs.seeds import generator
from catalogs.storage.checksums import checksum
from catalogs.storage.npz import read_npz
from catalogs.storage.store import Store, open_store

MakeSample = Callable[..., Sample]
OUTSIDE = ["../x", "/etc/x", "a/../../x", "..", "a//b", "a/./b", "a\0b", "./a"]


@pytest.fixture
def foreign(corpus: Catalog, make_sample: MakeSample) -> Catalog:
    for k in range(2):
        corpus.write(make_sample(k, shape=(9, 14, 11)))
    return corpus


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder with a file that nobody may touch, older than any grace time."""
    folder = tmp_path / "home"
    (folder / "deep").mkdir(parents=True)
    for file in (folder / "authorized_keys", folder / "deep" / "thesis.txt"):
        file.write_text("mine")
        os.utime(file, (0, 0))
    return folder


def untouched(victim: Path) -> bool:
    files = sorted(path.relative_to(victim).as_posix() for path in victim.rglob("*") if path.is_file())
    return files == ["authorized_keys", "deep/thesis.txt"] and all(
        (victim / file).read_text() == "mine" for file in files
    )


def rewrite(corpus: Catalog, number: int, **changes: Any) -> None:
    """Change a sample's record, as whoever made the corpus could."""
    sample_id = f"{number:016x}"
    file = Path(corpus.url) / f"commits/{sample_id[:2]}/{sample_id}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def poison(corpus: Catalog, number: int, key: str, data: bytes) -> None:
    """Give a sample an object more, whose key leads elsewhere, with checksums that fit."""
    record = corpus.records()[number]
    root = Path(corpus.sample_url(record.sample_id)) / "zarr.json"
    content = json.loads(root.read_text())
    content["attributes"]["template_learning"]["checksums"][key] = checksum(data)
    root.write_text(json.dumps(content))
    facts = {"checksums": {"zarr.json": checksum(root.read_bytes())}}
    rewrite(corpus, number, **facts, n_objects=record.n_objects + 1, n_bytes=record.n_bytes + len(data))


class TestStore:
    @pytest.mark.parametrize("key", OUTSIDE)
    @pytest.mark.parametrize("kind", ["disk", "memory"])
    def test_no_key_leaves_the_root(self, tmp_path: Path, key: str, kind: str) -> None:
        url = str(tmp_path / "root") if kind == "disk" else f"memory://{tmp_path.name}/root"
        store = open_store(url)
        store.write({"a/b": b"1"})
        acts: list[Callable[[], object]] = [
            lambda: store.read(key),
            lambda: list(store.blocks(key, 3)),
            lambda: list(store.blocks(key, 1 << 30)),
            lambda: store.exists(key),
            lambda: store.write({key: b""}),
            lambda: store.create(key, b""),
            lambda: store.remove_objects([key]),
            lambda: store.remove(key),
            lambda: store.entries(key),
            lambda: store.folders(key),
            lambda: store.at(key),
        ]
        for act in acts:
            with pytest.raises(InputError, match="would lead out of its folder"):
                act()
        assert store.read("a/b") == b"1"

    def test_nothing_is_written_or_removed_through_a_link(self, tmp_path: Path, victim: Path) -> None:
        store = Store(str(tmp_path / "root"))
        store.write({"a/b": b"1"})
        (tmp_path / "root/linked").symlink_to(victim)
        (tmp_path / "root/a/link").symlink_to(victim / "authorized_keys")
        for act in (
            lambda: store.write({"linked/authorized_keys": b""}),
            lambda: store.write({"a/link": b""}),
            lambda: store.create("linked/new", b""),
            lambda: store.remove("linked"),
            lambda: store.remove("linked/deep"),
            lambda: store.remove_objects(["linked/authorized_keys"]),
        ):
            with pytest.raises(InputError, match="is a symbolic link"):
                act()
        store.remove("a")  # the link in it goes, what it points to stays
        store.remove_objects(["linked"])
        assert list((tmp_path / "root").iterdir()) == []
        assert untouched(victim)

    def test_patterns_are_names(self, bucket: str) -> None:
        store = open_store(f"{bucket}/root")
        store.write({"samples/a": b"1", "samples/b": b"2", "samples/*": b"3", "samples/[ab]": b"4"})
        store.remove_objects(["samples/*", "samples/[ab]"])
        assert set(store.entries("")) == {"samples/a", "samples/b"}


class TestRecords:
    @pytest.mark.parametrize(
        "path",
        [
            "../outside/x.zarr",
            "/etc",
            "samples/00/../../x.zarr",
            "samples/00/0000000000000001-123456.zarr",
            "samples/01/0000000000000000-123456.zarr",
            "samples/00/0000000000000000-12/456.zarr",
            "samples/00/0000000000000000-123456.zarr\n",
        ],
    )
    def test_a_path_of_another_form(self, foreign: Catalog, path: str, tmp_path: Path) -> None:
        rewrite(foreign, 0, path=path)
        for act in (
            lambda: Catalog.open(foreign.url).samples,
            lambda: Catalog.open(foreign.url).arrays(f"{0:016x}"),
            lambda: Catalog.open(foreign.url).copy_to(tmp_path / "copy"),
        ):
            with pytest.raises(InputError, match="is not the record of a sample"):
                act()
        assert [p.kind for p in foreign.problems()] == ["record"]

    @pytest.mark.parametrize("name", ["\x1b[2Jx", "a\nb", "\x9b31m"])
    def test_a_name_that_steers_the_terminal(self, foreign: Catalog, name: str) -> None:
        rewrite(foreign, 0, name=name)
        with pytest.raises(InputError, match="is not the record of a sample"):
            _ = Catalog.open(foreign.url).samples

    @pytest.mark.parametrize("sample_id", ["../../pwn", "0000000000000001", "000000000000000G"])
    def test_an_id_that_is_not_its_own(self, foreign: Catalog, sample_id: str) -> None:
        rewrite(foreign, 0, sample_id=sample_id)
        with pytest.raises(InputError, match="record of"):
            foreign.records()

    @pytest.mark.parametrize("key", ["../../../../home/authorized_keys", "/etc/x", "0/../../x"])
    def test_keys_of_checksums(self, foreign: Catalog, key: str, victim: Path, tmp_path: Path) -> None:
        poison(foreign, 0, key, b"ssh-rsa attacker")
        done = Catalog.open(foreign.url).copy_to(tmp_path / "copy")
        assert list(done.failed) == [f"{0:016x}"]
        assert "which is not an object of a sample" in done.failed[f"{0:016x}"]
        assert untouched(victim)
        assert {path.name for path in tmp_path.iterdir()} == {"corpus", "copy", "home"}
        assert [p.kind for p in foreign.problems()] == ["sample"]

    def test_keys_of_checksums_in_an_old_record(self, foreign: Catalog) -> None:
        rewrite(foreign, 0, format_version=1, checksums={"../../x": "00"})
        with pytest.raises(InputError, match="is not the record of a sample"):
            foreign.records()

    @pytest.mark.parametrize("root", [b"[]", b"{}", b'{"attributes": 3}', b"[" * 200_000])
    def test_a_root_without_checksums(self, foreign: Catalog, root: bytes, tmp_path: Path) -> None:
        file = Path(foreign.sample_url(f"{0:016x}")) / "zarr.json"
        file.write_bytes(root)
        rewrite(foreign, 0, checksums={"zarr.json": checksum(root)})
        done = foreign.copy_to(tmp_path / "copy")
        assert "does not contain the checksums" in done.failed[f"{0:016x}"]

    @pytest.mark.parametrize(("column", "value"), [("sample_id", "../../pwn"), ("path", "../../x.zarr")])
    def test_the_index(self, foreign: Catalog, column: str, value: str, tmp_path: Path) -> None:
        foreign.compact()
        for file in (Path(foreign.url) / "recent").iterdir():
            file.unlink()
        (index,) = (Path(foreign.url) / "index").iterdir()
        import pyarrow.parquet as pq

        table = pq.read_table(index)
        rows = table.column(column).to_pylist()
        place = table.schema.get_field_index(column)
        import pyarrow as pa

        pq.write_table(table.set_column(place, column, pa.array([value, *rows[1:]])), index)
        for act in (
            lambda: Catalog.open(foreign.url).samples,
            lambda: Catalog.open(foreign.url).copy_to(tmp_path / "copy"),
        ):
            with pytest.raises(InputError, match=r"the index .* is damaged"):
                act()

    def test_odd_names_in_recent_and_index(self, foreign: Catalog) -> None:
        root = Path(foreign.url)
        foreign.compact()
        for name in ("recent/..-x", "recent/pwn-123456", "index/index-²2222222.parquet",
                     "index/index-9.parquet", "failures/..json", "structures/pwn.npz"):  # fmt: skip
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("x")
        assert len(Catalog.open(foreign.url).samples) == 2
        assert foreign.verify() == []
        foreign.compact()
        assert (root / "recent/pwn-123456").exists()


class TestRepair:
    def test_what_a_link_points_to_stays(self, foreign: Catalog, victim: Path) -> None:
        root = Path(foreign.url)
        inner = victim.parent / "other"
        group = inner / "00" / "00000000000000aa-123456.zarr"
        group.mkdir(parents=True)
        (group / "zarr.json").write_text("{}")
        os.utime(group / "zarr.json", (0, 0))
        (root / "samples/zz").symlink_to(victim)
        (root / "samples/ab").symlink_to(victim)
        (root / "samples/00/00000000000000bb-123456.zarr").symlink_to(victim)
        (root / "samples/00/thesis").symlink_to(victim)
        (root / "samples/cd").symlink_to(inner / "00")
        (root / "commits/ef").symlink_to(victim)
        (root / "structures").symlink_to(victim)
        for grace in (0.0, -1e9):
            todo = foreign.plan_repair(grace=grace)
            assert (todo.groups, todo.objects, todo.remake) == ((), (), {})
            assert len(todo.foreign) >= 5
            foreign.repair(todo)
        assert untouched(victim)
        assert (group / "zarr.json").exists()
        assert len(Catalog.open(foreign.url).records()) == 2

    def test_a_linked_object_of_a_sample(self, foreign: Catalog, victim: Path) -> None:
        group = Path(foreign.sample_url(f"{0:016x}"))
        (group / "more").symlink_to(victim)
        (group / "0/x").symlink_to(victim / "authorized_keys")
        foreign.repair(foreign.plan_repair(grace=0))
        assert untouched(victim)

    def test_a_damaged_sample_behind_a_link(self, foreign: Catalog, victim: Path) -> None:
        group = Path(foreign.sample_url(f"{0:016x}"))
        moved = victim.parent / "moved.zarr"
        group.rename(moved)
        group.symlink_to(moved)
        (moved / "0/zarr.json").unlink()
        left = sorted(moved.rglob("*"))
        todo = foreign.plan_repair()
        assert list(todo.remake) == [f"{0:016x}"]
        foreign.repair(todo)
        assert sorted(moved.rglob("*")) == left
        assert foreign.sample_ids() == [f"{1:016x}"]

    def test_only_names_of_ours(self, foreign: Catalog) -> None:
        root = Path(foreign.url)
        theirs = [
            root / "samples/notes/thesis.txt",
            root / "samples/00/thesis.txt",
            root / "samples/00/mine.zarr/0",
            root / "samples/00/11000000000000aa-123456.zarr/0",
            root / "commits/00/.notes",
            root / "structures/notes.txt",
        ]
        for file in theirs:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("mine")
            os.utime(file, (0, 0))
        todo = foreign.plan_repair(grace=0)
        assert (todo.groups, todo.objects) == ((), ())
        foreign.repair(todo)
        assert all(file.read_text() == "mine" for file in theirs)

    def test_compaction_and_links(self, foreign: Catalog, victim: Path) -> None:
        recent = Path(foreign.url) / "recent"
        moved = victim / "deep"
        for file in recent.iterdir():
            file.rename(moved / file.name)
        recent.rmdir()
        recent.symlink_to(moved)
        left = sorted(moved.iterdir())
        with pytest.raises(InputError, match="is a symbolic link"):
            foreign.compact()
        assert sorted(moved.iterdir()) == left


def test_reading_a_corpus_that_was_linked_together(foreign: Catalog, tmp_path: Path) -> None:
    """Somebody put the samples onto another disk: they are read, and nothing is changed through the link."""
    samples = Path(foreign.url) / "samples"
    samples.rename(tmp_path / "big-disk")
    samples.symlink_to(tmp_path / "big-disk")
    linked = tmp_path / "linked"
    linked.symlink_to(foreign.url)
    catalog = Catalog.open(linked)
    assert catalog.arrays(f"{0:016x}")["tomogram"][0].shape == (14, 11)
    assert isinstance(catalog.samples, pd.DataFrame)
    assert catalog.copy_to(tmp_path / "copy").failed == {}
    assert [problem.kind for problem in catalog.problems()] == ["foreign"]


def test_time_is_no_matter(foreign: Catalog) -> None:
    assert [p.kind for p in foreign.problems()] == []
    assert foreign.plan_repair(grace=-time.time()).groups == ()


# --------------------------------------------------------------------------- what would fill the memory


def picture(width: int, height: int, mode: str = "L", **more: Any) -> bytes:
    raw = io.BytesIO()
    Image.new(mode, (width, height)).save(raw, "PNG", **more)
    return raw.getvalue()


HUGE = struct.pack(">II", 1 << 30, 1 << 30)
THUMBNAILS = {
    "huge": lambda good: picture(4000, 4000),
    "states to be huge": lambda good: good[:16] + HUGE + good[24:],
    "no picture": lambda good: b"<svg onload='alert(1)'/>",
    "much after it": lambda good: good + bytes(1 << 20),
    "colours": lambda good: picture(64, 64, "RGB"),
    "a JPEG": lambda good: b"\xff\xd8\xff\xe0" + bytes(200),
    "empty": lambda good: b"",
    "of nothing": lambda good: good[:16] + bytes(8) + good[24:],
}


@pytest.mark.parametrize("kind", THUMBNAILS)
def test_a_picture_that_is_no_thumbnail_is_drawn_again(
    foreign: Catalog, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``tlgen browse`` hands these bytes to the browser."""
    sample_id = foreign.records()[0].sample_id
    file = Path(foreign.sample_url(sample_id)) / "0/thumbnail.png"
    good = file.read_bytes()
    assert foreign.thumbnail(sample_id) == good
    file.write_bytes(THUMBNAILS[kind](good))
    rewrite(foreign, 0, n_bytes=foreign.records()[0].n_bytes + file.stat().st_size - len(good))
    foreign = Catalog.open(foreign.url)
    read: list[int] = []
    plain = Store.read

    def watched(self: Store, key: str, most: int | None = None) -> bytes:
        data = plain(self, key, most)
        read.extend([len(data)] if key.endswith(".png") else [])
        return data

    monkeypatch.setattr(Store, "read", watched)
    assert foreign.thumbnail(sample_id) == good
    assert read
    assert max(read) <= 33_000


def test_a_thumbnail_of_noise_is_one() -> None:
    noise = generator("thumbnail").normal(size=(9, 300, 200)).astype(np.float32)
    drawn = thumbnail.draw(noise)
    assert thumbnail.is_one(drawn)
    assert thumbnail.is_one(thumbnail.draw(noise[:, :5, :1]))


@pytest.mark.parametrize("most", [1, 5, 100])
def test_the_beginning_of_an_object(bucket: str, tmp_path: Path, most: int) -> None:
    for url in (f"{bucket}/root", str(tmp_path)):
        store = open_store(url)
        store.write({"a": b"0123456789"})
        assert store.read("a", most) == b"0123456789"[:most]
        assert store.read("a") == b"0123456789"


def test_planes_that_no_memory_holds(foreign: Catalog) -> None:
    from tlgen.browse.planes import Planes

    sample_id = foreign.records()[0].sample_id
    root = Path(foreign.sample_url(sample_id))
    for file in (root / "zarr.json", root / "0/zarr.json"):
        content = json.loads(file.read_text())
        for node in (content, content.get("consolidated_metadata", {}).get("metadata", {}).get("0", {})):
            if "shape" in node:
                node["shape"] = [9, 1 << 19, 1 << 19]
        file.write_text(json.dumps(content))
    (root / "0/thumbnail.png").write_bytes(b"")
    for draw in (
        lambda: foreign.thumbnail(sample_id),
        lambda: Planes(foreign).png(sample_id, "tomogram", "z", 4),
        lambda: Planes(foreign).png(sample_id, "tomogram", "y", 4),
    ):
        with pytest.raises(InputError, match=r"too large to draw|lost|missing|damaged"):
            draw()


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20, 1 << 20), (-1,)])
def test_structures_that_state_more_than_they_have(corpus: Catalog, shape: tuple[int, ...]) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", how) as archive:
            archive.writestr("points.npy", head.getvalue() + bytes(1 << 20))
        with pytest.raises(InputError, match=r"x\.npz is damaged, or was made to fill the memory"):
            read_npz(packed.getvalue(), "x.npz")
    good = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "empty": np.zeros((0, 3))}
    packed = io.BytesIO()
    np.savez(packed, **good)  # type: ignore[arg-type]
    read = read_npz(packed.getvalue(), "x.npz")
    for name, array in good.items():
        np.testing.assert_array_equal(read[name], array)
    for left in (0, 10, 200, len(packed.getvalue()) - 1):
        with pytest.raises(InputError, match=r"x\.npz is damaged"):
            read_npz(packed.getvalue()[:left], "x.npz")


def test_an_index_that_unpacks_to_more_than_it_can_hold(foreign: Catalog) -> None:
    import pyarrow.parquet as pq

    foreign.compact()
    [file] = sorted((Path(foreign.url) / "index").glob("*.parquet"))[-1:]
    table = pq.read_table(file)
    row = table.slice(0, 1)
    many = row.take([0] * 300_000)
    for bad in (
        many,
        row.set_column(row.schema.get_field_index("record"), "record", [["x" * (200 << 20)]]),
    ):
        pq.write_table(bad.replace_schema_metadata(table.schema.metadata), file, compression="zstd")
        assert file.stat().st_size < 2 << 20
        with pytest.raises(InputError, match=r"index-\d+\.parquet is damaged; tlgen repair"):
            Catalog.open(foreign.url).records()
