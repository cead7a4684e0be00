"""A structure's file is parsed once and hashed once on its way through a recipe."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import tlgen
from tlgen.molecules import structures

RECIPE = {
    "name": "one",
    "shape": [16, 24, 24],
    "acquisition": {"voxel_size": 14},
    "samples": {"train": {"number": 1}},
}


def test_packing_parses_and_hashes_a_structure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLGEN_PREPARED", str(tmp_path / "prepared"))
    file = tmp_path / "mine.pdb"
    file.write_bytes(structures.locate("1ubi").read_bytes())
    old = time.time() - 60
    os.utime(file, (old, old))
    read, parse, parsed = structures._sha256.cache_info, structures.load_with_polymers, []

    def counted(path: Path, **more: object) -> object:
        parsed.append(path.name)
        return parse(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(structures, "load_with_polymers", counted)
    before = read().misses
    recipe = tlgen.Recipe.model_validate(
        RECIPE | {"targets": {"a": {"structures": [str(file)], "count": 2, "variants": {"number": 0}}}}
    )
    tlgen.pack(recipe)
    assert parsed == ["mine.pdb"]
    assert read().misses == before + 1


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    file = tmp_path / "a.pdb"
    sums = []
    for k, text in enumerate(("one", "two", "six")):
        file.write_text(text)
        if k:
            os.utime(file, (1e9 + k, 1e9 + k))
        sums.append(structures.checksum(file))
    assert len(set(sums)) == 3
