"""Which format a file is, what stands beside it, and what happens to files that are broken."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats import registry
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.names import read_tomogram_list
from catalogs.particle_formats.registry import FORMATS
from catalogs.schema import ClassInfo

CONTEXT = Context(
    voxel_size=8.0,
    shape=(128, 200, 256),
    pixel_size=2.0,
    tomograms_file="tomograms.star",
    classes=(ClassInfo(name="ribosome", label=1, radius=110.0), ClassInfo(name="fas", label=2, radius=120.0)),
)


def table_of(n: int = 5, tomograms: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    return particles.make(
        tomogram=[f"TS_{k % tomograms + 1}" for k in range(n)],
        class_name="ribosome",
        label=1,
        x=np.arange(n) * 100.0 + 5.25,
        y=rng.uniform(0, 1500, n),
        z=rng.uniform(0, 1000, n),
        score=rng.uniform(0, 1, n),
        size=rng.integers(1, 1000, n).astype(float),
        flags=["border"] * n,
        mode_7=rng.normal(0, 1, n),
    )


def path_of(folder: Path, name: str) -> Path:
    return folder / f"TS_1{FORMATS[name].suffixes[0]}"


class TestDetect:
    def test_every_kind_of_star_says_why(self, tmp_path: Path) -> None:
        whys = {}
        for name in ("relion5", "relion4", "relion3", "stopgap", "relion5-set", "cbox"):
            particles.save(table_of(), tmp_path / f"{name}.star", name, CONTEXT)
            found = registry.detect(tmp_path / f"{name}.star")
            assert found.format.name == name
            whys[name] = found.why
        assert "Å from the centre" in whys["relion5"]
        assert "pixels of the unbinned tilt series" in whys["relion4"]
        assert "no rlnTomoName" in whys["relion3"]
        assert len(set(whys.values())) == len(whys)

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("1 1 10.5 20.25 30\n1 1 1 2 3\n2 1 4 5 6\n", "imod-text"),
            ("2 30 20 10 512\n1 3 2 1 20\n", "deepfinder-text"),
            ("2 30.5 20 10\n1 3 2 1\n", "deepfinder-text"),
            ("1bxn 10 20 30 1 2 3\n", "shrec"),
            ("10.5 20.5 30\n11.5 2.5 3\n", "imod-text"),
        ],
    )
    def test_text_by_its_columns(self, tmp_path: Path, text: str, name: str) -> None:
        (tmp_path / "t.txt").write_text(text)
        assert registry.detect(tmp_path / "t.txt").format.name == name

    @pytest.mark.parametrize(
        ("text", "choices"),
        [
            ("10 20 30\n1 2 3\n", "imod-text or coords"),
            ("1 1 20 30 40\n1 1 2 3 4\n", "imod-text or deepfinder-text"),
        ],
    )
    def test_text_that_may_be_either(self, tmp_path: Path, text: str, choices: str) -> None:
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(InputError, match=rf"may be .*; say which by `format={choices}`$") as refused:
            particles.read(tmp_path / "t.txt", voxel_size=10.0)
        assert "\n" not in str(refused.value)
        for name in choices.split(" or "):
            assert len(particles.read(tmp_path / "t.txt", name, voxel_size=10.0)) == 2

    def test_the_ending_does_not_decide(self, tmp_path: Path) -> None:
        particles.save(table_of(), tmp_path / "p.em", context=CONTEXT)
        (tmp_path / "p.em").rename(tmp_path / "motl")
        assert registry.detect(tmp_path / "motl").format.name == "em"

    @pytest.mark.parametrize("name", ["napari", "czii", "csv"])
    def test_csv_by_its_header(self, tmp_path: Path, name: str) -> None:
        particles.save(table_of(), tmp_path / "p.csv", name, CONTEXT)
        assert registry.detect(tmp_path / "p.csv").format.name == name

    @pytest.mark.parametrize("name", ["copick", "portal", "eman2"])
    def test_folders(self, tmp_path: Path, name: str) -> None:
        particles.save(table_of(6, 2), tmp_path / "out", name, CONTEXT)
        found = registry.detect(tmp_path / "out")
        assert found.format.name == name
        assert "it has 2 " in found.why

    def test_a_folder_of_one_file_for_each_tomogram(self, tmp_path: Path) -> None:
        saved = particles.save(table_of(6, 2), tmp_path / "out", "imod", CONTEXT)
        assert [file.name for file in saved.files] == ["TS_1.mod", "TS_2.mod"]
        with pytest.raises(InputError, match="not a folder of particles"):
            particles.read(tmp_path / "out")
        assert set(particles.read(tmp_path / "out", "imod")["tomogram"]) == {"TS_1", "TS_2"}
        with pytest.raises(InputError, match=r"of one tomogram, but .* of 2 \(TS_1, TS_2\); give a folder"):
            particles.save(table_of(6, 2), tmp_path / "all.mod", context=CONTEXT)


class TestSidecar:
    @pytest.mark.parametrize("name", ["imod", "em", "coords", "shrec"])
    def test_deleted_added_and_reordered(self, tmp_path: Path, name: str) -> None:
        """What a person does in another program in between."""
        table = table_of(5)
        path = path_of(tmp_path, name)
        saved = particles.save(table, path, name, CONTEXT, sidecar=True)
        assert saved.sidecar == path.with_name(path.name + ".tl.csv")
        assert {"size", "flags", "mode_7"} <= set(saved.lost)
        kept = saved.sidecar.read_bytes()
        new = particles.make(tomogram="TS_1", class_name="ribosome", x=[4000.0], y=[8.0], z=[16.0])
        edited = pd.concat([table.iloc[[3, 0, 4]][list(new.columns)], new], ignore_index=True)
        particles.save(edited, path, name, CONTEXT)
        saved.sidecar.write_bytes(kept)
        loaded = particles.load(path, name, CONTEXT)
        assert loaded.notes == (f"3 of 4 particles have more about them in {saved.sidecar.name}",)
        assert loaded.table["size"].tolist()[:3] == table["size"].iloc[[3, 0, 4]].tolist()
        assert np.isnan(loaded.table["size"][3])
        assert loaded.table["flags"].tolist() == ["border"] * 3 + [""]
        np.testing.assert_allclose(loaded.table["x"], [305.25, 5.25, 405.25, 4000.0], atol=1e-3)

    def test_a_list_that_is_written_anew_has_no_old_one(self, tmp_path: Path) -> None:
        particles.save(table_of(), tmp_path / "p.em", context=CONTEXT, sidecar=True)
        saved = particles.save(table_of(), tmp_path / "p.em", context=CONTEXT)
        assert [file.name for file in tmp_path.iterdir()] == ["p.em"]
        assert "flags" in saved.lost

    def test_none_where_nothing_is_lost(self, tmp_path: Path) -> None:
        assert particles.save(table_of(), tmp_path / "p.csv", sidecar=True).sidecar is None
        assert not list(tmp_path.glob("*.tl.csv"))

    def test_scores_that_have_no_room_are_named(self, tmp_path: Path) -> None:
        saved = particles.save(table_of(), tmp_path / "TS_1.ndjson", context=CONTEXT)
        assert set(saved.lost) == {"score", "size", "flags", "mode_7"}


class TestClassesAndTomograms:
    def test_labels_get_their_names(self, tmp_path: Path) -> None:
        table = table_of().assign(class_name="fas", label=2)
        particles.save(table, tmp_path / "p.em", context=CONTEXT)
        assert set(particles.read(tmp_path / "p.em", context=CONTEXT)["class_name"]) == {"fas"}
        assert set(particles.read(tmp_path / "p.em", voxel_size=8.0)["class_name"]) == {"class2"}

    def test_names_get_their_labels(self, tmp_path: Path) -> None:
        table = table_of().assign(
            class_name=["fas", "new", "ribosome", "distractor", "fas"], label=[2, 3, 1, 0, 2]
        )
        particles.save(table, tmp_path / "p.csv", "czii")
        assert particles.read(tmp_path / "p.csv", context=CONTEXT)["label"].tolist() == [2, 3, 1, 0, 2]

    @pytest.mark.parametrize("name", ["imod-text", "eman2"])
    def test_distractors_are_refused_where_zero_means_a_class(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="distractors"):
            particles.save(table_of().assign(label=0), path_of(tmp_path, name), name, CONTEXT)

    @pytest.mark.parametrize(
        ("tomograms", "numbers"),
        [
            (["TS_03", "TS_12"], [3, 12]),
            (["a", "b"], [1, 2]),
            (["TS_1a_1", "TS_1b_1"], [1, 2]),
            (["7", "9"], [7, 9]),
        ],
    )
    def test_numbers_of_tomograms(self, tmp_path: Path, tomograms: list[str], numbers: list[int]) -> None:
        table = particles.make(tomogram=tomograms, x=[0.0, 1.0], y=[0.0, 1.0], z=[0.0, 1.0])
        particles.save(table, tmp_path / "p.star", "stopgap", Context(voxel_size=8.0))
        assert [int(k) for k in particles.read(tmp_path / "p.star", voxel_size=8.0)["tomogram"]] == numbers

    @pytest.mark.parametrize(
        "text",
        [
            "1 /data/TS_1.rec\n2 TS_2\n",
            "/data/TS_1.mrc\nTS_2.mrc\n",
            "1,TS_1\n2,TS_2\n",
            "1\tTS_1\n2\tTS_2\n",
        ],
    )
    def test_lists_of_tomograms(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "list").write_text(text)
        assert read_tomogram_list(str(tmp_path / "list")) == {1: "TS_1", 2: "TS_2"}

    @pytest.mark.parametrize("text", ["", "a b\n", "1 TS_1\n1 TS_2\n"])
    def test_lists_that_are_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "list").write_text(text)
        with pytest.raises(InputError, match="list"):
            read_tomogram_list(str(tmp_path / "list"))

    def test_a_tomogram_that_the_list_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no number for 'TS_1'"):
            particles.save(
                table_of(), tmp_path / "p.em", context=Context(voxel_size=8.0, tomograms={1: "TS_9"})
            )

    def test_one_tomogram_of_several(self, tmp_path: Path) -> None:
        particles.save(table_of(6, 2), tmp_path / "p.csv")
        table = particles.read(tmp_path / "p.csv", context=Context(tomogram="TS_2"))
        assert set(table["tomogram"]) == {"TS_2"}
        with pytest.raises(InputError, match="no particles of the tomogram 'TS_7'"):
            particles.read(tmp_path / "p.csv", context=Context(tomogram="TS_7"))


class TestBroken:
    @pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
    @given(data=st.data())
    @settings(max_examples=15, deadline=None)
    def test_one_sentence_or_a_table(self, name: str, data: st.DataObject) -> None:
        """Cut off, or with bytes changed: never anything but a table or one sentence that names the file."""
        with tempfile.TemporaryDirectory() as folder:
            path = path_of(Path(folder), name) if FORMATS[name].suffixes[0] else Path(folder) / "TS_1.json"
            particles.save(table_of(), path, name, CONTEXT)
            content = bytearray(path.read_bytes())
            for _ in range(data.draw(st.integers(0, 3))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
            path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
            for format in (name, None):
                read: Any = None
                refused = ""
                try:
                    read = particles.read(path, format, context=CONTEXT)
                except InputError as error:
                    refused = str(error)
                assert isinstance(read, pd.DataFrame) or "TS_1" in refused

    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize(
        "content", [b"hello, this is nothing\n", b"\x00\xff\x00\xff" * 400, b"{}", b"[1]"]
    )
    def test_nothing_of_the_kind(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / "p.list"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"p\.list"):
            particles.read(path, name, context=CONTEXT)
        with pytest.raises(InputError, match="not a file of particles"):
            particles.read(path, context=CONTEXT)

    @pytest.mark.parametrize(
        "name", ["dynamo", "em", "stopgap", "imod", "relion3", "napari", "deepfinder", "tomotwin"]
    )
    def test_the_voxel_size_is_asked_for(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            InputError, match=r"voxel size of the tomogram 'TS_1' is not known; give it \(`voxel_size`\)"
        ):
            particles.save(table_of(), path_of(tmp_path, name), name)
        assert not list(tmp_path.iterdir())

    def test_what_cannot_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        particles.save(table_of(), tmp_path / "p.csv")
        before = (tmp_path / "p.csv").read_bytes()
        with pytest.raises(InputError):
            particles.save(table_of().assign(tomogram="a\nb"), tmp_path / "p.csv")
        assert (tmp_path / "p.csv").read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]

    @pytest.mark.parametrize("name", ["copick", "portal", "eman2", "imod", "cbox"])
    @pytest.mark.parametrize(
        "tomogram", ["../TS_1", "/TS_1", "a/../../TS_1", ".TS_1", "..", "a\0b", "T" * 999]
    )
    def test_names_lead_to_no_other_folder(self, tmp_path: Path, name: str, tomogram: str) -> None:
        particles.save(table_of().assign(tomogram=tomogram), tmp_path / "out", name, CONTEXT)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        read = particles.read(tmp_path / "out", name, context=CONTEXT)
        assert len(read) == len(table_of())
        if name == "copick":  # which has room for the name as it is written
            assert set(read["tomogram"]) == {tomogram}

    @pytest.mark.parametrize("name", ["copick", "portal", "eman2", "imod", "cbox"])
    def test_a_file_cannot_be_named_after_nothing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="no file can be named after"):
            particles.save(table_of().assign(tomogram=""), tmp_path / "out", name, CONTEXT)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["copick", "portal", "eman2", "imod", "cbox"])
    def test_similar_names_are_two(self, tmp_path: Path, name: str) -> None:
        names = ["a/b", "a-b", "a\\b", "a:b"]
        table = pd.concat([table_of().assign(tomogram=each) for each in names], ignore_index=True)
        particles.save(table, tmp_path / "out", name, CONTEXT)
        read = particles.read(tmp_path / "out", name, context=CONTEXT)
        assert len(set(read["tomogram"])) == len(names)
        assert len(read) == len(table)

    def test_a_place_that_cannot_be_written_to(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be written"):
            particles.save(table_of(), tmp_path / "file" / "p.csv")


def test_the_documentation_names_every_format() -> None:
    page = (Path(__file__).parents[3] / "docs" / "particle-lists.md").read_text(encoding="utf-8")
    section = page.partition("## Formats")[2].partition("## ")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == list(FORMATS)


def test_a_lone_carriage_return_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "TS_1.star").write_bytes(b"x,y\rz,1\x00\r,2\n")
    with pytest.raises(InputError, match="TS_1"):
        particles.read(tmp_path / "TS_1.star", context=CONTEXT)
