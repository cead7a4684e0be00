"""Files that we write are read by the field's own readers, and theirs by ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dynamotable
import emfile
import eulerangles
import imodmodel
import numpy as np
import pandas as pd
import pytest
import starfile
from imodmodel import ImodModel
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.particle_formats.base import Context
from catalogs.schema import ClassInfo

RNG = np.random.default_rng(5)
Q = ["qx", "qy", "qz", "qw"]
CLASSES = (ClassInfo(name="ribosome", label=1, radius=110.0), ClassInfo(name="fas", label=2, radius=120.0))
CONTEXT = Context(
    voxel_size=8.0, shape=(128, 200, 256), pixel_size=2.0, classes=CLASSES, tomograms={1: "TS_1", 2: "TS_2"}
)


@pytest.fixture
def table() -> pd.DataFrame:
    n = 12
    turned = Rotation.random(n, rng=RNG).as_quat()
    return particles.make(
        tomogram=np.repeat(["TS_1", "TS_2"], n // 2),
        class_name=["ribosome", "fas"] * (n // 2),
        label=[1, 2] * (n // 2),
        x=RNG.uniform(0, 2000, n),
        y=RNG.uniform(0, 1500, n),
        z=RNG.uniform(0, 1000, n),
        score=RNG.uniform(0, 1, n),
        **dict(zip(Q, turned.T, strict=True)),
    )


def of_one(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one tomogram and class."""
    chosen = (table["tomogram"] == "TS_1") & (table["label"] == 1)
    return table[chosen].reset_index(drop=True)


def matrices(table: pd.DataFrame) -> Any:
    return Rotation.from_quat(table[Q].to_numpy()).as_matrix()


