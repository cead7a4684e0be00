"""The conventions that the field's converters get wrong, one by one, against numbers worked out by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from scipy.spatial.transform import Rotation

from catalogs import particles
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.eulers import from_eulers
from catalogs.particle_formats.relion_project import read_tomograms
from catalogs.schema import ClassInfo

XYZ = ["x", "y", "z"]
Q = ["qx", "qy", "qz", "qw"]
CENTRED = [f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]
PIXELS = [f"rlnCoordinate{a}" for a in "XYZ"]


def one(**columns: Any) -> pd.DataFrame:
    """A table of one particle."""
    given: dict[str, Any] = {"tomogram": "TS_1", "class_name": "ribosome", "label": 1, "x": 0, "y": 0, "z": 0}
    return particles.make(**{k: [v] if k in XYZ else v for k, v in (given | columns).items()})


def turned(table: pd.DataFrame) -> Any:
    return Rotation.from_quat(table[Q].to_numpy())


class TestRelion5:
    @pytest.mark.parametrize("size", [400, 401])
    def test_the_two_centres_are_one_pixel_apart(self, tmp_path: Path, size: int) -> None:
        """RELION's picker writes size/2 - 1, its extraction reads size/2: its own round trip moves."""
        context = Context(voxel_size=8.0, pixel_size=2.0, unbinned_shape=(size,) * 3)
        table = one(x=100.0, y=200.0, z=300.0)
        for rule, middle in (("extract", size / 2), ("picker", size / 2 - 1)):
            with_rule = Context(**{**vars(context), "centre": rule})
            particles.save(table, tmp_path / f"{rule}.star", context=with_rule)
            stars = starfile.read(tmp_path / f"{rule}.star")["particles"]
            np.testing.assert_allclose(stars[CENTRED].to_numpy()[0] / 2.0 + middle, [50, 100, 150])
            # the comment says which, so that nobody has to
            loaded = particles.load(tmp_path / f"{rule}.star")
            assert f"size/2{' - 1' if rule == 'picker' else ','}" in loaded.why
            np.testing.assert_allclose(loaded.table[XYZ], table[XYZ], atol=1e-6)

    def test_the_size_in_tomograms_star_is_unbinned(self, tmp_path: Path) -> None:
        """copick multiplies it by the binning: 3 x half of the tomogram off, here."""
        starfile.write(
            {
                "global": pd.DataFrame(
                    {
                        "rlnTomoName": ["TS_1"],
                        "rlnTomoSizeX": [4000],
                        "rlnTomoSizeY": [3000],
                        "rlnTomoSizeZ": [1000],
                        "rlnTomoTiltSeriesPixelSize": [2.5],
                        "rlnTomoTomogramBinning": [4.0],
                        "rlnVoltage": [300.0],
                    }
                )
            },
            tmp_path / "tomograms.star",
        )
        known = read_tomograms(tmp_path / "tomograms.star")
        assert known["voxel_size"] == {"TS_1": 10.0}
        assert known["optics"] == {"rlnVoltage": 300.0}
        stars = pd.DataFrame(
            {"rlnTomoName": ["TS_1"], **dict(zip(CENTRED, ([0.0], [10.0], [-20.0]), strict=True))}
        )
        starfile.write({"particles": stars}, tmp_path / "p.star")
        table = particles.read(tmp_path / "p.star", context=Context(**known))
        assert table[XYZ].to_numpy().tolist() == [[5000.0, 3760.0, 1230.0]]

    def test_an_optimisation_set_brings_its_tomograms(self, tmp_path: Path) -> None:
        tomograms = pd.DataFrame(
            {
                "rlnTomoName": ["TS_1"],
                **{f"rlnTomoSize{a}": [100] for a in "XYZ"},
                "rlnTomoTiltSeriesPixelSize": [2.0],
            }
        )
        starfile.write({"global": tomograms}, tmp_path / "tomograms.star")
        context = Context(voxel_size=2.0, shape=(100,) * 3, tomograms_file="tomograms.star")
        particles.save(one(x=30.0), tmp_path / "optimisation_set.star", context=context)
        listed = starfile.read(tmp_path / "optimisation_set.star")
        assert set(listed) >= {"rlnTomoParticlesFile", "rlnTomoTomogramsFile"}
        loaded = particles.load(tmp_path / "optimisation_set.star")
        assert loaded.format.name == "relion5-set"
        assert loaded.table["x"].tolist() == [30.0]
        with pytest.raises(InputError, match="`tomograms_star`"):
            particles.save(
                one(), tmp_path / "other.star", "relion5-set", Context(voxel_size=2.0, shape=(9, 9, 9))
            )

    def test_shifts_are_applied_once(self, tmp_path: Path) -> None:
        """ArtiaX adds them to the position and writes them again; copick leaves them out."""
        stars = pd.DataFrame(
            {
                "rlnTomoName": ["TS_1"],
                **dict(zip(CENTRED, ([0.0], [0.0], [0.0]), strict=True)),
                "rlnOriginXAngst": [6.0],
                "rlnOriginYAngst": [-2.0],
                "rlnOriginZAngst": [0.0],
            }
        )
        starfile.write({"particles": stars}, tmp_path / "p.star")
        context = Context(voxel_size=2.0, shape=(100, 100, 100))
        table = particles.read(tmp_path / "p.star", context=context)
        assert table[XYZ].to_numpy().tolist() == [[94.0, 102.0, 100.0]]
        particles.save(table, tmp_path / "q.star", context=context)
        again = starfile.read(tmp_path / "q.star")["particles"]
        assert again[CENTRED].to_numpy().tolist() == [[-6.0, 2.0, 0.0]]
        assert again[[f"rlnOrigin{a}Angst" for a in "XYZ"]].to_numpy().tolist() == [[0, 0, 0]]

    def test_eulers_turn_with_the_body(self) -> None:
        """copick's documentation calls them extrinsic: another rotation, with three different angles."""
        ours = from_eulers(np.array([[10.0, 50.0, 80.0]]), "relion").as_matrix()[0]
        z, y, zz = (
            Rotation.from_euler(a, d, degrees=True).as_matrix() for a, d in (("z", 10), ("y", 50), ("z", 80))
        )
        np.testing.assert_allclose(ours, (z @ y @ zz).T, atol=1e-12)

    def test_optics_are_written_only_if_they_are_known(self, tmp_path: Path) -> None:
        context = Context(voxel_size=8.0, shape=(64, 64, 64), pixel_size=2.0)
        particles.save(one(), tmp_path / "p.star", context=context)
        assert "optics" not in starfile.read(tmp_path / "p.star")
        optics = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
        particles.save(one(), tmp_path / "q.star", context=Context(**{**vars(context), "optics": optics}))
        blocks = starfile.read(tmp_path / "q.star")
        assert blocks["optics"].to_dict("records") == [
            {
                "rlnOpticsGroup": 1,
                **optics,
                "rlnTomoTiltSeriesPixelSize": 2.0,
                "rlnOpticsGroupName": "opticsGroup1",
            }
        ]
        assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1]
        assert blocks["particles"]["rlnTomoParticleName"].tolist() == ["TS_1/1"]

    def test_columns_that_nobody_knows_stay(self, tmp_path: Path) -> None:
        """Warp drops them."""
        stars = pd.DataFrame(
            {
                "rlnTomoName": ["TS_1", "TS_1"],
                **dict(zip(CENTRED, ([0.0, 1.0], [0.0, 1.0], [0.0, 1.0]), strict=True)),
                "rlnTomoParticleName": ["TS_1/17", "TS_1/3"],
                "rlnRandomSubset": [1, 2],
                "myWord": ["a b", "c"],
            }
        )
        starfile.write({"particles": stars}, tmp_path / "p.star")
        context = Context(voxel_size=2.0, shape=(100, 100, 100))
        particles.save(
            particles.read(tmp_path / "p.star", context=context), tmp_path / "q.star", context=context
        )
        again = starfile.read(tmp_path / "q.star")["particles"]
        for name in ("rlnTomoParticleName", "rlnRandomSubset", "myWord"):
            assert again[name].tolist() == stars[name].tolist()


