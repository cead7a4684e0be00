"""Files of the field that were read as something else, each with the right value worked out by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats import star
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.relion_project import read_tomograms
from tlpick.network.tomograms.inputs import Selection, expand

XYZ = ["x", "y", "z"]
Q = ["qx", "qy", "qz", "qw"]
PIXELS = [f"rlnCoordinate{a}" for a in "XYZ"]


def write_star(path: Path, **blocks: dict[str, list[Any]]) -> Path:
    """Write a STAR file word by word."""
    lines = []
    for name, columns in blocks.items():
        lines += [f"data_{name}", "", "loop_", *(f"_{label}" for label in columns)]
        lines += [" ".join(map(str, row)) for row in zip(*columns.values(), strict=True)] + [""]
    path.write_text("\n".join(lines) + "\n")
    return path


def xyz(path: Path, **context: Any) -> list[list[float]]:
    return np.round(particles.read(path, context=Context(**context))[XYZ].to_numpy(), 6).tolist()


class TestImodFrames:
    """A model's points are those of the view that it was saved on."""

    @staticmethod
    def model(
        path: Path,
        point: tuple[float, float, float],
        flags: int = 0,
        frame: list[float] | None = None,
        pixel: float = 10.0,
        more: bytes = b"",
        contour: int = 1,
    ) -> Path:
        particles.save(
            particles.make(
                tomogram="t", class_name="ribo", x=[0.0] * contour, y=[0.0] * contour, z=[0.0] * contour
            ),
            path,
            "imod",
            Context(voxel_size=pixel),
        )
        content = bytearray(path.read_bytes())
        at = content.index(b"CONT") + 4 + 16
        content[at : at + 12] = np.array(point, ">f4").tobytes()
        (flagged,) = struct.unpack_from(">I", content, 8 + 128 + 16)
        struct.pack_into(">I", content, 8 + 128 + 16, flagged | flags)
        end = content.index(b"IEOF")
        chunk = b"" if frame is None else b"MINX" + struct.pack(">i18f", 72, *frame)
        path.write_bytes(bytes(content[:end]) + chunk + more + b"IEOF")
        return path

    def test_the_file_of_the_report(self, shared: Path) -> None:
        assert xyz(shared / "faults" / "flip.mod") == [[1000.0, 500.0, 200.0]]

    def test_flipped(self, tmp_path: Path) -> None:
        path = self.model(tmp_path / "t.mod", (100.5, 20.0, 50.5), 1 << 16)
        assert xyz(path) == [[1000.0, 500.0, 200.0]]
        assert "y and z exchanged" in particles.load(path).notes[0]

    @pytest.mark.parametrize("flipped", [False, True])
    def test_a_part_of_the_tomogram(self, tmp_path: Path, flipped: bool) -> None:
        """Shown from voxel 30, 40, 5 on: IMOD keeps origins negative to the inside."""
        frame = (
            [1.0] * 3
            + [-50.0, 0.0, 20.0]
            + [0.0] * 3
            + [10.0] * 3
            + [-350.0, -400.0, -30.0]
            + [0.0, 5.0, 7.0]
        )
        point = (10.5, 2.0, 20.5) if flipped else (10.5, 20.5, 2.0)
        path = self.model(tmp_path / "t.mod", point, (1 << 14) | (1 << 16) * flipped, frame)
        assert xyz(path) == [[400.0, 600.0, 70.0]]
        assert any("begins at voxel 30, 40, 5" in note for note in particles.load(path).notes)

    def test_angles_and_an_origin_of_the_whole_do_not_matter(self, tmp_path: Path) -> None:
        frame = [1.0] * 3 + [-5.0, 7.0, 9.0] + [0.0] * 3 + [10.0] * 3 + [-5.0, 7.0, 9.0] + [90.0, 5.0, 7.0]
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0), 1 << 14, frame)
        assert xyz(path) == [[100.0, 200.0, 20.0]]
        assert not particles.load(path).notes

    def test_a_part_of_which_nothing_is_known(self, tmp_path: Path) -> None:
        frame = [1.0] * 3 + [0.0] * 6 + [10.0] * 3 + [-350.0, 0.0, 0.0] + [0.0] * 3
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0), 0, frame)
        with pytest.raises(InputError, match="show the whole tomogram in 3dmod and save it again"):
            particles.read(path)

    def test_two_pixel_sizes(self, tmp_path: Path) -> None:
        """Made on the tomogram, last shown on one that is binned by two."""
        frame = [1.0] * 3 + [0.0] * 6 + [20.0] * 3 + [0.0] * 6
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0), 1 << 14, frame)
        with pytest.raises(InputError, match=r"10 Å.*20 Å; say which .*`voxel_size`"):
            particles.read(path)
        assert xyz(path, voxel_size=20.0) == [[200.0, 400.0, 40.0]]

    def test_turned(self, tmp_path: Path) -> None:
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0), 1 << 17)
        with pytest.raises(InputError, match="turned view"):
            particles.read(path)

    def test_contours_and_meshes_are_said(self, tmp_path: Path) -> None:
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0), contour=3)
        assert not particles.load(path).notes  # scattered points
        content = bytearray(path.read_bytes())
        at = content.index(b"OBJT") + 4 + 64 + 64 + 4
        struct.pack_into(">I", content, at, 0)
        surface = content[content.index(b"OBJT") : content.index(b"CONT")]
        struct.pack_into(">i", surface, 4 + 64 + 64, 0)
        mesh = b"MESH" + struct.pack(">iiIhh", 2, 1, 0, 0, 0) + bytes(24) + struct.pack(">i", -1)
        end = content.index(b"IEOF")
        path.write_bytes(bytes(content[:end]) + bytes(surface) + mesh + b"IEOF")
        loaded = particles.load(path)
        assert len(loaded.table) == 3
        assert "closed contours" in loaded.notes[0]
        assert "surface without points" in loaded.notes[1]

    @pytest.mark.parametrize("pixel", [0.0, -10.0, np.nan])
    def test_no_size(self, tmp_path: Path, pixel: float) -> None:
        path = self.model(tmp_path / "t.mod", (10.5, 20.5, 2.0))
        content = bytearray(path.read_bytes())
        struct.pack_into(">f", content, 8 + 128 + 36 + 24 + 20, pixel)
        path.write_bytes(bytes(content))
        with pytest.raises(InputError, match=r"voxel size .* above 0"):
            particles.read(path)


