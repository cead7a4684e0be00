"""Tomograms of any name: each gets a folder in that of the run, and keeps its name in the lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.file_names import file_name, file_names
from catalogs.volumes import write_mrc

Run = Callable[..., Any]
NAMES = [
    "../../esc",
    "a/b",
    "a-b",
    "/abs",
    "..",
    ".hidden",
    "T" * 300,
    "particles.star",
    "lists",
    "TS 1",
    "Å",
]


def test_names_of_files() -> None:
    files = file_names(NAMES)
    assert len(set(files.values())) == len(NAMES)
    for name, file in files.items():
        assert file == Path(file).name
        assert file not in (".", "..")
        assert not file.startswith(".")
        assert len(file.encode()) < 200
        assert file_name(name) == file
    for name in ("TS_1", "TS 1", "Å", "a-b", "tomo.2024+x"):
        assert file_name(name) == name
    for name in ("a\0b", "a\nb", "\x1b[2J", "-rf", "a\\b", "\udcff"):
        assert file_name(name).isprintable()
        assert file_name(name) != name
    assert file_name("lists", ["lists"]) != "lists"
    with pytest.raises(InputError, match="no file can be named after ''"):
        file_name("")
    with pytest.raises(InputError, match="would have one file"):
        file_names(["a/b", file_name("a/b")])


def test_every_tomogram_is_picked_into_the_folder(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    lines = ["data_", "", "loop_", "_rlnTomoName #1", "_rlnTomoReconstructedTomogram #2"]
    for k, name in enumerate(NAMES):
        write_mrc(home / "data" / f"{k}.mrc", make_balls(str(k), shape=(24, 40, 44), n=2).data, 10.0)
        quoted = f'"{name}"' if " " in name else name
        lines.append(f"{quoted} {home / 'data' / f'{k}.mrc'}")
    (home / "tomograms.star").write_text("\n".join(lines) + "\n")
    folder = home / "deep" / "er" / "picks"
    done = tlpick("run", ball_model, home / "tomograms.star", "--to", folder, "--format", "imod")
    assert done.status == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert {path.name for path in home.iterdir()} == {"data", "deep", "tomograms.star"}
    assert {path.name for path in (home / "deep").rglob("*") if path.parent.name in ("deep", "er")} == {
        "er", "picks"
    }  # fmt: skip
    table = particles.read(folder / "particles.star")
    counts = {each["name"]: sum(each["counts"].values()) for each in json.loads(
        (folder / "run.json").read_text())["tomograms"]}  # fmt: skip
    assert set(counts) == set(NAMES)
    assert table["tomogram"].value_counts().to_dict() == {name: n for name, n in counts.items() if n}
    assert all(counts.values())
    again = tlpick("run", ball_model, home / "tomograms.star", "--to", folder)
    assert again.out.count("(picked before)") == len(NAMES)


def test_a_name_that_star_cannot_hold_is_refused_at_once(
    tlpick: Run, ball_model: Path, make_balls: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlpick.network.model.load_network", lambda _: pytest.fail("too late"))
    write_mrc(tmp_path / 'a"b.mrc', make_balls("x", shape=(24, 40, 44), n=1).data, 10.0)
    refused = tlpick("run", ball_model, tmp_path / 'a"b.mrc', "--to", tmp_path / "picks")
    assert refused.status == 2
    assert "cannot hold the name" in refused.err