class TestBinning:
    @pytest.mark.parametrize(("kind", "index"), [("fourier", 3 * 7.0), ("box", 3 * 7.0 + 1.0)])
    def test_relion4_counts_unbinned_pixels(self, tmp_path: Path, kind: Any, index: float) -> None:
        """A voxel of three averaged pixels lies on the middle one, (b - 1)/2 further: Ais forgets that."""
        context = Context(voxel_size=6.0, pixel_size=2.0, binning_kind=kind)
        particles.save(one(x=7 * 6.0), tmp_path / "p.star", "relion4", context)
        assert starfile.read(tmp_path / "p.star")["particles"]["rlnCoordinateX"].tolist() == [index]
        assert particles.read(tmp_path / "p.star")["x"].tolist() == [42.0]

    def test_relion4_never_takes_voxels_for_pixels(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"pixel size of the unbinned tilt series .*`pixel_size`"):
            particles.save(one(), tmp_path / "p.star", "relion4", Context(voxel_size=6.0))
        frame = pd.DataFrame(
            {"rlnTomoName": ["TS_1"], **dict(zip(PIXELS, ([1.0], [1.0], [1.0]), strict=True))}
        )
        starfile.write({"particles": frame}, tmp_path / "q.star")
        with pytest.raises(InputError, match="`pixel_size`"):
            particles.read(tmp_path / "q.star", voxel_size=6.0)

    @pytest.mark.parametrize(("kind", "off"), [("fourier", 0.0), ("box", 1.0)])
    def test_relion5_knows_the_kind(self, tmp_path: Path, kind: Any, off: float) -> None:
        context = Context(voxel_size=6.0, shape=(10, 10, 10), pixel_size=2.0, binning_kind=kind)
        particles.save(one(x=42.0), tmp_path / "p.star", context=context)
        centred = starfile.read(tmp_path / "p.star")["particles"][CENTRED[0]][0]
        assert centred == pytest.approx((21 + off) * 2.0 - 30 / 2 * 2.0)
        assert particles.read(tmp_path / "p.star")["x"].tolist() == pytest.approx([42.0])

    def test_fractions_of_pixels_stay(self, tmp_path: Path) -> None:
        """DeepETPicker rounds them away."""
        particles.save(one(x=10.3), tmp_path / "p.star", "relion4", Context(pixel_size=2.0))
        assert starfile.read(tmp_path / "p.star")["particles"]["rlnCoordinateX"].tolist() == [5.15]

    def test_lists_of_unbinned_pixels(self, tmp_path: Path) -> None:
        """A list may count in pixels where its kind mostly counts in voxels."""
        context = Context(voxel_size=8.0, pixel_size=2.0, in_pixels=True, binning_kind="box")
        (tmp_path / "t.coords").write_text("21.5 1.5 1.5\n")
        table = particles.read(tmp_path / "t.coords", context=context)
        assert table[XYZ].to_numpy().tolist() == [[40.0, 0.0, 0.0]]