class TestStarfile:
    @pytest.mark.parametrize(
        ("name", "columns", "step", "first"),
        [
            ("relion4", [f"rlnCoordinate{a}" for a in "XYZ"], 2.0, 0),
            ("relion3", [f"rlnCoordinate{a}" for a in "XYZ"], 8.0, 0),
        ],
    )
    def test_pixels(
        self, tmp_path: Path, table: pd.DataFrame, name: str, columns: list[str], step: float, first: int
    ) -> None:
        particles.save(table, tmp_path / "p.star", name, CONTEXT)
        stars = starfile.read(tmp_path / "p.star")["particles"]
        np.testing.assert_allclose((stars[columns] - first) * step, table[["x", "y", "z"]], atol=1e-6)
        assert stars["rlnAutopickFigureOfMerit"].tolist() == pytest.approx(table["score"].tolist())

    def test_warp_finds_the_tilt_series(self, tmp_path: Path, table: pd.DataFrame) -> None:
        particles.save(table, tmp_path / "p.star", "relion3", CONTEXT)
        stars = starfile.read(tmp_path / "p.star")["particles"]
        assert set(stars["rlnMicrographName"]) == {"TS_1.tomostar", "TS_2.tomostar"}
        assert not {"rlnTomoName", "rlnCenteredCoordinateXAngst"} & set(stars)

    def test_stopgap(self, tmp_path: Path, table: pd.DataFrame) -> None:
        particles.save(table, tmp_path / "p.star", "stopgap", CONTEXT)
        stars = starfile.read(tmp_path / "p.star")
        for axis in "xyz":
            assert stars[f"orig_{axis}"].dtype.kind == "i"  # where STOPGAP cuts
            assert stars[f"{axis}_shift"].abs().max() <= 0.5
            total = stars[f"orig_{axis}"] + stars[f"{axis}_shift"] - 1
            np.testing.assert_allclose(total * 8.0, table[axis], atol=1e-3)
        lines = (tmp_path / "p.star").read_text().splitlines()
        assert "#" not in "".join(lines)  # its reader takes the names as they stand
        assert lines[lines.index("_class") + 1] == ""  # and skips one line before the particles

    def test_a_file_of_starfile(self, tmp_path: Path) -> None:
        """RELION 4, as its documentation shows it: the pixel size stands in the optics."""
        optics = pd.DataFrame(
            {
                "rlnOpticsGroup": [1, 2],
                "rlnOpticsGroupName": ["a", "b"],
                "rlnTomoTiltSeriesPixelSize": [1.5, 3.0],
            }
        )
        stars = pd.DataFrame(
            {
                "rlnTomoName": ["TS_1", "TS_2"],
                "rlnCoordinateX": [100.0, 100.0],
                "rlnCoordinateY": [10.25, 20.0],
                "rlnCoordinateZ": [0.0, 1.0],
                "rlnOpticsGroup": [1, 2],
                "rlnMicrographName": ["a.mrc", "b.mrc"],
            }
        )
        starfile.write({"optics": optics, "particles": stars}, tmp_path / "p.star")
        loaded = particles.load(tmp_path / "p.star")
        assert loaded.format.name == "relion4"
        assert loaded.table["x"].tolist() == [150.0, 300.0]
        assert loaded.table["y"].tolist() == [15.375, 60.0]
        # and back with its optics, though the particles of a run do not know them
        particles.save(
            loaded.table, tmp_path / "q.star", "relion4", Context(pixel_size={"TS_1": 1.5, "TS_2": 3.0})
        )
        again = starfile.read(tmp_path / "q.star")
        assert again["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [1.5, 3.0]
        assert again["particles"]["rlnCoordinateX"].tolist() == [100.0, 100.0]
        assert again["particles"]["rlnOpticsGroup"].tolist() == [1, 2]
        assert again["particles"]["rlnMicrographName"].tolist() == ["a.mrc", "b.mrc"]


class TestEulerangles:
    def test_its_vector(self, tmp_path: Path) -> None:
        """Dynamo (-47.2730, 1.1777, -132.3000) is RELION (137.7000, 1.1777, 42.7270)."""
        row = [0.0] * 35
        row[6:9] = [-47.2730, 1.1777, -132.3000]
        row[19], row[23:26], row[35 - 1] = 1, [5, 6, 7], 0
        (tmp_path / "p.tbl").write_text(" ".join(map(str, row)) + "\n")
        table = particles.read(tmp_path / "p.tbl", voxel_size=8.0)
        particles.save(table, tmp_path / "p.star", "relion5", CONTEXT)
        stars = starfile.read(tmp_path / "p.star")["particles"]
        angles = stars[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()[0]
        np.testing.assert_allclose(angles, [137.7000, 1.1777, 42.7270], atol=1e-4)
        assert table[["x", "y", "z"]].to_numpy().tolist() == [[32.0, 40.0, 48.0]]

    @pytest.mark.parametrize(
        ("name", "convention", "columns"),
        [
            ("relion5", "relion", ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]),
            ("dynamo", "dynamo", ["tdrot", "tilt", "narot"]),
        ],
    )
    def test_matrices(
        self, tmp_path: Path, table: pd.DataFrame, name: str, convention: str, columns: list[str]
    ) -> None:
        """The package's matrices turn the reference to the particle: active, particle -> tomogram."""
        suffix = ".star" if name == "relion5" else ".tbl"
        particles.save(table, tmp_path / f"p{suffix}", name, CONTEXT)
        if name == "relion5":
            read = starfile.read(tmp_path / "p.star")["particles"]
        else:
            read = dynamotable.read(tmp_path / "p.tbl")
        theirs = eulerangles.euler2matrix(
            read[columns].to_numpy(), axes=AXES[convention], **KINDS[convention]
        )
        np.testing.assert_allclose(theirs.transpose(0, 2, 1), matrices(table), atol=1e-6)


# The two programs' angles in eulerangles' words; its matrices turn the tomogram to the particle.
AXES = {"relion": "zyz", "dynamo": "zxz"}
KINDS: dict[str, dict[str, bool]] = {
    "relion": {"intrinsic": True, "right_handed_rotation": True},
    "dynamo": {"intrinsic": False, "right_handed_rotation": True},
}


class TestDynamotable:
    def test_reads_ours(self, tmp_path: Path, table: pd.DataFrame) -> None:
        particles.save(table, tmp_path / "p.tbl", context=Context(voxel_size=8.0))
        read = dynamotable.read(str(tmp_path / "p.tbl"))
        np.testing.assert_allclose((read[["x", "y", "z"]] - 1) * 8.0, table[["x", "y", "z"]], atol=1e-3)
        assert read["cc"].tolist() == pytest.approx(table["score"].tolist(), rel=1e-6)
        assert read["tomo"].tolist() == [1] * 6 + [2] * 6
        assert read["class"].tolist() == table["label"].tolist()
        assert set(read["apix"]) == {8.0}

    def test_theirs(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {
                "x": [10.0, 20.0],
                "y": [1.0, 1.0],
                "z": [1.0, 1.0],
                "dx": [0.5, 0.0],
                "cc": [0.25, 0.5],
                "tdrot": [10.0, 0.0],
                "tomo_file": ["/data/TS_9.rec", "/data/TS_8.rec"],
                "ymintilt": [-60.0, -60.0],
            }
        )
        dynamotable.write(frame, str(tmp_path / "p.tbl"))
        loaded = particles.load(tmp_path / "p.tbl", context=Context(voxel_size=2.0))
        assert loaded.format.name == "dynamo"
        assert loaded.table["x"].tolist() == [(10.5 - 1) * 2, (20 - 1) * 2]
        assert loaded.table["tomogram"].tolist() == ["TS_9", "TS_8"]  # by the .doc beside
        assert loaded.table["dynamo14"].tolist() == [-60.0, -60.0]
        assert loaded.table["class_name"].tolist() == ["particle"] * 2  # all classes are 0: none


class TestEmfile:
    def test_reads_ours(self, tmp_path: Path, table: pd.DataFrame) -> None:
        particles.save(table, tmp_path / "p.em", context=CONTEXT)
        _, data = emfile.read(tmp_path / "p.em")
        rows = data.squeeze()
        assert rows.shape == (12, 20)
        np.testing.assert_allclose(
            (rows[:, 7:10] + rows[:, 10:13] - 1) * 8.0, table[["x", "y", "z"]], atol=1e-3
        )
        np.testing.assert_allclose(rows[:, 0], table["score"], rtol=1e-6)
        assert rows[:, 19].tolist() == table["label"].tolist()
        phi, psi, theta = rows[:, 16:19].T
        turned = Rotation.from_euler("zxz", np.stack([phi, theta, psi], axis=1), degrees=True)
        np.testing.assert_allclose(turned.as_matrix(), matrices(table), atol=1e-5)

    def test_theirs(self, tmp_path: Path) -> None:
        rows = np.zeros((1, 2, 20), np.float32)
        rows[0, :, 0] = [0.5, 0.75]
        rows[0, :, 3] = [101, 102]  # particle numbers, which copick takes for scores
        rows[0, :, 4] = 7
        rows[0, :, 5] = [1, 2]  # objects, which it takes for classes
        rows[0, :, 7:10] = [[11, 21, 31], [12, 22, 32]]
        rows[0, :, 19] = [2, 3]
        emfile.write(tmp_path / "motl.em", rows)
        loaded = particles.load(tmp_path / "motl.em", context=Context(voxel_size=10.0))
        assert loaded.format.name == "em"
        assert loaded.table[["x", "y", "z"]].to_numpy().tolist() == [[100, 200, 300], [110, 210, 310]]
        assert loaded.table["score"].tolist() == [0.5, 0.75]
        assert loaded.table["label"].tolist() == [2, 3]
        assert set(loaded.table["tomogram"]) == {"7"}
        assert loaded.table["em6"].tolist() == [1, 2]


class TestImodmodel:
    def test_reads_ours(self, tmp_path: Path, table: pd.DataFrame) -> None:
        one = table[table["tomogram"] == "TS_1"].reset_index(drop=True)
        particles.save(one, tmp_path / "p.mod", context=CONTEXT)
        model = ImodModel.from_file(tmp_path / "p.mod")
        assert [str(item.header.name) for item in model.objects] == ["ribosome", "fas"]
        assert (model.header.xmax, model.header.ymax, model.header.zmax) == (256, 200, 128)
        assert (model.header.pixelsize, model.header.units) == (8.0, -10)
        for item, label in zip(model.objects, (1, 2), strict=True):
            rows = one[one["label"] == label]
            index = np.array(item.contours[0].points) - [0.5, 0.5, 0.0]
            np.testing.assert_allclose(index * 8.0, rows[["x", "y", "z"]], atol=1e-3)
            stored = item.contours[0].extra
            assert [value.type for value in stored] == [10] * len(rows)  # IMOD's general values of points
            assert [value.index for value in stored] == list(range(len(rows)))
            assert [value.value for value in stored] == pytest.approx(rows["score"].tolist(), rel=1e-6)

    def test_theirs(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {
                "object_id": [0, 0, 1],
                "contour_id": [0, 1, 0],
                "x": [10.5, 20.5, 30.5],
                "y": [1.5, 2.5, 3.5],
                "z": [4.0, 5.0, 6.0],
            }
        )
        imodmodel.write(frame, tmp_path / "TS_5.mod")
        loaded = particles.load(tmp_path / "TS_5.mod", context=Context(voxel_size=4.0))
        assert loaded.format.name == "imod"
        assert loaded.table[["x", "y", "z"]].to_numpy().tolist() == [[40, 4, 16], [80, 8, 20], [120, 12, 24]]
        assert set(loaded.table["tomogram"]) == {"TS_5"}
        assert loaded.table["label"].tolist() == [1, 1, 2]


class TestCopick:
    def test_reads_ours(self, tmp_path: Path, table: pd.DataFrame) -> None:
        models = pytest.importorskip("copick.models")
        particles.save(table, tmp_path, "copick", CONTEXT)
        file = tmp_path / "ExperimentRuns" / "TS_1" / "Picks" / "tlpick_0_ribosome.json"
        picks = models.CopickPicksFile.model_validate_json(file.read_text())
        one = of_one(table)
        assert (picks.pickable_object_name, picks.user_id, picks.session_id) == ("ribosome", "tlpick", "0")
        assert (picks.run_name, picks.voxel_spacing, picks.trust_orientation) == ("TS_1", 8.0, True)
        for point, xyz, matrix, score in zip(
            picks.points, one[["x", "y", "z"]].to_numpy(), matrices(one), one["score"], strict=True
        ):
            np.testing.assert_allclose([point.location.x, point.location.y, point.location.z], xyz)
            np.testing.assert_allclose(point.transformation[:3, :3], matrix, atol=1e-12)
            assert point.score == score

    def test_a_project_opens_them(self, tmp_path: Path, table: pd.DataFrame) -> None:
        """copick finds the picks of every run, where it looks for them."""
        copick = pytest.importorskip("copick")
        particles.save(table, tmp_path / "project", "copick", CONTEXT)
        config = {
            "config_type": "filesystem",
            "name": "test",
            "description": "",
            "version": "1.0.0",
            "pickable_objects": [
                {"name": info.name, "is_particle": True, "label": info.label, "radius": info.radius}
                for info in CLASSES
            ],
            "overlay_root": f"local://{tmp_path / 'project'}",
            "overlay_fs_args": {"auto_mkdir": True},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        root = copick.from_file(str(tmp_path / "config.json"))
        assert sorted(run.name for run in root.runs) == ["TS_1", "TS_2"]
        (picks,) = root.get_run("TS_1").get_picks("ribosome")
        points, transforms = picks.numpy()
        one = of_one(table)
        np.testing.assert_allclose(points, one[["x", "y", "z"]])
        np.testing.assert_allclose(transforms[:, :3, :3], matrices(one), atol=1e-12)

    def test_theirs(self, tmp_path: Path) -> None:
        models = pytest.importorskip("copick.models")
        turned = np.eye(4)
        turned[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
        turned[:3, 3] = [1.0, 2.0, 3.0]  # a shift in Å, added to the location
        picks = models.CopickPicksFile(
            pickable_object_name="fas",
            user_id="me",
            session_id="1",
            run_name="TS_7",
            points=[
                models.CopickPoint(location={"x": 10, "y": 20, "z": 30}, transformation_=turned.tolist()),
                models.CopickPoint(location={"x": 1, "y": 2, "z": 3}, score=0.25, instance_id=9),
            ],
        )
        (tmp_path / "p.json").write_text(picks.model_dump_json())
        loaded = particles.load(tmp_path / "p.json")
        assert loaded.format.name == "copick"
        assert loaded.table[["x", "y", "z"]].to_numpy().tolist() == [[11, 22, 33], [1, 2, 3]]
        assert loaded.table["instance"].tolist() == [0, 9]
        assert loaded.table["score"].tolist() == [1.0, 0.25]
        np.testing.assert_allclose(matrices(loaded.table)[0], turned[:3, :3], atol=1e-12)


class TestNapari:
    def test_reads_ours(self, tmp_path: Path, table: pd.DataFrame) -> None:
        reader = pytest.importorskip("napari_builtins.io._read", reason="napari is not installed")
        particles.save(table, tmp_path / "p.csv", "napari", CONTEXT)
        (layer,) = reader._csv_reader(str(tmp_path / "p.csv"))
        points, meta, kind = layer
        assert kind == "points"
        np.testing.assert_allclose(points[:, ::-1] * 8.0, table[["x", "y", "z"]], atol=1e-6)
        np.testing.assert_allclose(meta["properties"]["score"], table["score"])
        assert list(meta["properties"]["class_name"]) == list(table["class_name"])

    def test_theirs(self, tmp_path: Path) -> None:
        """As napari saves a layer of two points with one feature."""
        (tmp_path / "TS_1.csv").write_text(
            "index,axis-0,axis-1,axis-2,score\n0.0,5.0,6.0,7.0,0.5\n1.0,1.0,2.0,3.0,1.0\n"
        )
        loaded = particles.load(tmp_path / "TS_1.csv", context=Context(voxel_size=10.0))
        assert loaded.format.name == "napari"
        assert loaded.table[["x", "y", "z"]].to_numpy().tolist() == [[70, 60, 50], [30, 20, 10]]
        assert loaded.table["score"].tolist() == [0.5, 1.0]
        assert set(loaded.table["tomogram"]) == {"TS_1"}


class TestPickled:
    def test_pandas_reads_ours_and_ours_theirs(self, tmp_path: Path, table: pd.DataFrame) -> None:
        """TomoTwin reads and writes its tables with pandas."""
        one = table[table["tomogram"] == "TS_1"].reset_index(drop=True)
        particles.save(one, tmp_path / "p.tloc", context=CONTEXT)
        frame = pd.read_pickle(tmp_path / "p.tloc")
        assert frame.attrs["references"] == ["ribosome", "fas"]
        np.testing.assert_allclose(frame[["X", "Y", "Z"]] * 8.0, one[["x", "y", "z"]])
        assert frame["width"].tolist() == [28, 30] * 3  # voxels of the diameter
        frame = frame.drop(columns="size")
        frame.attrs["references"] = ["/refs/1BXN.mrc", "/refs/4cr2.mrc"]
        frame.to_pickle(tmp_path / "located.tloc")
        loaded = particles.load(tmp_path / "located.tloc", context=CONTEXT)
        assert loaded.table["class_name"].tolist() == ["1BXN", "4cr2"] * 3
        np.testing.assert_allclose(loaded.table["score"], one["score"])