class TestUnits:
    def test_shares_of_the_volume(self, tmp_path: Path) -> None:
        rows = dict(zip(PIXELS, ([0.25], [0.5], [0.75]), strict=True))
        path = write_star(tmp_path / "p.star", **{"": {**rows, "rlnMicrographName": ["TS_1.tomostar"]}})
        context = {"voxel_size": 10.0, "shape": (200, 400, 400)}
        with pytest.raises(InputError, match=r"shares .*or pixels; say which \(`unit=shares`"):
            xyz(path, **context)
        assert xyz(path, **context, unit="shares") == [[1000.0, 2000.0, 1500.0]]
        assert xyz(path, **context, unit="voxels") == [[2.5, 5.0, 7.5]]

    def test_warptools_pixels_of_the_output(self, tmp_path: Path) -> None:
        path = write_star(
            tmp_path / "p.star",
            optics={
                "rlnOpticsGroup": [1],
                "rlnTomoTiltSeriesPixelSize": [2.25],
                "rlnTomoSubtomogramBinning": [1.77778],
                "rlnImagePixelSize": [4.0],
            },
            particles={
                "rlnTomoName": ["TS_1.tomostar"],
                **dict(zip(PIXELS, ([100], [200], [50]), strict=True)),
                "rlnOpticsGroup": [1],
            },
        )
        with pytest.raises(InputError, match=r"2\.25 Å, as RELION does, or .*4 Å.*`from_pixel_size"):
            particles.read(path)
        assert xyz(path, list_pixel=4.0) == [[400.0, 800.0, 200.0]]
        assert xyz(path, list_pixel=2.25) == [[225.0, 450.0, 112.5]]
        path.write_text(path.read_text().replace("TS_1.tomostar", "TS_1"))  # RELION's own
        assert xyz(path) == [[225.0, 450.0, 112.5]]

    def test_the_names_of_pytom(self, tmp_path: Path) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        more = {"rlnLCCmax": [0.25], "rlnDetectorPixelSize": [13.79]}
        for name in ("rlnMicrographName", "rlnTomoName"):
            path = write_star(tmp_path / f"{name}.star", particles={**rows, name: ["TS_1"], **more})
            assert xyz(path) == [[137.9, 275.8, 413.7]]
            assert particles.read(path)["score"].tolist() == [0.25]

    def test_two_sizes_of_one_list(self, tmp_path: Path) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        path = write_star(
            tmp_path / "p.star",
            particles={
                **rows,
                "rlnMicrographName": ["TS_1"],
                "rlnPixelSize": [5],
                "rlnDetectorPixelSize": [10],
            },
        )
        with pytest.raises(InputError, match=r"two pixel sizes, 10 and 5 Å; say which"):
            particles.read(path)
        assert xyz(path, list_pixel=5.0) == [[50.0, 100.0, 150.0]]

    def test_the_list_and_the_tomogram_differ(self, tmp_path: Path) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        path = write_star(
            tmp_path / "p.star", particles={**rows, "rlnMicrographName": ["TS_1"], "rlnPixelSize": [5]}
        )
        with pytest.raises(InputError, match=r"stated pixels of 5 Å or in voxels of 10 Å; say which"):
            particles.read(path, voxel_size=10.0)
        assert xyz(path, voxel_size=10.0, unit="voxels") == [[100.0, 200.0, 300.0]]
        assert xyz(path, voxel_size=5.0) == [[50.0, 100.0, 150.0]]

    @pytest.mark.parametrize("size", ["0", "-10", "nan", "inf"])
    def test_sizes_that_are_none(self, tmp_path: Path, size: str) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        for columns in (
            {"rlnTomoName": ["a"], "rlnTomoTiltSeriesPixelSize": [size]},
            {"rlnMicrographName": ["a"], "rlnPixelSize": [size]},
            {"rlnMicrographName": ["a"], "rlnDetectorPixelSize": [size]},
            {"rlnMicrographName": ["a"], "rlnDetectorPixelSize": [5], "rlnMagnification": [size]},
        ):
            path = write_star(tmp_path / "p.star", particles={**rows, **columns})
            if columns.get("rlnMagnification") == ["inf"]:
                continue
            with pytest.raises(InputError, match=r"p\.star.* is (0|-10|nan|inf|-?\d+)"):
                particles.read(path)
        with pytest.raises(InputError, match="above 0"):
            Context(voxel_size=float(size))
        with pytest.raises(InputError, match="above 0"):
            Context(pixel_size={"a": float(size)})
        tomograms = {"rlnTomoName": ["a"], **{f"rlnTomoSize{a}": [9] for a in "XYZ"}}
        path = write_star(
            tmp_path / "tomograms.star", **{"global": {**tomograms, "rlnTomoTiltSeriesPixelSize": [size]}}
        )
        with pytest.raises(InputError, match=r"tomograms\.star.*not a valid size"):
            read_tomograms(path)

    @pytest.mark.parametrize("size", ["-10", "nan"])
    def test_sizes_that_are_none_in_dynamo(self, tmp_path: Path, size: str) -> None:
        row = ["0"] * 36
        row[19], row[35] = "1", size
        (tmp_path / "p.tbl").write_text(" ".join(row) + "\n")
        with pytest.raises(InputError, match="above 0"):
            particles.read(tmp_path / "p.tbl")

    def test_two_groups_in_a_tomogram(self, tmp_path: Path) -> None:
        """The last one's size was taken for all."""
        rows = dict(zip(PIXELS, ([10, 10], [20, 20], [30, 30]), strict=True))
        path = write_star(
            tmp_path / "p.star",
            optics={"rlnOpticsGroup": [1, 2], "rlnTomoTiltSeriesPixelSize": [2.0, 3.0]},
            particles={**rows, "rlnTomoName": ["a", "a"], "rlnOpticsGroup": [1, 2]},
        )
        with pytest.raises(InputError, match="'a' is 2 and 3"):
            particles.read(path)
        path.write_text(path.read_text().replace("a 2\n", "a 7\n"))
        with pytest.raises(InputError, match="optics group 7"):
            particles.read(path)