class TestWarp:
    def test_names_and_pixels(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {
                "rlnMicrographName": ["TS_01.tomostar", "TS_02.tomostar"],
                **dict(zip(PIXELS, ([10.0, 20.0], [0.0, 0.0], [0.0, 0.0]), strict=True)),
                "rlnOriginXAngst": [3.0, 0.0],
                "rlnOriginYAngst": [0.0, 0.0],
                "rlnOriginZAngst": [0.0, 0.0],
            }
        )
        starfile.write({"particles": frame}, tmp_path / "p.star")
        loaded = particles.load(tmp_path / "p.star", context=Context(voxel_size=10.0))
        assert loaded.format.name == "relion3"
        assert loaded.table["tomogram"].tolist() == ["TS_01", "TS_02"]
        assert loaded.table["x"].tolist() == [97.0, 200.0]

    def test_relion_3_says_its_pixel_in_two_ways(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            {
                "rlnMicrographName": ["a/TS_01.mrc"],
                **dict(zip(PIXELS, ([10.0], [0.0], [0.0]), strict=True)),
                "rlnMagnification": [10000.0],
                "rlnDetectorPixelSize": [3.42],
                "rlnOriginX": [2.0],
                "rlnOriginY": [0.0],
                "rlnOriginZ": [0.0],
            }
        )
        starfile.write({"": frame}, tmp_path / "p.star")
        table = particles.read(tmp_path / "p.star")
        assert table["x"].tolist() == pytest.approx([(10 - 2) * 3.42])  # shifts in pixels, too
        assert table["rlnMicrographName"].tolist() == ["a/TS_01.mrc"]

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ("TS_01.tomostar", "TS_01"),
            ("rec/TS_01_10.00Apx.mrc", "TS_01_10.00Apx"),
            ("lam.1.tomostar", "lam.1"),
            ("a/b/TS.ome.zarr", "TS"),
            ("TS_01", "TS_01"),
            ("C:\\data\\TS_2.rec", "TS_2"),
        ],
    )
    def test_names_with_dots(self, tmp_path: Path, given: str, name: str) -> None:
        frame = pd.DataFrame(
            {"rlnMicrographName": [given], **dict(zip(PIXELS, ([1.0], [0.0], [0.0]), strict=True))}
        )
        starfile.write({"particles": frame}, tmp_path / "p.star")
        table = particles.read(tmp_path / "p.star", voxel_size=8.0)
        assert table["tomogram"].tolist() == [name]
        particles.save(table, tmp_path / "models", "imod", Context(voxel_size=8.0))
        assert particles.read(tmp_path / "models", "imod")["tomogram"].tolist() == [name]
        particles.save(table, tmp_path / "q.star", "relion3", Context(voxel_size=8.0))
        again = starfile.read(tmp_path / "q.star")["particles"]["rlnMicrographName"].tolist()
        assert again == [given]


