"""What a recipe alone shows to be impossible is refused before any structure is read or fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tlgen.molecules import structures

Program = Callable[..., tuple[int, str, str]]


def recipe(folder: Path, **changes: Any) -> str:
    """Write a recipe whose structure is a file that nobody could read."""
    (folder / "unreadable.pdb").write_text("no structure\n")
    content: dict[str, Any] = {
        "name": "cell",
        "shape": [20, 40, 40],
        "targets": {"protein": {"structures": ["unreadable.pdb"], "count": 2, "variants": {"number": 0}}},
        "acquisition": {"engine": "multislice", "voxel_size": 10},
        "samples": {"train": {"number": 2}},
    }
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)


def asked(command: str, path: str, folder: Path) -> list[str]:
    more = ["--cluster", "local:1"] if command == "run" else []
    return [command, path, "--to", str(folder / "new"), *more]


@pytest.mark.parametrize("command", ["plan", "run", "pack"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decorations": {"vesicles": {"radius": 150}}}, "decorations.vesicles: the smallest needs 339 Å"),
        ({"decorations": {"beads": {"radius": 120}}}, "decorations.beads: the smallest needs 240 Å"),
        (
            {
                "samples": {"train": {}, "thin": {"shape": [9, 40, 40]}},
                "decorations": {"beads": {"radius": [46, 50]}},
                "unusual": ["thickness"],
            },
            "decorations.beads: the smallest needs 92 Å along z and the box has 90",
        ),
        ({"acquisition": {"engine": "multislice", "voxel_size": 10, "pixel_size": 3}}, "whole multiple"),
        ({"distractors": [{"file": "missing.pdb", "count": 1}]}, "missing.pdb: there is no such structure"),
        ({"distractors": [{"map": "missing.mrc", "count": 1}]}, "there is no map"),
        ({"distractors": ["nowhere"]}, "nowhere is not a folder"),
    ],
    ids=["vesicle", "bead", "thin group", "pixels", "file", "map", "folder"],
)
def test_it_is_refused_before_a_structure_is_read(
    command: str,
    changes: dict[str, Any],
    words: str,
    tmp_path: Path,
    tlgen: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for reader in ("checksum", "load_structure", "polymers"):
        monkeypatch.setattr(structures, reader, lambda *_, **__: pytest.fail("a structure was read"))
    monkeypatch.setattr(structures.pdb, "fetch", lambda *_: pytest.fail("a structure was fetched"))
    status, _, complaint = tlgen(*asked(command, recipe(tmp_path, **changes), tmp_path))
    assert status == 2
    assert words in complaint
    assert not (tmp_path / "new").exists()


def test_a_mistyped_file_is_refused_before_an_entry_is_fetched(
    tmp_path: Path, tlgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structures.pdb, "fetch", lambda *_: pytest.fail("a structure was fetched"))
    listed = [{"file": "9xyz", "count": 1}, {"file": "misspelt.pdb", "count": 1}]
    status, _, complaint = tlgen(*asked("plan", recipe(tmp_path, distractors=listed), tmp_path))
    assert status == 2
    assert "misspelt.pdb" in complaint


def test_decorations_of_too_many_atoms_for_parakeet_are_refused_before_a_structure_is_parsed(
    tmp_path: Path, tlgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structures, "load_structure", lambda *_, **__: pytest.fail("a structure was read"))
    monkeypatch.setattr(structures, "polymers", lambda *_, **__: pytest.fail("a structure was read"))
    path = recipe(
        tmp_path,
        shape=[60, 200, 200],
        acquisition={"engine": "parakeet", "voxel_size": 10},
        decorations={"carbon": {"share": [0.9, 0.95], "thickness": 200}},
    )
    status, _, complaint = tlgen(*asked("plan", path, tmp_path))
    assert status == 2
    assert "million atoms" in complaint
