"""Lists as editors, spreadsheets and other programs leave them: encodings, ends of lines, blocks, units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context

RELION4 = """data_optics

loop_
_rlnOpticsGroup #1
_rlnTomoTiltSeriesPixelSize #2
1 2.0

data_particles

loop_
_rlnTomoName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnCoordinateZ #4
_rlnOpticsGroup #5
TS_1 100 200 50 1
"""


def xyz(path: Path, content: str | bytes, **context: Any) -> list[list[float]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = particles.read(path, context=Context(**context))
    found: list[list[float]] = table[["x", "y", "z"]].to_numpy().round(6).tolist()
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(tmp_path: Path, encoding: str, end: str) -> None:
    content = RELION4.replace("TS_1", "TS_é").replace("\n", end).encode(encoding)
    assert xyz(tmp_path / "p.star", content) == [[200, 400, 100]]
    assert particles.read(tmp_path / "p.star")["tomogram"].tolist() == ["TS_é"]
    table = f"name,x_angst,y_angst,z_angst{end}é,1.5,2,3{end}".encode(encoding)
    assert xyz(tmp_path / "p.csv", table) == [[1.5, 2, 3]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("loop_", "LOOP_"),
        ("data_", "DATA_"),
        ("data_particles", "data_"),  # a block without a name
        ("TS_1 100", "TS_1\t100\t"),
        ("50 1\n", "50 1 # picked by hand\n\n"),
        ("TS_1 100", "'TS_1' 100"),
        ("loop_", "  loop_"),
    ],
)
def test_star_as_its_standard_has_it(tmp_path: Path, old: str, new: str) -> None:
    assert xyz(tmp_path / "p.star", RELION4.replace(old, new)) == [[200, 400, 100]]


def test_a_second_block_of_particles_is_not_dropped(tmp_path: Path) -> None:
    second = RELION4[RELION4.index("data_particles") :]
    for other in (second, second.replace("data_particles", "data_more")):
        with pytest.raises(InputError, match="holds 2 blocks of particles"):
            xyz(tmp_path / "p.star", RELION4 + "\n" + other)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 10), ("nanometer", 10), ("Å", 1), ("Angstrom", 1), (None, 1)]
)
def test_units_of_copick(tmp_path: Path, unit: str | None, factor: float) -> None:
    picks = {
        "pickable_object_name": "ribosome", "user_id": "a", "session_id": "1", "run_name": "TS_1",
        "points": [{"location": {"x": 1, "y": 2, "z": 3}}], "unit": unit,
    }  # fmt: skip
    assert xyz(tmp_path / "p.json", json.dumps(picks)) == [[factor, 2 * factor, 3 * factor]]
    with pytest.raises(InputError, match="is in 'px', which is not a known unit"):
        xyz(tmp_path / "p.json", json.dumps(picks | {"unit": "px"}))


@pytest.mark.parametrize("line", ["10 20 64 64", "10 20 64 64 -3"])
def test_boxes_of_a_micrograph_are_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"has boxes of a micrograph .*not of a tomogram"):
        xyz(tmp_path / "p.box", line + "\n", voxel_size=10.0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as DeepFinder object list \\('z' is missing\\)"):
        xyz(tmp_path / "p.xml", '<objlist><object class_label="1" x="1" y="2"/></objlist>', voxel_size=10.0)