class TestMatlab:
    @pytest.mark.parametrize("name", ["dynamo", "em", "stopgap"])
    @pytest.mark.parametrize("first", [0, 1])
    def test_the_first_voxel(self, tmp_path: Path, name: str, first: int) -> None:
        """MATLAB's is 1; the same file read with the other rule is one voxel off."""
        table = one(x=30.0, y=50.0, z=70.0)
        path = tmp_path / {"dynamo": "p.tbl", "em": "p.em", "stopgap": "p.star"}[name]
        particles.save(table, path, name, Context(voxel_size=10.0, first_voxel=first))
        other = particles.read(path, context=Context(voxel_size=10.0, first_voxel=1 - first))
        np.testing.assert_allclose(other[XYZ] - table[XYZ], 10.0 * (2 * first - 1), atol=1e-4)

    def test_dynamos_rotation_is_not_artiaxs(self) -> None:
        """R = Rz(-tdrot) Rx(-tilt) Rz(-narot); ArtiaX takes the inverse."""
        ours = from_eulers(np.array([[20.0, 40.0, 70.0]]), "dynamo").as_matrix()[0]
        z, x, zz = (
            Rotation.from_euler(a, d, degrees=True).as_matrix()
            for a, d in (("z", -20), ("x", -40), ("z", -70))
        )
        np.testing.assert_allclose(ours, z @ x @ zz, atol=1e-12)
        assert np.abs(ours - (z @ x @ zz).T).max() > 0.1

    def test_stopgap_is_dynamo_with_other_signs(self) -> None:
        """tdrot = -psi, tilt = -theta, narot = -phi, as STOPGAP's own converter has it."""
        phi, theta, psi = 11.0, 47.0, -83.0
        tom = from_eulers(np.array([[phi, theta, psi]]), "tom")
        dynamo = from_eulers(np.array([[-psi, -theta, -phi]]), "dynamo")
        assert (tom * dynamo.inv()).magnitude()[0] < 1e-9

    def test_coordinates_over_2048(self, tmp_path: Path) -> None:
        """TomoTwin keeps float16, which has no odd numbers there."""
        for name in ("p.em", "p.tloc", "p.tbl", "p.mod", "p.cbox"):
            path = tmp_path / name
            particles.save(one(x=3001.25), path, context=Context(voxel_size=1.0))
            assert particles.read(path, voxel_size=1.0)["x"].tolist() == pytest.approx([3001.25], abs=1e-3), (
                name
            )