class TestTextsOfTwoPrograms:
    def test_four_columns(self, tmp_path: Path) -> None:
        (tmp_path / "points.txt").write_text("1 100.50 50.50 20.00\n2 210.50 70.50 40.00\n")
        with pytest.raises(InputError, match=r"imod-text .*contour x y z.*deepfinder-text .*label z y x"):
            particles.read(tmp_path / "points.txt", voxel_size=10.0)
        read = particles.read(tmp_path / "points.txt", "imod-text", voxel_size=10.0)
        assert read[XYZ].to_numpy().tolist() == [[1000.0, 500.0, 200.0], [2100.0, 700.0, 400.0]]
        read = particles.read(tmp_path / "points.txt", "deepfinder-text", voxel_size=10.0)
        assert read[XYZ].to_numpy().tolist() == [[200.0, 505.0, 1005.0], [400.0, 705.0, 2105.0]]

    def test_labels_that_go_down_are_no_contours(self, tmp_path: Path) -> None:
        (tmp_path / "points.txt").write_text("2 30.5 20 10\n1 3 2 1\n")
        assert particles.load(tmp_path / "points.txt", context=Context(voxel_size=1.0)).format.name == (
            "deepfinder-text"
        )


NUMBERS = ["00255", "10.10", "1e5", "1E5", "007", "0x10", "1_0", "12.", "True", "inf"]


