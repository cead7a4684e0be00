"""What a list says against what is given, names that other readers must find, and values of nothing.

Each is a brother of a file that was read wrongly: the right value comes out, or a refusal names both
readings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
import pytest
import starfile

from catalogs import particles, user_warnings
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.registry import FORMATS

XYZ = ["x", "y", "z"]


def xyz(path: Path, format: str | None = None, **context: Any) -> list[list[float]]:
    table = particles.read(path, format, context=Context(**context))
    found: list[list[float]] = table[XYZ].to_numpy().round(3).tolist()
    return found


def write_star(path: Path, **blocks: dict[str, list[Any]]) -> Path:
    text = ""
    for name, columns in blocks.items():
        labels = "".join(f"_{label} #{k}\n" for k, label in enumerate(columns, start=1))
        rows = "\n".join(" ".join(map(str, row)) for row in zip(*columns.values(), strict=True))
        text += f"data_{name}\n\nloop_\n{labels}{rows}\n\n"
    path.write_text(text)
    return path


# ----------------------------------------------------------------- two sizes of a voxel, stated and given


def dynamo(folder: Path, size: float) -> Path:
    row = [0.0] * 42
    row[19], row[23:26], row[35] = 1, [11, 21, 31], size
    path = folder / "p.tbl"
    path.write_text(" ".join(f"{value:g}" for value in row) + "\n")
    return path


def imod(folder: Path, size: float) -> Path:
    path = folder / "p.mod"
    one = particles.make(tomogram="p", x=[10 * size], y=[20 * size], z=[30 * size])
    particles.save(one, path, "imod", Context(voxel_size=size))
    return path


def portal(folder: Path, size: float) -> Path:
    path = folder / f"p/Reconstructions/VoxelSpacing{size:.3f}/Annotations/100/ribosome-1.0_point.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "point", "location": {"x": 10, "y": 20, "z": 30}}) + "\n")
    return path


STATING = {"dynamo": dynamo, "imod": imod, "portal": portal}


@pytest.mark.parametrize("name", STATING)
def test_a_size_that_the_list_states_and_another_that_is_given(name: str, tmp_path: Path) -> None:
    path = STATING[name](tmp_path, 5.0)
    assert xyz(path) == [[50.0, 100.0, 150.0]]
    assert xyz(path, voxel_size=5.0) == [[50.0, 100.0, 150.0]]
    assert xyz(path, voxel_size=5.02) == [[50.2, 100.4, 150.6]]  # one of them is rounded
    with pytest.raises(InputError, match=r"voxels of 5 Å .*voxels of 10 Å .*from_pixel_size=5.*unit=voxels"):
        xyz(path, voxel_size=10.0)
    assert xyz(path, voxel_size=10.0, list_pixel=5.0) == [[50.0, 100.0, 150.0]]
    assert xyz(path, voxel_size=10.0, unit="voxels") == [[100.0, 200.0, 300.0]]


@pytest.mark.parametrize("name", ["dynamo", "imod"])
def test_a_size_of_1_says_nothing(name: str, tmp_path: Path) -> None:
    path = STATING[name](tmp_path, 1.0)
    with pytest.raises(InputError, match=r"voxel size .* is not known"):
        xyz(path)
    assert xyz(path, voxel_size=10.0) == [[100.0, 200.0, 300.0]]


@pytest.mark.parametrize("column", ["rlnImagePixelSize", "rlnMicrographOriginalPixelSize"])
def test_a_size_of_images_is_none_of_coordinates(column: str, tmp_path: Path) -> None:
    """RELION 3.1 states the pixels of the images in the optics, and not what coordinates count in."""
    path = write_star(
        tmp_path / "p.star",
        optics={"rlnOpticsGroup": [1], column: [4.0]},
        particles={
            "rlnMicrographName": ["TS_1.tomostar"],
            **{f"rlnCoordinate{axis}": [value] for axis, value in zip("XYZ", (100, 200, 50), strict=True)},
            "rlnOpticsGroup": [1],
        },
    )
    with pytest.raises(
        InputError, match=rf"{column} of 4 Å.*may count in that or in voxels.*from_pixel_size=4"
    ):
        xyz(path)
    with pytest.raises(InputError, match=rf"pixels of 4 Å \({column}\) or in voxels of 10 Å"):
        xyz(path, voxel_size=10.0)
    assert xyz(path, voxel_size=4.0) == [[400.0, 800.0, 200.0]]
    assert xyz(path, list_pixel=4.0) == [[400.0, 800.0, 200.0]]
    assert xyz(path, voxel_size=10.0, unit="voxels") == [[1000.0, 2000.0, 500.0]]


def test_optics_groups_of_several_pixel_sizes(tmp_path: Path) -> None:
    """Each tomogram has its own; one with two is refused."""
    columns = {
        "rlnTomoName": ["a", "b", "b"],
        **{f"rlnCoordinate{axis}": [100, 100, 50] for axis in "XYZ"},
        "rlnOpticsGroup": [1, 2, 2],
    }
    optics = {"rlnOpticsGroup": [1, 2], "rlnTomoTiltSeriesPixelSize": [1.5, 3.0]}
    path = write_star(tmp_path / "p.star", optics=optics, particles=columns)
    assert xyz(path) == [[150.0] * 3, [300.0] * 3, [150.0] * 3]
    columns["rlnOpticsGroup"] = [1, 2, 1]
    path = write_star(tmp_path / "q.star", optics=optics, particles=columns)
    with pytest.raises(InputError, match=r"of the tomogram 'b' is 3 and 1\.5; say which"):
        xyz(path)


# ------------------------------------------------------------------------------------------------ shares


SHARES = {
    "coords": ("p.coords", "0.25 0.5 0.75\n0.5 0.5 0.5\n0.1 0.2 0.9\n"),
    "box": ("p.box", "0.25 0.5 0.75\n0.5 0.5 0.5\n0.1 0.2 0.9\n"),
    "csv": ("p.csv", "x,y,z\n0.25,0.5,0.75\n0.5,0.5,0.5\n0.1,0.2,0.9\n"),
    "napari": ("p.csv", "index,axis-0,axis-1,axis-2\n0,0.75,0.5,0.25\n1,0.5,0.5,0.5\n2,0.9,0.2,0.1\n"),
    "relion4": (
        "p.star",
        "data_\n\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        "a 0.25 0.5 0.75\na 0.5 0.5 0.5\na 0.1 0.2 0.9\n",
    ),
}


@pytest.mark.parametrize("name", SHARES)
def test_shares_in_any_list(name: str, tmp_path: Path) -> None:
    file, text = SHARES[name]
    (tmp_path / file).write_text(text)
    sizes: dict[str, Any] = {"voxel_size": 10.0, "pixel_size": 10.0, "shape": (200, 400, 400)}
    with pytest.raises(InputError, match=r"all lie between 0 and 1.*unit=shares"):
        xyz(tmp_path / file, name, **sizes)
    assert xyz(tmp_path / file, name, unit="shares", **sizes)[0] == [1000.0, 2000.0, 1500.0]
    unit = "angstrom" if name == "csv" else "voxels"
    assert xyz(tmp_path / file, name, unit=unit, **sizes)[1] == [0.5 if name == "csv" else 5.0] * 3


# ------------------------------------------------------------------------------------------------- names

ODD = [
    "TS'03",
    "it's 3",
    "TS#3",
    "'quoted'",
    "TS_03 new",
    "_rln",
    "data_x",
    "loop_",
    ";x",
    "ü'a",
    "00255",
    "1e5",
]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("format", ["relion5", "relion4", "relion3", "m"])
def test_a_name_is_a_name_in_star(format: str, name: str, tmp_path: Path) -> None:
    """It comes back here, and through gemmi, which reads STAR to the letter of its grammar."""
    table = particles.make(tomogram=name, class_name=name, x=[80.0, 8.0], y=[8.0, 8.0], z=[8.0, 8.0])
    context = Context(voxel_size=8.0, shape=(99, 99, 99), pixel_size=2.0)
    path = tmp_path / "p.star"
    with user_warnings.heard() as heard:
        particles.save(table, path, format, context)
    assert bool(heard) == bool(set(name) & {"'", "#"})
    assert len(heard) <= 1
    read = particles.read(path, format, context=context)
    assert read["tomogram"].tolist() == [name] * 2
    assert read["class_name"].tolist() == [name] * 2
    label = {"relion3": "rlnMicrographName", "m": "wrpSourceName"}.get(format, "rlnTomoName")
    block = next(b for b in gemmi.cif.read(str(path)) if b.find_loop(f"_{label}") and b.name == "particles")
    word = block.find_loop(f"_{label}")[0]
    assert gemmi.cif.as_string(word) in (name, f"{name}.tomostar")
    if not set(name) & {"'", "#", ";"}:  # which starfile takes for quotation marks and comments
        theirs = starfile.read(path, parse_as_string=[label])
        theirs = theirs["particles"] if isinstance(theirs, dict) else theirs
        assert theirs[label].tolist()[0] in (name, f"{name}.tomostar")


@pytest.mark.parametrize("name", ['a"b', "a\tb", "a\nb"])
def test_names_that_star_has_no_quotes_for(name: str, tmp_path: Path) -> None:
    table = particles.make(tomogram=name, x=[80.0], y=[8.0], z=[8.0])
    with pytest.raises(InputError, match="cannot hold the name"):
        particles.save(table, tmp_path / "p.star", "m", Context(voxel_size=8.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rest", ["", "1"])
def test_ms_columns_with_and_without_a_number(rest: str, tmp_path: Path) -> None:
    """With one position a particle some versions of M leave out the 1."""
    columns = {
        f"wrpCoordinate{axis}{rest}": [value] for axis, value in zip("XYZ", (100.5, 200, 300), strict=True)
    }
    columns |= {
        f"wrpAngle{name}{rest}": [value]
        for name, value in zip(("Rot", "Tilt", "Psi"), (10, 50, 80), strict=True)
    }
    path = write_star(tmp_path / "p.star", particles=columns | {"wrpSourceName": ["0025.tomostar"]})
    loaded = particles.load(path)
    assert loaded.format.name == "m"
    assert loaded.table[XYZ].to_numpy().tolist() == [[100.5, 200.0, 300.0]]
    particles.save(loaded.table, tmp_path / "q.star", "relion5", Context(voxel_size=10.0, shape=(90, 90, 90)))
    again = starfile.read(tmp_path / "q.star")["particles"]
    np.testing.assert_allclose(again[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].iloc[0], [10, 50, 80])


def test_every_format_refuses_its_own_sizes_of_0(tmp_path: Path) -> None:
    table = particles.make(tomogram="TS_03", x=[80.0], y=[8.0], z=[8.0], class_name="ribosome")
    for name in FORMATS:
        for size in (0.0, -8.0, float("nan")):
            with pytest.raises(InputError, match="it must be above 0"):
                particles.save(table, tmp_path / "out", name, Context(voxel_size=size, shape=(9, 9, 9)))


def test_starfile_reads_what_m_reads(tmp_path: Path) -> None:
    """The columns of M's reader, in the file that is written for it, as another reader finds them."""
    turned = {"qx": [0.0, 0.6], "qy": [0.0, 0.0], "qz": [0.0, 0.0], "qw": [1.0, 0.8]}
    table = particles.make(tomogram=["a", "b"], x=[1.5, 2], y=[3.0, 4], z=[5.0, 6], **turned)
    particles.save(table, tmp_path / "p.star", "m")
    theirs: pd.DataFrame = starfile.read(tmp_path / "p.star")
    assert theirs[[f"wrpCoordinate{axis}1" for axis in "XYZ"]].to_numpy().tolist() == [[1.5, 3, 5], [2, 4, 6]]
    assert theirs["wrpSourceName"].tolist() == ["a.tomostar", "b.tomostar"]
