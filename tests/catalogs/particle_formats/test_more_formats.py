"""Lists of M, PyTom, PEET, DeepFinder's Excel, EMAN2's boxes and texts of four columns."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from openpyxl import Workbook, load_workbook
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from tlpick.network.tomograms.inputs import Selection, expand

XYZ = ["x", "y", "z"]
Q = ["qx", "qy", "qz", "qw"]
CONTEXT = Context(voxel_size=10.0)


def matrix(table: pd.DataFrame) -> np.ndarray:
    return Rotation.from_quat(table[Q].to_numpy()).as_matrix()[0]


def tom(phi: float, theta: float, psi: float) -> np.ndarray:
    """R = Rz(psi) Rx(theta) Rz(phi)."""
    turns = (("z", psi), ("x", theta), ("z", phi))
    a, b, c = (Rotation.from_euler(axis, angle, degrees=True).as_matrix() for axis, angle in turns)
    return np.asarray(a @ b @ c)


def test_m(tmp_path: Path) -> None:
    (tmp_path / "particles.star").write_text(
        "data_particles\n\nloop_\n_wrpCoordinateX1 #1\n_wrpCoordinateY1 #2\n_wrpCoordinateZ1 #3\n"
        "_wrpAngleRot1 #4\n"
        "_wrpAngleTilt1 #5\n_wrpAnglePsi1 #6\n_wrpCoordinateX2 #7\n_wrpRandomSubset #8\n_wrpSourceName #9\n"
        "_wrpSourceHash #10\n100.5 200 300 10 50 80 101 1 0025.tomostar 00123\n"
    )
    loaded = particles.load(tmp_path / "particles.star")
    assert loaded.format.name == "m"
    assert loaded.table[XYZ].to_numpy().tolist() == [[100.5, 200.0, 300.0]]
    assert loaded.table["tomogram"].tolist() == ["0025"]
    assert loaded.table["wrpSourceHash"].tolist() == ["00123"]
    assert loaded.table["wrpRandomSubset"].tolist() == [1]
    assert "2 positions a particle" in loaded.notes[0]
    relion = Rotation.from_euler("ZYZ", [10, 50, 80], degrees=True).inv().as_matrix()
    np.testing.assert_allclose(matrix(loaded.table), relion, atol=1e-9)
    particles.save(loaded.table, tmp_path / "again.star", "m")
    words = (tmp_path / "again.star").read_text().split()
    assert {"100.5", "0025.tomostar", "00123"} <= set(words)


def test_pytom(tmp_path: Path) -> None:
    (tmp_path / "l.xml").write_text(
        '<ParticleList Path="/"><Particle Filename="p_1.em">'
        '<Rotation Z1="11" Z2="-83" X="47" Paradigm="ZXZ"/>'
        '<Shift X="1" Y="0" Z="-2.5"/><PickPosition Origin="/data/TS_03.mrc" X="10" Y="20" Z="30"/>'
        '<Score Type="FLCFScore" Value="0.25"/><Class Name="ribosome"/></Particle></ParticleList>\n'
    )
    loaded = particles.load(tmp_path / "l.xml", context=CONTEXT)
    assert loaded.format.name == "pytom"
    assert loaded.table[XYZ].to_numpy().tolist() == [[110.0, 200.0, 275.0]]
    assert loaded.table[["tomogram", "class_name", "score"]].to_numpy().tolist() == [
        ["TS_03", "ribosome", 0.25]
    ]
    np.testing.assert_allclose(matrix(loaded.table), tom(11, 47, -83), atol=1e-9)
    (tmp_path / "l.xml").write_text('<ParticleList><Particle Filename="p_1.em"/></ParticleList>\n')
    with pytest.raises(InputError, match="no PickPosition"):
        particles.read(tmp_path / "l.xml", context=CONTEXT)


class TestPeet:
    HEAD = (
        "CCC,reserved,reserved,pIndex,wedgeWT,NA,NA,NA,NA,NA,xOffset,yOffset,zOffset,NA,NA,reserved,"
        "phi,psi,theta,reserved\n"
    )

    def test_points_of_a_model(self, tmp_path: Path) -> None:
        points = particles.make(tomogram="TS_1", x=[100.0, 500.0], y=[200.0, 600.0], z=[300.0, 700.0])
        particles.save(points, tmp_path / "TS_1.mod", "imod", CONTEXT)
        row = "0.5,0,0,2,1,0,0,0,0,0,1,-2,0.5,0,0,0,11,-83,47,3\n"
        path = tmp_path / "TS_1_MOTL.csv"
        path.write_text(self.HEAD + row)
        loaded = particles.load(path)  # the model says the voxel size
        assert loaded.format.name == "peet"
        assert loaded.table[XYZ].to_numpy().tolist() == [[510.0, 580.0, 705.0]]
        assert loaded.table[["tomogram", "label", "score"]].to_numpy().tolist() == [["TS_1", 3, 0.5]]
        np.testing.assert_allclose(matrix(loaded.table), tom(11, 47, -83), atol=1e-9)
        path.write_text(self.HEAD + row.replace(",2,1,", ",3,1,"))
        with pytest.raises(InputError, match=r"points up to 3, and .* has 2"):
            particles.read(path)

    def test_without_its_model(self, tmp_path: Path) -> None:
        (tmp_path / "TS_1_MOTL.csv").write_text(self.HEAD)
        with pytest.raises(InputError, match=r"no positions.*lay it beside as TS_1\.mod"):
            particles.read(tmp_path / "TS_1_MOTL.csv", context=CONTEXT)


class TestExcel:
    def test_theirs(self, tmp_path: Path) -> None:
        """Its writer leaves cells empty that it knows nothing for."""
        book = Workbook()
        sheet = book.active
        sheet.append(
            ["Tomo IDX", "Object ID", "Class label", "x", "y", "z", "psi", "phi", "theta", "Cluster size"]
        )
        sheet.append([None, None, 2, 10, 20.5, 30, None, None, None, None])
        sheet.append([None, 7, 1, 1, 2, 3, -83.0, 11.0, 47.0, 512])
        book.save(tmp_path / "TS_1.xlsx")
        loaded = particles.load(tmp_path / "TS_1.xlsx", context=CONTEXT)
        assert loaded.format.name == "deepfinder-excel"
        assert loaded.table[XYZ].to_numpy().tolist() == [[100.0, 205.0, 300.0], [10.0, 20.0, 30.0]]
        assert loaded.table["label"].tolist() == [2, 1]
        assert loaded.table["size"].tolist()[1] == 512
        assert set(loaded.table["tomogram"]) == {"TS_1"}
        np.testing.assert_allclose(matrix(loaded.table.iloc[[1]]), tom(11, 47, -83), atol=1e-9)

    def test_ours(self, tmp_path: Path) -> None:
        table = particles.make(tomogram="TS_3", label=[2], x=[100.0], y=[200.0], z=[300.0], size=[9.0])
        particles.save(table, tmp_path / "p.xlsx", context=CONTEXT)
        before = (tmp_path / "p.xlsx").read_bytes()
        time.sleep(2.1)  # longer than the step of a zip file's clock
        particles.save(table, tmp_path / "p.xlsx", context=CONTEXT)
        assert (tmp_path / "p.xlsx").read_bytes() == before
        sheet = load_workbook(tmp_path / "p.xlsx").worksheets[0]
        assert [cell.value for cell in sheet[2]] == [3, None, 2, 10, 20, 30, None, None, None, 9]


class TestColumns:
    def test_four(self, tmp_path: Path) -> None:
        path = tmp_path / "t.coords"
        path.write_text("10 20 30 0.5\n11 21 31 0.75\n")
        loaded = particles.load(path, context=CONTEXT)
        assert loaded.format.name == "coords-score"
        assert loaded.table[XYZ].to_numpy().tolist() == [[100, 200, 300], [110, 210, 310]]
        assert loaded.table["score"].tolist() == [0.5, 0.75]
        path.write_text("1 20 30 40\n1 21 31 41\n2 22 32 42\n2 5 6 7\n")
        loaded = particles.load(path, context=CONTEXT)
        assert loaded.format.name == "deepetpicker"
        assert loaded.table[XYZ].to_numpy().tolist()[0] == [200, 300, 400]
        assert loaded.table["label"].tolist() == [1, 1, 2, 2]
        path.write_text("1 20 30 40\n")
        with pytest.raises(InputError, match=r"class x y z .*score.*`format=deepetpicker or coords-score`"):
            particles.read(path, context=CONTEXT)

    def test_box(self, tmp_path: Path) -> None:
        (tmp_path / "t.box").write_text("10\t20\t30\n")
        loaded = particles.load(tmp_path / "t.box", context=CONTEXT)
        assert loaded.format.name == "box"
        assert loaded.table[XYZ].to_numpy().tolist() == [[100, 200, 300]]
        (tmp_path / "t.box").write_text("10\t20\t64\t64\n")
        with pytest.raises(InputError, match="boxes of a micrograph"):
            particles.read(tmp_path / "t.box", "box", context=CONTEXT)


def test_copick_configurations(tmp_path: Path) -> None:
    """A root relative to the configuration, and one of the Data Portal without tomograms here."""
    folder = tmp_path / "project" / "overlay" / "ExperimentRuns" / "TS_1" / "VoxelSpacing10.000" / "wbp.zarr"
    folder.mkdir(parents=True)
    config = tmp_path / "project" / "config.json"
    config.write_text('{"config_type": "filesystem", "overlay_root": "local://overlay"}')
    (found,), wrong = expand([str(config)], Selection(voxel_size=10.0))
    assert (found.name, wrong) == ("TS_1", [])
    config.write_text(
        '{"config_type": "cryoet_data_portal", "overlay_root": "local://none", "dataset_ids": [1]}'
    )
    found_none, wrong = expand([str(config)], Selection(voxel_size=10.0))
    assert not found_none
    assert "of the CryoET Data Portal" in str(wrong[0][1])
