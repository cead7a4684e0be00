from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats import relion
from catalogs.particle_formats.base import Context

finite = st.floats(-1e5, 1e5, allow_nan=False)
# What a name may hold in every format; STAR's own limits are tested apart.
names = st.text(st.characters(categories=["L", "N"], include_characters="_-. ()+"), max_size=12).filter(
    lambda text: text not in ("nan", "NaN", "<NA>") and text == text.strip()
)
tricky = st.sampled_from(["data_7", "_x", "1e10", "007", "", "loop_", "a b", "None", "-", "TS_01"])


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    n = draw(st.integers(0, 6))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    # Random rotations, and those at which Euler angles are not unique.
    quaternions = column(
        st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
        | st.sampled_from([(0, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0.6, 0.8), (0.6, 0.8, 0, 0)])
    )
    q = np.array(quaternions, np.float64).reshape(n, 4)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    return particles.make(
        tomogram=column(names | tricky),
        class_name=column(names | tricky),
        label=column(st.integers(0, 255)),
        instance=column(st.integers(0, 65535)),
        x=column(finite),
        y=column(finite),
        z=column(finite),
        qx=q[:, 0],
        qy=q[:, 1],
        qz=q[:, 2],
        qw=q[:, 3],
        score=column(st.floats(0, 1) | st.just(np.nan)),
        structure=column(names | tricky),
        variant=column(st.integers(-1, 1000)),
        crowding=np.array(column(finite), np.float64),
    )


def same(read: pd.DataFrame, table: pd.DataFrame, atol: float) -> None:
    assert list(read.columns) == list(table.columns)
    for name in table.columns:
        if table[name].dtype == object or table[name].dtype == np.int64:
            assert list(read[name]) == list(table[name]), name
        elif name not in ("qx", "qy", "qz", "qw"):
            np.testing.assert_allclose(read[name], table[name], rtol=1e-11, atol=atol)
    if len(table):
        q = ["qx", "qy", "qz", "qw"]
        apart = Rotation.from_quat(read[q].to_numpy()).inv() * Rotation.from_quat(table[q].to_numpy())
        assert apart.magnitude().max() < 1e-6


