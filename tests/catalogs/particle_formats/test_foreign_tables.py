"""Tables of other programs: the unit is stated, proved by the tomogram's size, or asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.delimited import Positions, positions
from catalogs.schema import ClassInfo

XYZ = ["x", "y", "z"]
SMALL: dict[str, Any] = {"voxel_size": 10.0, "shape": (200, 400, 400)}


def read(folder: Path, text: str, name: str = "p.csv", **context: Any) -> pd.DataFrame:
    (folder / name).write_bytes(text.encode())
    return particles.read(folder / name, context=Context(**context))


def xyz(folder: Path, text: str, name: str = "p.csv", **context: Any) -> list[list[float]]:
    found: list[list[float]] = read(folder, text, name, **context)[XYZ].to_numpy().round(6).tolist()
    return found


@pytest.mark.parametrize("sizes", [{}, {"voxel_size": 10.0}, SMALL])
@pytest.mark.parametrize("values", ["100,200,50", "100.25,200.5,50.75", "-0.4,20,30"])
def test_a_unit_that_nothing_states_is_asked_for(tmp_path: Path, sizes: dict[str, Any], values: str) -> None:
    text = f"x,y,z,score\n{values},0.5\n"
    with pytest.raises(
        InputError, match=r"may be Å, or voxels counted from 0.*unit=angstrom.*unit=voxels.*x_angst"
    ):
        xyz(tmp_path, text, **sizes)
    expected = [float(value) for value in values.split(",")]
    assert xyz(tmp_path, text, **sizes, unit="angstrom") == [expected]
    assert xyz(tmp_path, text, list_pixel=2.0) == [[2 * value for value in expected]]
    if sizes:
        assert xyz(tmp_path, text, **sizes, unit="voxels") == [[10 * value for value in expected]]


def test_the_size_of_the_tomogram_proves_the_unit(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "x,y,z\n3000,1000,500\n10,20,30\n", **SMALL)
    assert loaded.table[XYZ].to_numpy().tolist() == [[3000, 1000, 500], [10, 20, 30]]
    assert loaded.notes == ("x, y, z are taken as Å: as voxels they would reach out of the tomogram",)
    tiny = _load(tmp_path, "x,y,z\n300,100,50\n", voxel_size=0.5, shape=(200, 400, 400))
    assert tiny.table[XYZ].to_numpy().tolist() == [[150, 50, 25]]
    assert "taken as voxels" in tiny.notes[0]
    for text in ("x,y,z\n9000,1000,500\n", "x,y,z\n-900,-100,300\n"):  # of another one, or from the centre
        with pytest.raises(InputError, match=r"reach out of the tomogram both as Å and as voxels.*centre"):
            xyz(tmp_path, text, **SMALL)


def _load(folder: Path, text: str, **context: Any) -> Any:
    (folder / "p.csv").write_text(text)
    return particles.load(folder / "p.csv", context=Context(**context))


ANGSTROM = [
    "x_angst,y_angst,z_angst", "x_A,y_A,z_A", "x (Å),y (Å),z (Å)", "X [Angstrom],Y [Angstrom],Z [Angstrom]",
    "x_ang,y_ang,z_ang", "pos_x_angstrom,pos_y_angstrom,pos_z_angstrom", "x(\u212b),y(\u212b),z(\u212b)",
    "x_coord_ang,y_coord_ang,z_coord_ang",
]  # fmt: skip
VOXELS = [
    "x_px,y_px,z_px", "x_vox,y_vox,z_vox", "X (pixels),Y (pixels),Z (pixels)", "x voxel,y voxel,z voxel",
    "coord_x_px,coord_y_px,coord_z_px", "xpx,ypx,zpx",
]  # fmt: skip
NANOMETRES = ["x_nm,y_nm,z_nm", "Position X [nm],Position Y [nm],Position Z [nm]"]


@pytest.mark.parametrize(
    ("header", "factor"),
    [(h, 1) for h in ANGSTROM] + [(h, 10) for h in NANOMETRES] + [(h, 8) for h in VOXELS],
)
def test_the_names_of_columns_state_the_unit(tmp_path: Path, header: str, factor: float) -> None:
    text = f"id,{header},score\n7,100.5,200,50,0.5\n"
    assert xyz(tmp_path, text, voxel_size=8.0) == [[100.5 * factor, 200 * factor, 50 * factor]]
    assert read(tmp_path, text, voxel_size=8.0)["score"].tolist() == [0.5]


def test_voxels_need_the_voxel_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"voxel size .* is not known"):
        xyz(tmp_path, "x_px,y_px,z_px\n1,2,3\n")


def test_of_two_sets_the_one_in_angstrom_is_taken(tmp_path: Path) -> None:
    table = read(tmp_path, "x,y,z,x_angst,y_angst,z_angst\n1,2,3,10,20,30\n", voxel_size=8.0)
    assert table[XYZ].to_numpy().tolist() == [[10, 20, 30]]
    assert table[["x_1", "y_1", "z_1"]].to_numpy().tolist() == [[1, 2, 3]]
    assert xyz(tmp_path, "x_px,y_px,z_px,x_nm,y_nm,z_nm\n1,2,3,4,5,6\n", voxel_size=8.0) == [[40, 50, 60]]
    mixed = "x_px,y_px,z_nm\n1,2,3\n"  # of two units: no positions
    with pytest.raises(InputError, match=r"p\.csv is not a file of particles"):
        xyz(tmp_path, mixed, voxel_size=8.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.tsv", "x_angst\ty_angst\tz_angst\tname\n1.5\t2\t3\ta,b\n"),
        ("p.csv", "x_angst;y_angst;z_angst;name\r\n1,5;2;3;a,b\r\n"),
        ("p.csv", "\ufeffx_angst,y_angst,z_angst,name\n1.5,2,3,\"a,b\"\n"),
        ("p.csv", "# made by something 1.2\n# x_angst,y_angst,z_angst,name\n1.5,2,3,\"a,b\"\n"),
        ("p.csv", "# made by something 1.2\n\nx_angst, y_angst, z_angst, name\n 1.5, 2, 3,\"a,b\"\n\n"),
        ("p.txt", "x_angst y_angst  z_angst name\n1.5 2 3   a,b\n"),
        ("p.csv", "x_angst,y_angst,z_angst,name,\n1.5,2,3,\"a,b\",\n"),
        ("p.csv", "x_angst,y_angst,z_angst,name\r1.5,2,3,\"a,b\"\r"),
    ],
)  # fmt: skip
def test_as_other_programs_separate(tmp_path: Path, name: str, text: str) -> None:
    table = read(tmp_path, text, name)
    assert table[XYZ].to_numpy().tolist() == [[1.5, 2.0, 3.0]]
    assert table["name"].str.strip().tolist() == ["a,b"]


def test_a_line_with_more_values_than_columns_moves_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'7,1,2,3' has 4 values, and there are 3 columns"):
        xyz(tmp_path, "x,y,z\n7,1,2,3\n", unit="angstrom")
    assert xyz(tmp_path, "x,y,z\n1,2,3,\n", unit="angstrom") == [[1, 2, 3]]
    with pytest.raises(InputError, match=r"two columns|2 columns 'x'"):
        xyz(tmp_path, "x,x,y,z\n1,2,3,4\n", unit="angstrom")


def test_our_own_lists_are_in_angstrom(tmp_path: Path) -> None:
    text = "tomogram,class_name,x,y,z\na,ribosome,100,200,50\n"
    assert xyz(tmp_path, text, **SMALL) == [[100, 200, 50]]
    # as a fine-tuning says it of its other lists
    assert xyz(tmp_path, text, **SMALL, pixel_size=2.0, in_pixels=True) == [[100, 200, 50]]
    assert xyz(tmp_path, "x,y,z\n100,200,50\n", **SMALL, pixel_size=2.0, in_pixels=True) == [[200, 400, 100]]
    table = particles.read(tmp_path / "p.csv", context=Context(unit="angstrom"))
    for name in ("o.csv", "o.tsv"):
        particles.write(table, tmp_path / name)
        pd.testing.assert_frame_equal(particles.read(tmp_path / name, voxel_size=10.0), table)
    assert (tmp_path / "o.tsv").read_text().startswith("tomogram\tclass_name")


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_names_of_columns(names: list[str]) -> None:
    found = positions(names)
    assert found is None or set(found.columns) <= set(names)


@pytest.mark.parametrize(
    "names", [["zoom", "xray", "yes"], ["x", "y"], ["xs", "ys", "zs"], ["x_a", "y_a", "z_a"]]
)
def test_what_are_no_positions(names: list[str]) -> None:
    assert positions(names) is None
    expected = [name if name in names else name.upper() for name in "xyz"]
    assert positions([*names, "X", "Y", "Z"]) == Positions((expected[0], expected[1], expected[2]), "")


@pytest.mark.parametrize("name", ["Tomogram", "tomo_name", "rlnTomoName", "tilt series", "run_name", "TS"])
def test_tomograms_under_other_names(tmp_path: Path, name: str) -> None:
    text = f"{name},x_px,y_px,z_px\nTS_1.mrc,1,2,3\n00255,4,5,6\n"
    table = read(tmp_path, text, voxel_size={"TS_1": 10.0, "00255": 2.0})
    assert table["tomogram"].tolist() == ["TS_1", "00255"]
    assert table[XYZ].to_numpy().tolist() == [[10, 20, 30], [8, 10, 12]]


@pytest.mark.parametrize(
    ("column", "values", "names"),
    [
        ("class", ["ribosome", "fas"], ["ribosome", "fas"]),
        ("particle_type", ["ribosome", "fas"], ["ribosome", "fas"]),
        ("Class", ["2", "1"], ["fas", "ribosome"]),
        ("class", ["2.0", "7"], ["fas", "class7"]),
        ("label", ["1", "2"], ["particle", "particle"]),  # ours, of which the names are not known
        ("colour", ["red", "blue"], ["particle", "particle"]),
    ],
)
def test_classes_under_other_names(tmp_path: Path, column: str, values: list[str], names: list[str]) -> None:
    rows = "".join(f"1,2,3,{value}\n" for value in values)
    classes = (ClassInfo(name="ribosome", label=1, radius=110), ClassInfo(name="fas", label=2, radius=120))
    table = read(tmp_path, f"x_angst,y_angst,z_angst,{column}\n{rows}", classes=classes)
    assert table["class_name"].tolist() == names


def test_an_impossible_size_in_a_list_is_no_reading(tmp_path: Path) -> None:
    row = [0.0] * 42
    row[19], row[23:26], row[35] = 1, [11, 21, 31], -5.0
    (tmp_path / "p.tbl").write_text(" ".join(f"{value:g}" for value in row) + "\n")
    with pytest.raises(InputError, match=r"voxel size of -5 Å of the tomogram '1', as column 36 says"):
        particles.read(tmp_path / "p.tbl", context=Context(voxel_size=10.0))
    found = particles.read(tmp_path / "p.tbl", context=Context(voxel_size=10.0, unit="voxels"))
    assert found[XYZ].to_numpy().tolist() == [[100, 200, 300]]