class TestNamesThatLookLikeNumbers:
    @pytest.mark.parametrize("name", NUMBERS)
    def test_in_star(self, tmp_path: Path, name: str) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        for column in ("rlnTomoName", "rlnMicrographName"):
            path = write_star(tmp_path / "p.star", particles={**rows, column: [name], "rlnImageName": [name]})
            table = particles.read(path, context=Context(pixel_size=1.0, voxel_size=1.0))
            assert table["tomogram"].tolist() == [name]
            assert table["rlnImageName"].tolist() == [name]

    @pytest.mark.parametrize("name", NUMBERS)
    def test_in_tomograms_star(self, tmp_path: Path, name: str) -> None:
        columns = {
            "rlnTomoName": [name],
            **{f"rlnTomoSize{a}": [100] for a in "XYZ"},
            "rlnTomoTiltSeriesPixelSize": [2.5],
            "rlnTomoTomogramBinning": [4],
            "rlnTomoReconstructedTomogram": ["t.mrc"],
        }
        path = write_star(tmp_path / "tomograms.star", **{"global": columns})
        assert read_tomograms(path)["voxel_size"] == {name: 10.0}
        (found,), wrong = expand([str(path)], Selection(voxel_size=10.0))
        assert found.name == name
        assert not wrong
        # one tomogram as pairs of keys and values
        pairs = "".join(f"_{key} {values[0]}\n" for key, values in columns.items())
        path.write_text(f"data_global\n\n{pairs}")
        assert read_tomograms(path)["voxel_size"] == {name: 10.0}
        (found,), wrong = expand([str(path)], Selection(voxel_size=10.0))
        assert found.name == name

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize(
        "format",
        [
            *(
                "csv",
                "relion5",
                "relion4",
                "relion3",
                "dynamo",
                "imod",
                "copick",
                "portal",
                "eman2",
                "napari",
            ),
            *("czii", "deepfinder", "cbox", "coords"),
        ],
    )
    def test_there_and_back(self, tmp_path: Path, format: str, name: str) -> None:
        class_name = "particle" if name == "1_0" else name  # copick has no room for it
        table = particles.make(
            tomogram=name,
            class_name=class_name,
            x=[80.0],
            y=[160.0],
            z=[240.0],
            whose_name=[name],
            tag=[name],
        )
        context = Context(voxel_size=8.0, shape=(99, 99, 99), pixel_size=2.0)
        path = tmp_path / {"csv": "p.csv", "dynamo": "p.tbl", "napari": "p.csv", "czii": "p.csv"}.get(
            format, "out"
        )
        if format.startswith("relion"):
            path = tmp_path / "p.star"
        if format == "deepfinder":
            path = tmp_path / "p.xml"
        particles.save(table, path, format, context)
        read = particles.read(path, format, context=context)
        assert read["tomogram"].tolist() == [name]
        if format not in ("dynamo", "coords"):
            assert read["class_name"].tolist() == [class_name]
        if "whose_name" in read:
            assert read["whose_name"].tolist() == [name]
            assert str(read["tag"][0]) == name or name in ("10.10", "12.", "inf")

    def test_numbers_stay_numbers(self, tmp_path: Path) -> None:
        path = write_star(
            tmp_path / "p.star", a={"n": ["-0.5", "1e-05", "3"], "w": ["1", "2", "-3"], "t": ["07", "8", "9"]}
        )
        frame = star.read_blocks(path)["a"]
        assert frame["n"].tolist() == [-0.5, 1e-5, 3.0]
        assert frame["w"].dtype == np.int64
        assert frame["t"].tolist() == ["07", "8", "9"]