class TestRoundTrips:
    @given(
        tables(),
        st.floats(0.5, 40),
        st.tuples(*[st.integers(1, 2000)] * 3),
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_star(self, tmp_path: Path, table: pd.DataFrame, voxel: float, shape: Any) -> None:
        file = tmp_path / "p.star"
        particles.write(table, file, voxel_size=voxel, shape=shape)
        same(particles.read(file), table, atol=1e-6)

    @given(tables())
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_csv_to_the_bit(self, tmp_path: Path, table: pd.DataFrame) -> None:
        file = tmp_path / "p.csv"
        particles.write(table, file, voxel_size=1, shape=(1, 1, 1))
        # A column that is not ours says its type by its values: without rows it has none.
        pd.testing.assert_frame_equal(particles.read(file), table, check_dtype=len(table) > 0)

    @given(
        st.lists(
            st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=8),
            min_size=1,
            max_size=4,
        )
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_csv_any_names(self, tmp_path: Path, tomograms: list[str]) -> None:
        zeros = [0.0] * len(tomograms)
        table = particles.make(tomogram=tomograms, x=zeros, y=zeros, z=zeros)
        file = tmp_path / "p.csv"
        particles.write(table, file, voxel_size=1, shape=(1, 1, 1))
        assert list(particles.read(file)["tomogram"]) == tomograms

    def test_csv_of_another_program(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("\ufeffz,y,x,score,who\n3,2,1,,me\n6,5,4,0.5,\n", encoding="utf-8")
        table = particles.read(tmp_path / "p.csv", context=Context(unit="angstrom"))
        assert table[["x", "y", "z"]].to_numpy().tolist() == [[1, 2, 3], [4, 5, 6]]
        assert np.isnan(table["score"][0])
        assert table["score"][1] == 0.5
        assert table["who"].tolist() == ["me", ""]

    def test_csv_refuses_line_breaks(self, tmp_path: Path) -> None:
        table = particles.make(tomogram="a\rb", x=[1], y=[1], z=[1])
        with pytest.raises(InputError, match="cannot hold"):
            particles.write(table, tmp_path / "p.csv", voxel_size=1, shape=(1, 1, 1))

    def test_tomograms_of_different_size_in_one_star(self, tmp_path: Path) -> None:
        table = particles.make(tomogram=["a", "b"], x=[10.0, 10.0], y=[20.0, 20.0], z=[30.0, 30.0])
        file = tmp_path / "p.star"
        voxels, shapes = {"a": 8.0, "b": 10.0}, {"a": (50, 101, 100), "b": (60, 80, 81)}
        particles.write(table, file, voxel_size=voxels, shape=shapes)
        same(particles.read(file), table, 1e-9)
        stars = starfile.read(file)["particles"]
        assert stars["rlnCenteredCoordinateXAngst"].tolist() == [10 - 400, 10 - 405]
        with pytest.raises(InputError, match=r"size in voxels of the tomogram 'b' is not known.*`shape`"):
            particles.write(table, file, voxel_size=8.0, shape={"a": (50, 101, 100)})


class TestRelion:
    @pytest.mark.parametrize("n", [100, 101])
    def test_centre_is_where_relion_extracts(self, tmp_path: Path, n: int) -> None:
        """RELION: pixel = centred / pixel size + size / 2, with pixel 0 the centre of the first."""
        table = particles.make(tomogram="t", x=[7 * 4.0], y=[0.0], z=[0.0])
        particles.write(table, tmp_path / "p.star", voxel_size=4.0, shape=(20, 30, n))
        centred = starfile.read(tmp_path / "p.star")["particles"]["rlnCenteredCoordinateXAngst"][0]
        assert centred / 4.0 + n / 2 == pytest.approx(7)

    def test_eulers_are_relions(self, tmp_path: Path) -> None:
        """RELION's matrix particle -> tomogram, written out from its Euler angles (Euler_angles_relion.h)."""
        rotations = Rotation.random(20, rng=np.random.default_rng(3))
        q = rotations.as_quat()
        zeros = np.zeros(20)
        table = particles.make(
            tomogram="t", x=zeros, y=zeros, z=zeros, qx=q[:, 0], qy=q[:, 1], qz=q[:, 2], qw=q[:, 3]
        )
        particles.write(table, tmp_path / "p.star", voxel_size=1.0, shape=(9, 9, 9))
        stars = starfile.read(tmp_path / "p.star")["particles"]
        rot, tilt, psi = np.radians(stars[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy().T)
        (sp, cp), (stt, ct), (sc, cc) = ((np.sin(a), np.cos(a)) for a in (rot, tilt, psi))
        matrix = np.array(
            [
                [cc * ct * cp - sc * sp, cc * ct * sp + sc * cp, -cc * stt],
                [-sc * ct * cp - cc * sp, -sc * ct * sp + cc * cp, sc * stt],
                [stt * cp, stt * sp, ct],
            ]
        )
        np.testing.assert_allclose(matrix.transpose(2, 0, 1), rotations.as_matrix(), atol=1e-9)

    def test_known_angles(self, tmp_path: Path) -> None:
        """A pair that agrees between RELION and Dynamo (test vector of the package eulerangles)."""
        text = "data_particles\n\nloop_\n" + "".join(
            f"_{name}\n"
            for name in [
                *[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"],
                *["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnTomoName"],
            ]
        )
        (tmp_path / "p.star").write_text(text + "0 0 0 137.7000 1.1777 42.7270 t\n")
        table = particles.read(tmp_path / "p.star", voxel_size=2.0, shape=(10, 10, 11))
        dynamo = Rotation.from_euler("zxz", [-47.2730, 1.1777, -132.3000], degrees=True).inv()
        ours = Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy())
        assert (ours * dynamo.inv()).magnitude()[0] < 1e-6
        assert table[["x", "y", "z"]].to_numpy().tolist() == [[11.0, 10.0, 10.0]]

    def test_a_refined_file_of_relion(self, tmp_path: Path) -> None:
        """Shifts and subtomogram angles as RELION composes them: position - A_sub shift, A_sub A."""
        columns = {
            "rlnTomoName": ["t"],
            **{f"rlnCenteredCoordinate{a}Angst": [v] for a, v in zip("XYZ", (1.0, 2.0, 3.0), strict=True)},
            **{f"rlnOrigin{a}Angst": [v] for a, v in zip("XYZ", (5.0, 0.0, 0.0), strict=True)},
            **{
                f"rlnTomoSubtomogram{a}": [v] for a, v in zip(("Rot", "Tilt", "Psi"), (90, 0, 0), strict=True)
            },
            **{f"rlnAngle{a}": [v] for a, v in zip(("Rot", "Tilt", "Psi"), (0, 90, 0), strict=True)},
            "rlnClassNumber": [2],
            "rlnMicrographName": ["m.mrc"],
        }
        starfile.write(
            {"optics": {"rlnOpticsGroup": 1}, "particles": pd.DataFrame(columns)}, tmp_path / "p.star"
        )
        with pytest.raises(InputError, match=r"size in voxels of the tomogram 't' is not known; give it"):
            particles.read(tmp_path / "p.star")
        table = particles.read(tmp_path / "p.star", voxel_size=1.0, shape=(10, 10, 10))
        # A_sub for rot 90 turns particle x to tomogram -y
        assert table[["x", "y", "z"]].to_numpy()[0] == pytest.approx([6.0, 7.0 + 5.0, 8.0])
        sub = Rotation.from_euler("Z", 90, degrees=True).inv()
        particle = Rotation.from_euler("Y", 90, degrees=True).inv()
        ours = Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy()[0])
        assert (ours.inv() * (sub * particle)).magnitude() < 1e-6
        assert table["class_name"][0] == "class2"
        assert table["rlnMicrographName"][0] == "m.mrc"

    def test_same_table_same_bytes(self, tmp_path: Path) -> None:
        table = particles.make(tomogram="t", x=[1.0], y=[2.0], z=[3.0])
        for name in ("a.star", "b.star"):
            particles.write(table, tmp_path / name, voxel_size=8.0, shape=(4, 5, 6))
        assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()

    def test_classes_travel_along(self, tmp_path: Path, classes: Any) -> None:
        table = particles.make(tomogram="t", class_name="fas", label=2, x=[1.0], y=[2.0], z=[3.0])
        particles.write(table, tmp_path / "p.star", voxel_size=8.0, shape=(4, 5, 6), classes=classes)
        assert relion.read_classes(tmp_path / "p.star") == classes
        same(particles.read(tmp_path / "p.star"), table, 1e-9)

    @pytest.mark.parametrize("name", ['a"b', "a\tb", "a\nb", "nan"])
    def test_names_that_star_cannot_hold(self, tmp_path: Path, name: str) -> None:
        table = particles.make(tomogram=name, x=[1.0], y=[2.0], z=[3.0])
        with pytest.raises(InputError, match="cannot hold"):
            particles.write(table, tmp_path / "p.star", voxel_size=8.0, shape=(4, 5, 6))
        assert not list(tmp_path.iterdir())


class TestMake:
    def test_defaults(self) -> None:
        table = particles.make(
            tomogram="t", class_name=["b", "distractor", "a"], x=[1] * 3, y=[2] * 3, z=[3] * 3
        )
        assert list(table.columns) == list(particles.COLUMNS)
        assert table["label"].tolist() == [2, 0, 1]
        assert table["qw"].tolist() == [1.0] * 3
        assert table["score"].isna().all()
        assert {str(table[name].dtype) for name in "xyz"} == {"float64"}

    def test_empty(self) -> None:
        assert list(particles.empty().columns) == list(particles.COLUMNS)
        assert particles.empty()["label"].dtype == np.int64

    def test_columns_of_another_frame_ignore_its_index(self) -> None:
        frame = pd.DataFrame(
            {"x": [1.0, 2.0], "y": [1.0, 2.0], "z": [1.0, 2.0], "more": [5, 6]}, index=[7, 9]
        )
        table = particles.make(**{str(name): frame[name] for name in frame})
        assert table["more"].tolist() == [5, 6]
        assert table.index.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("columns", "says"),
        [
            ({"x": [1], "y": [1]}, "z is missing"),
            ({"x": [1], "y": [1, 2], "z": [1]}, "'y' .* 2 rows, x has 1"),
            ({"x": [np.nan], "y": [1], "z": [1]}, "x of particle 1"),
            ({"x": ["one"], "y": [1], "z": [1]}, "'x' .* numbers"),
            ({"x": [1], "y": [1], "z": [1], "label": [1.5]}, "'label' .* whole numbers"),
            ({"x": [1], "y": [1], "z": [1], "label": [np.nan]}, "'label' .* whole numbers"),
            ({"x": [1], "y": [1], "z": [1], "qw": [0]}, "quaternion of particle 1"),
        ],
    )
    def test_refuses(self, columns: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            particles.make(**columns)


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no particle list"):
            particles.read(tmp_path / "p.star")

    @pytest.mark.parametrize(
        ("name", "reading", "writing"),
        [
            ("p.tbl", "files .tbl are dynamo", None),
            ("p.pdf", "not a file of particles", "'.pdf', which no particle list has"),
            ("p.txt", "may be imod-text .* or coords", "may be imod-text, deepfinder-text or shrec"),
            ("p.json", "not a file of particles", "may be copick or eman2"),
        ],
    )
    def test_unclear_ending(self, tmp_path: Path, name: str, reading: str, writing: str | None) -> None:
        (tmp_path / name).write_text("1 2 3")
        with pytest.raises(InputError, match=reading.replace(" or coords", "coords")):
            particles.read(tmp_path / name)
        if writing is not None:
            with pytest.raises(InputError, match=writing):
                particles.write(particles.empty(), tmp_path / name, voxel_size=1.0, shape=(1, 1, 1))

    def test_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no format 'relion6'; did you mean 'relion"):
            particles.write(particles.empty(), tmp_path / "p.star", "relion6")

    @pytest.mark.parametrize("content", ["", "x,y\n1,2\n", "x,y,z\n1,2,one\n", "\x00\xff", "a,b\n1,2,3,4\n"])
    def test_csv(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "p.csv").write_bytes(content.encode("latin1"))
        with pytest.raises(InputError, match=re.escape("p.csv")):
            particles.read(tmp_path / "p.csv")

    @pytest.mark.parametrize("content", ["", "hello", "data_\n\nloop_\n_rlnMicrographName\na\n", "\x00\xff"])
    def test_star(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "p.star").write_bytes(content.encode("latin1"))
        with pytest.raises(InputError, match=re.escape("p.star")):
            particles.read(tmp_path / "p.star")