class TestImod:
    def test_half_a_voxel_in_x_and_y_but_not_in_z(self, tmp_path: Path) -> None:
        context = Context(voxel_size=10.0, tomogram="TS_1")
        particles.save(one(), tmp_path / "p.txt", "imod-text", context)
        assert (tmp_path / "p.txt").read_text() == "1 1 0.500000 0.500000 0.000000\n"
        (tmp_path / "q.txt").write_text("10.5 20.5 30\n")
        loaded = particles.load(tmp_path / "q.txt", "imod-text", context)
        assert loaded.table[XYZ].to_numpy().tolist() == [[100.0, 200.0, 300.0]]

    def test_a_model_with_what_we_do_not_know(self, tmp_path: Path) -> None:
        """Unknown chunks are skipped by their size, meshes by theirs; the header's pixel size is used."""
        particles.save(one(x=20.0, score=0.5), tmp_path / "p.mod", context=Context(voxel_size=10.0))
        whole = (tmp_path / "p.mod").read_bytes()
        chunk = b"VIEW" + struct.pack(">i", 5) + b"abcde"
        mesh = b"MESH" + struct.pack(">2iI2h", 1, 2, 0, 0, 0) + bytes(12) + struct.pack(">2i", -23, -1)
        (tmp_path / "q.mod").write_bytes(whole[:-4] + mesh + chunk + b"IEOF")
        table = particles.read(tmp_path / "q.mod")
        assert table["x"].tolist() == [20.0]
        assert table["score"].tolist() == [0.5]

    def test_a_model_that_is_cut_off(self, tmp_path: Path) -> None:
        """imodmodel reads on for ever."""
        particles.save(one(), tmp_path / "p.mod", context=Context(voxel_size=10.0))
        whole = (tmp_path / "p.mod").read_bytes()
        for length in range(8, len(whole), 7):
            (tmp_path / "q.mod").write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"q\.mod is cut off or damaged"):
                particles.read(tmp_path / "q.mod")