class TestWhatStandsBeside:
    def test_blocks_stay(self, tmp_path: Path) -> None:
        path = write_star(
            tmp_path / "p.star",
            optics={
                "rlnOpticsGroup": [1],
                "rlnTomoTiltSeriesPixelSize": [2.0],
                "rlnMtfFileName": ["mtf.star"],
                "rlnBeamTiltX": [0.5],
            },
            particles={
                "rlnTomoName": ["a"],
                **dict(zip(PIXELS, ([10], [20], [30]), strict=True)),
                "rlnOpticsGroup": [1],
            },
            extra={"myColumn": [1, 2]},
        )
        path.write_text("data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n" + path.read_text())
        table = particles.read(path)
        context = Context(voxel_size=8.0, shape=(9, 9, 9), pixel_size=2.0)
        for name in ("relion5", "relion4", "relion3"):
            saved = particles.save(table, tmp_path / f"{name}.star", name, context)
            assert saved.lost == ()
            written = starfile.read(tmp_path / f"{name}.star")
            assert written["general"]["rlnTomoSubTomosAre2DStacks"] == 1
            assert written["extra"]["myColumn"].tolist() == [1, 2]
            assert written["optics"]["rlnMtfFileName"].tolist() == ["mtf.star"]
            assert written["optics"]["rlnBeamTiltX"].tolist() == [0.5]
            assert "rlnMtfFileName" not in written["particles"]
        assert particles.save(table, tmp_path / "p.csv").lost == ("data_general", "data_extra")

    def test_priors_of_angles_that_are_made_one(self, tmp_path: Path) -> None:
        columns: dict[str, list[Any]] = {
            "rlnTomoName": ["a"],
            **{f"rlnCenteredCoordinate{a}Angst": [0] for a in "XYZ"},
            "rlnTomoSubtomogramRot": [10],
            "rlnTomoSubtomogramTilt": [80],
            "rlnTomoSubtomogramPsi": [30],
            "rlnAngleRot": [5],
            "rlnAngleTilt": [91],
            "rlnAnglePsi": [2],
            "rlnAngleTiltPrior": [90],
            "rlnAnglePsiPrior": [0],
            "rlnImageName": ["a.mrcs"],
        }
        path = write_star(tmp_path / "p.star", particles=columns)
        context = Context(voxel_size=8.0, shape=(9, 9, 9))
        loaded = particles.load(path, context=context)
        assert not {"rlnAngleTiltPrior", "rlnAnglePsiPrior"} & set(loaded.table)
        assert "rlnAngleTiltPrior, rlnAnglePsiPrior left out" in loaded.notes[0]
        assert "extract the particles again" in loaded.notes[1]
        sub, own = (
            Rotation.from_euler("ZYZ", angles, degrees=True).inv() for angles in ([10, 80, 30], [5, 91, 2])
        )
        turned = Rotation.from_quat(loaded.table[Q].to_numpy()[0])
        assert (turned.inv() * (sub * own)).magnitude() < 1e-9
        # without a second rotation they hold
        for name in ("Rot", "Tilt", "Psi"):
            columns[f"rlnTomoSubtomogram{name}"] = [0]
        loaded = particles.load(write_star(tmp_path / "q.star", particles=columns), context=context)
        assert loaded.table["rlnAngleTiltPrior"].tolist() == [90]
        assert not loaded.notes

    def test_priors_of_shifts_that_are_applied(self, tmp_path: Path) -> None:
        columns = {
            "rlnTomoName": ["a"],
            **{f"rlnCenteredCoordinate{a}Angst": [0] for a in "XYZ"},
            "rlnOriginXAngst": [3],
            "rlnOriginXPriorAngst": [3],
        }
        context = Context(voxel_size=8.0, shape=(10, 10, 10))
        loaded = particles.load(write_star(tmp_path / "p.star", particles=columns), context=context)
        assert loaded.table[XYZ].to_numpy().tolist() == [[37.0, 40.0, 40.0]]  # y and z have no shift
        assert "rlnOriginXPriorAngst" not in loaded.table
        assert "the shifts are applied" in loaded.notes[0]

    def test_columns_of_the_names_of_ours(self, tmp_path: Path) -> None:
        rows = dict(zip(PIXELS, ([10], [20], [30]), strict=True))
        path = write_star(
            tmp_path / "p.star", particles={**rows, "rlnTomoName": ["a"], "x": [7], "score": [9]}
        )
        table = particles.read(path, context=Context(pixel_size=1.0))
        assert table["x"].tolist() == [10.0]
        assert table["star_x"].tolist() == [7]
