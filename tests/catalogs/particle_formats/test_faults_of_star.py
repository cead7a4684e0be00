"""STAR files as other programs write them, and values that no list can have."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats import star
from catalogs.particle_formats.base import Context

XYZ = ["x", "y", "z"]


def xyz(path: Path, **context: Any) -> list[list[float]]:
    return np.round(particles.read(path, context=Context(**context))[XYZ].to_numpy(), 6).tolist()


class TestStarAsOthersWriteIt:
    HEAD = "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\n# a comment\n\n_rlnCoordinateY #3\n"

    def read(self, path: Path, content: bytes) -> pd.DataFrame:
        path.write_bytes(content)
        return particles.read(path, context=Context(pixel_size=2.0))

    @pytest.mark.parametrize(
        ("row", "name"),
        [
            ("TS'03 1 2 3", "TS'03"),
            ("'TS 03' 1 2 3", "TS 03"),
            ('"TS 03" 1 2 3', "TS 03"),
            ("TS_03 1 2 3 # the third", "TS_03"),
            ("  TS_03\t1   2 3  ", "TS_03"),
            ("TS#3 1 2 3", "TS#3"),
            ("'it''s 1 2 3", "'it''s"),
        ],
    )
    def test_words(self, tmp_path: Path, row: str, name: str) -> None:
        table = self.read(tmp_path / "p.star", f"{self.HEAD}_rlnCoordinateZ #4\n{row}\n# end\n\n".encode())
        assert table["tomogram"].tolist() == [name]
        assert table[XYZ].to_numpy().tolist() == [[2.0, 4.0, 6.0]]

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_letters_and_line_ends(self, tmp_path: Path, encoding: str, end: str) -> None:
        text = f"{self.HEAD}_rlnCoordinateZ #4\nlamelle_é 1 2 3\n".replace("\n", end)
        table = self.read(tmp_path / "p.star", text.encode(encoding))
        assert table["tomogram"].tolist() == ["lamelle_é"]

    def test_one_particle_as_pairs(self, tmp_path: Path) -> None:
        pairs = (
            "_rlnTomoName 007\n_rlnCoordinateX 1\n_rlnCoordinateY 2\n_rlnCoordinateZ 3\n_rlnOpticsGroup 1\n"
        )
        optics = "_rlnOpticsGroup 1\n_rlnTomoTiltSeriesPixelSize 2.5\n"
        (tmp_path / "p.star").write_text(f"data_optics\n\n{optics}\ndata_particles\n\n{pairs}")
        table = particles.read(tmp_path / "p.star")
        assert table["tomogram"].tolist() == ["007"]
        assert table["x"].tolist() == [2.5]

    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            ("a 1 2\n", r"line 10 of .*p\.star has 3 values.*4 columns"),
            ("a 1 2 3\nb 1 2 3 4\n", "line 11 .* has 5 values"),
            ("a x 2 3\n", "rlnCoordinateX of row 1 is 'x', not a number"),
        ],
    )
    def test_says_which_line(self, tmp_path: Path, rows: str, says: str) -> None:
        with pytest.raises(InputError, match=says):
            self.read(tmp_path / "p.star", f"{self.HEAD}_rlnCoordinateZ #4\n{rows}".encode())

    @given(
        st.lists(
            st.tuples(
                st.floats(allow_nan=True, allow_infinity=False, width=32), st.sampled_from(["", "a b", "c"])
            ),
            min_size=1,
            max_size=4,
        )
    )
    @settings(max_examples=40, deadline=None)
    def test_what_we_write_is_never_empty_or_nan(self, rows: list[tuple[float, str]]) -> None:
        values = [value for value, _ in rows]
        frame = pd.DataFrame({"n": values, "t": [text for _, text in rows]})
        text = star.to_text({"a": frame}, "# c\n")
        words = [word for line in text.splitlines()[1:] for word in star._words(line)]
        assert not {"-0", "nan", "NaN", "", '""'} & set(words)

    def test_a_table_without_everything(self, tmp_path: Path) -> None:
        table = particles.make(
            tomogram="a",
            x=[-0.0, 8.0],
            y=[0.0, 0.0],
            z=[0.0, 0.0],
            score=[np.nan, 0.5],
            size=[np.nan, 3.0],
            more="",
        )
        context = Context(voxel_size=8.0, shape=(10, 10, 10), pixel_size=2.0)
        for name in ("relion5", "relion4", "relion3", "stopgap"):
            particles.save(table, tmp_path / "p.star", name, context)
            words = (tmp_path / "p.star").read_text().split()
            assert not {"-0", "nan", "NaN", '""', "-0.0"} & set(words)
            read = particles.read(tmp_path / "p.star", context=context)
            assert np.isnan(read["score"][0])
            assert read["score"][1] == 0.5
            if name != "stopgap":
                assert np.isnan(read["size"][0])
                assert read["more"].tolist() == ["", ""]


class TestBadValues:
    def test_a_big_endian_motive_list(self, tmp_path: Path) -> None:
        rows = np.zeros((2, 20))
        rows[:, 0], rows[:, 4], rows[:, 7:10], rows[:, 19] = (
            [0.5, 0.75],
            7,
            [[11, 21, 31], [12, 22, 32]],
            [1, 2],
        )
        for machine, order in ((0, ">"), (1, "<"), (3, ">"), (5, ">"), (6, "<")):
            for code, kind in ((5, "f4"), (9, "f8")):
                header = bytes([machine, 0, 0, code]) + struct.pack(f"{order}3i", 20, 2, 1)
                (tmp_path / "m.em").write_bytes(
                    header.ljust(512, b"\0") + rows.astype(order + kind).tobytes()
                )
                table = particles.read(tmp_path / "m.em", voxel_size=10.0)
                assert table[XYZ].to_numpy().tolist() == [[100, 200, 300], [110, 210, 310]]
                assert table["label"].tolist() == [1, 2]

    def test_a_class_that_is_not_a_number(self, tmp_path: Path) -> None:
        rows = np.zeros((2, 20), "<f4")
        rows[1, 19] = np.nan
        header = bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, 2, 1)
        (tmp_path / "m.em").write_bytes(header.ljust(512, b"\0") + rows.tobytes())
        with pytest.raises(InputError, match=r"the class \(row 20\) of particle 2 is nan"):
            particles.read(tmp_path / "m.em", voxel_size=10.0)
        row = ["1"] * 35
        row[21] = "NaN"
        (tmp_path / "m.tbl").write_text(" ".join(row) + "\n")
        with pytest.raises(InputError, match=r"the class \(column 22\) of particle 1 is nan"):
            particles.read(tmp_path / "m.tbl", voxel_size=10.0)

    @pytest.mark.parametrize("before", ["", "\n", "\ufeff", "\ufeff\n \n"])
    def test_an_annotation_with_a_blank_line(self, tmp_path: Path, before: str) -> None:
        line = '{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}\n'
        (tmp_path / "t.ndjson").write_text(before + line, encoding="utf-8")
        assert xyz(tmp_path / "t.ndjson", voxel_size=10.0) == [[10.0, 20.0, 30.0]]

    @pytest.mark.parametrize(
        ("matrix", "says"),
        [
            ([[1, 0, 0], [0, 1, 0], [0, 0, -1]], "the matrix of point 2 mirrors the particle"),
            ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], "the matrix of point 2 is not a rotation"),
            ([[2, 0, 0], [0, 2, 0], [0, 0, 2]], "the matrix of point 2 is not a rotation"),
        ],
    )
    def test_a_matrix_that_is_no_rotation(self, tmp_path: Path, matrix: list[list[int]], says: str) -> None:
        import json

        location = {"x": 1, "y": 2, "z": 3}
        points = [
            {"type": "orientedPoint", "location": location, "xyz_rotation_matrix": m}
            for m in (np.eye(3).tolist(), matrix)
        ]
        (tmp_path / "t.ndjson").write_text("".join(json.dumps(point) + "\n" for point in points))
        with pytest.raises(InputError, match=says):
            particles.read(tmp_path / "t.ndjson", voxel_size=10.0)
        affine = np.eye(4)
        affine[:3, :3] = matrix
        content = {
            "pickable_object_name": "a",
            "points": [{"location": location, "transformation_": m.tolist()} for m in (np.eye(4), affine)],
        }
        (tmp_path / "t.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=says):
            particles.read(tmp_path / "t.json")