class TestOthers:
    def test_chimerax_adds_the_maps_origin(self, tmp_path: Path) -> None:
        context = Context(
            origin=(-100.0, 5.0, 0.0), classes=(ClassInfo(name="ribosome", label=1, radius=110.0),)
        )
        particles.save(one(x=30.0, score=0.75), tmp_path / "TS_1.cmm", context=context)
        text = (tmp_path / "TS_1.cmm").read_text()
        assert 'x="-70.0000" y="5.0000" z="0.0000"' in text
        assert 'radius="110" note="score=0.75"' in text
        assert particles.read(tmp_path / "TS_1.cmm", context=context)[XYZ].to_numpy().tolist() == [[30, 0, 0]]

    def test_eman2_counts_from_the_middle_voxel(self, tmp_path: Path) -> None:
        """voxel = box * apix_unbin / apix + size // 2; what else is in the file stays."""
        file = tmp_path / "info" / "TS_1_info.json"
        file.parent.mkdir()
        file.write_text(
            json.dumps({"apix_unbin": 2.0, "tlt_params": [[1, 2]], "boxes_3d": [], "class_list": {}})
        )
        context = Context(voxel_size=8.0, shape=(101, 100, 99))
        particles.save(one(x=8.0 * 60, y=8.0 * 50, z=8.0 * 50, score=0.5), tmp_path, "eman2", context)
        content = json.loads(file.read_text())
        assert content["boxes_3d"] == [[44.0, 0.0, 0.0, "tlpick", 0.5, 1]]
        assert content["tlt_params"] == [[1, 2]]
        assert content["class_list"]["1"]["name"] == "ribosome"
        assert particles.read(tmp_path, context=context)[XYZ].to_numpy().tolist() == [[480, 400, 400]]

    def test_old_eman2_counts_voxels(self, tmp_path: Path) -> None:
        content = {
            "boxes_3d": [[10, 20, 30, "manual", 0.5, 0], [1, 2, 3, "tm"]],
            "class_list": {"0": {"name": "ribo", "boxsize": 40}},
        }
        (tmp_path / "TS_1_info.json").write_text(json.dumps(content))
        loaded = particles.load(tmp_path / "TS_1_info.json", context=Context(voxel_size=4.0))
        assert "old EMAN2" in loaded.why
        assert loaded.table[XYZ].to_numpy().tolist() == [[40, 80, 120], [4, 8, 12]]
        assert loaded.table["class_name"].tolist() == ["ribo", "ribo"]
        assert set(loaded.table["tomogram"]) == {"TS_1"}

    def test_the_portals_matrix_is_not_transposed(self, tmp_path: Path) -> None:
        """ArtiaX transposes it."""
        q = Rotation.from_euler("z", 90, degrees=True).as_quat()
        table = one(x=80.0, **dict(zip(Q, q, strict=True)))
        particles.save(table, tmp_path / "out", "portal", Context(voxel_size=8.0))
        (points,) = (tmp_path / "out").rglob("*.ndjson")
        folder = "TS_1/Reconstructions/VoxelSpacing8.000/Annotations/100"
        assert points == tmp_path / "out" / folder / "ribosome-1.0_orientedpoint.ndjson"
        (line,) = points.read_text().splitlines()
        point = json.loads(line)
        assert point["type"] == "orientedPoint"
        assert point["location"] == {"x": 10.0, "y": 0.0, "z": 0.0}
        np.testing.assert_allclose(
            point["xyz_rotation_matrix"], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12
        )
        metadata = json.loads(points.with_name("ribosome-1.0.json").read_text())
        assert metadata["object_count"] == 1
        # the folders say run, voxel size and class
        read = particles.read(points)
        assert (read["tomogram"][0], read["class_name"][0], read["x"][0]) == ("TS_1", "ribosome", 80.0)

    def test_the_portals_instance_points(self, tmp_path: Path) -> None:
        (tmp_path / "101-actin-1.0_instancepoint.ndjson").write_text(
            '{"type": "instancePoint", "location": {"x": 1, "y": 2, "z": 3}, "instance_id": 4}\n'
        )
        loaded = particles.load(
            tmp_path / "101-actin-1.0_instancepoint.ndjson", context=Context(voxel_size=10.0)
        )
        assert loaded.table[[*XYZ, "instance"]].to_numpy().tolist() == [[10, 20, 30, 4]]
        assert loaded.table["class_name"].tolist() == ["actin"]

    def test_deepfinders_text_is_what_it_writes(self, tmp_path: Path) -> None:
        """label z y x; DeepFinder's own reader of it takes the first for x."""
        (tmp_path / "t.txt").write_text("2 30.5 20 10 512\n1 3 2 1 20\n")
        loaded = particles.load(tmp_path / "t.txt", context=Context(voxel_size=10.0))
        assert loaded.format.name == "deepfinder-text"
        assert loaded.table[XYZ].to_numpy().tolist() == [[100, 200, 305], [10, 20, 30]]
        assert loaded.table["size"].tolist() == [512, 20]

    def test_deepfinders_xml(self, tmp_path: Path) -> None:
        """As DeepFinder writes it, with and without what may be absent."""
        (tmp_path / "t.xml").write_text(
            "<objlist>\n"
            '  <object tomo_idx="0" class_label="3" x="10.000" y="20.000" z="30.000" psi="90.000" phi="0.000"'
            ' the="0.000" cluster_size="77"/>\n'
            '  <object tomo_idx="1" class_label="1" x="1.500" y="2.000" z="3.000"/>\n'
            "</objlist>\n"
        )
        loaded = particles.load(tmp_path / "t.xml", context=Context(voxel_size=10.0))
        table = loaded.table
        assert loaded.format.name == "deepfinder"
        assert table[XYZ].to_numpy().tolist() == [[100, 200, 300], [15, 20, 30]]
        assert table["class_name"].tolist() == ["class3", "class1"]
        assert table["size"].tolist()[0] == 77
        assert np.isnan(table["size"][1])
        np.testing.assert_allclose(
            turned(table).as_matrix()[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12
        )

    def test_shrec(self, tmp_path: Path) -> None:
        """As the challenge wrote it; R = Rz(first) Rx(second) Rz(third)."""
        folder = tmp_path / "model_9"
        folder.mkdir()
        (folder / "particle_locations.txt").write_text(
            "4cr2 10 20 30 25.0000 40.0000 70.0000\n1s3x 1 2 3 0 0 0\nvesicle 5 5 5 NaN NaN NaN\n"
        )
        loaded = particles.load(folder / "particle_locations.txt", context=Context(voxel_size=10.0))
        assert loaded.format.name == "shrec"
        assert loaded.table[XYZ].to_numpy().tolist() == [[100, 200, 300], [10, 20, 30], [50, 50, 50]]
        assert loaded.table["class_name"].tolist() == ["4cr2", "1s3x", "vesicle"]
        assert set(loaded.table["tomogram"]) == {"model_9"}
        # measured on voltools, which turned the particles of these tomograms
        moved = turned(loaded.table)[0].apply([9.0, 0.0, 3.0])
        np.testing.assert_allclose(moved, [0.86675925, 5.42482623, 7.73433829], atol=1e-6)

    def test_boxes_have_corners_in_x_and_y_only(self, tmp_path: Path) -> None:
        context = Context(voxel_size=10.0, classes=(ClassInfo(name="ribosome", label=1, radius=150.0),))
        particles.save(one(x=200.0, y=300.0, z=410.0, score=0.5), tmp_path / "TS_1.cbox", context=context)
        blocks = starfile.read(tmp_path / "TS_1.cbox")
        row = blocks["cryolo"].iloc[0]
        assert row[["CoordinateX", "CoordinateY", "CoordinateZ"]].tolist() == [5.0, 15.0, 41.0]
        assert row[["Width", "Height", "Depth"]].tolist() == [30, 30, 30]
        assert row["Confidence"] == 0.5
        assert list(blocks) == ["global", "cryolo", "cryolo_include"]

    def test_a_pickle_that_runs_something(self, tmp_path: Path) -> None:
        file = tmp_path / "p.tloc"
        file.write_bytes(b"\x80\x04cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
        with pytest.raises(InputError, match=r"cannot|safely.*os\.system"):
            particles.read(file, voxel_size=1.0)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ["a_b", "a b", "a/b", "", "-a"])
    def test_copick_takes_no_such_names(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="copick cannot take the class"):
            particles.save(one(class_name=name), tmp_path / "out", "copick")
        assert not (tmp_path / "out").exists()

    def test_copick_leaves_out_angles_it_does_not_trust(self, tmp_path: Path) -> None:
        content = {
            "pickable_object_name": "x",
            "user_id": "u",
            "session_id": "1",
            "run_name": "TS_1",
            "trust_orientation": False,
            "unit": "angstrom",
            "points": [
                {
                    "location": {"x": 1, "y": 2, "z": 3},
                    "transformation_": [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
                }
            ],
        }
        (tmp_path / "p.json").write_text(json.dumps(content))
        assert particles.read(tmp_path / "p.json")["qw"].tolist() == [1.0]

    def test_czii(self, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text(
            "id,experiment,particle_type,x,y,z\n0,TS_5_4,beta-amylase,2983.5,3154.1,764.1\n"
        )
        loaded = particles.load(tmp_path / "s.csv")
        assert loaded.format.name == "czii"
        assert loaded.table[["tomogram", "class_name", *XYZ]].to_numpy().tolist() == [
            ["TS_5_4", "beta-amylase", 2983.5, 3154.1, 764.1]
        ]
