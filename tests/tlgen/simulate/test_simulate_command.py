"""`tlgen simulate`, as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import yaml

from tlgen.molecules.molecule import Library, centred
from tlgen.scene.scene import Scene
from tlgen.scene.scene_file import write_scene

Tlgen = Callable[..., tuple[int, str, str]]


def balls(
    places: list[tuple[float, float, float]], shape: tuple[int, int, int] = (14, 20, 22)
) -> tuple[Scene, Library]:
    """Balls of 600 atoms, 40 Å wide."""
    rng = np.random.default_rng(4)
    inside = rng.uniform(-20, 20, (3000, 3))
    inside = inside[(inside**2).sum(axis=1) < 400][:600]
    molecule = centred("ball", rng.choice([6, 7, 8], len(inside)), inside, np.zeros(len(inside), bool))
    n = len(places)
    return Scene(
        shape, 8.0, (molecule.digest,), ("ball",), (-1,), (1,), ("ball",), np.zeros(n, np.int64),
        np.array(places, float).reshape(n, 3), np.tile([0.0, 0, 0, 1], (n, 1)),
    ), {molecule.digest: molecule}  # fmt: skip


class TestProgram:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        """A scene and a recipe."""
        scene, library = balls([(0, 0, 0), (60, 40, 0)])
        write_scene(scene, library, tmp_path / "scene")
        return tmp_path / "scene", self.recipe(tmp_path)

    def recipe(self, folder: Path, **acquisition: Any) -> Path:
        words = {
            "extends": "demo", "name": "r",
            "acquisition": {"voxel_size": 8, "tilt_range": 40, "tilt_step": 20, **acquisition},
            "samples": {"train": {"acquisition": {"engine": "multislice"}}},
        }  # fmt: skip
        (folder / "r.yaml").write_text(yaml.safe_dump(words))
        return folder / "r.yaml"

    def test_images_of_a_scene(self, files: tuple[Path, Path], tmp_path: Path, tlgen: Tlgen) -> None:
        scene, recipe = files
        status, out, err = tlgen("simulate", scene, recipe, "--to", tmp_path / "a.mrc")
        assert (status, err) == (0, "")
        assert "5 images by template-learning" in out
        assert (tmp_path / "a.rawtlt").read_text().split() == ["-40.00", "-20.00", "0.00", "20.00", "40.00"]
        with mrcfile.open(tmp_path / "a.mrc") as stack:
            assert stack.data.shape == (5, 20, 22)
            assert stack.voxel_size.x == 8
        status, _, _ = tlgen(
            "simulate", scene, recipe, "--to", tmp_path / "b.mrc", "--angle", -20, "--angle", 0, "--no-noise"
        )
        assert status == 0
        with mrcfile.open(tmp_path / "b.mrc") as stack:
            assert stack.data.shape == (2, 20, 22)
            assert stack.data.mean() == pytest.approx(1, abs=0.05)

    def test_errors_of_alignment_are_in_the_images(
        self, files: tuple[Path, Path], tmp_path: Path, tlgen: Tlgen
    ) -> None:
        """By an offset of all tilts, which moves what stands above the tilt axis sideways."""
        scene, library = balls([(0, 0, 30)])
        write_scene(scene, library, tmp_path / "high")
        columns = []
        for offset in (0.0, 20.0):
            recipe = self.recipe(
                tmp_path, tilt_angle_offset=offset, ice_density=0, defocus=0.5, phase_plate=True
            )
            done = tlgen("simulate", tmp_path / "high", recipe, "--to", tmp_path / "a.mrc", "--no-noise")
            assert done[0] == 0
            assert (tmp_path / "a.rawtlt").read_text().split()[2] == "0.00"
            with mrcfile.open(tmp_path / "a.mrc") as stack:
                dark = np.clip(1 - np.asarray(stack.data[2], float), 0.01, None) - 0.01
            columns.append((dark.sum(axis=0) * np.arange(22)).sum() / dark.sum())
        assert columns[1] - columns[0] == pytest.approx(30 * np.sin(np.radians(20)) / 8, abs=0.2)

    def test_tilts_that_are_taken_twice_are_two_images(
        self, files: tuple[Path, Path], tmp_path: Path, tlgen: Tlgen
    ) -> None:
        recipe = self.recipe(tmp_path, tilt_series="0:3 0:3 20:3 0:3")
        for options, angles in (((), ["0.00"] * 3 + ["20.00"]), (("--angle", 0), ["0.00"] * 3)):
            status, out, _ = tlgen("simulate", files[0], recipe, "--to", tmp_path / "a.mrc", *options)
            assert (status, f"{len(angles)} images" in out) == (0, True)
            assert (tmp_path / "a.rawtlt").read_text().split() == angles
        with mrcfile.open(tmp_path / "a.mrc") as stack:
            assert not np.array_equal(stack.data[0], stack.data[1])  # each has ice and counts of its own

    @pytest.mark.parametrize(
        ("acquisition", "words"),
        [
            ({"dose": 0}, "dose"),
            ({"tilt_range": 85}, "a tilt of -85° is beyond 80°"),
            ({"detector": "nothing.star"}, "'nothing.star' is neither"),
            ({"device": "gpu"}, "device"),
            ({"voxel_size": 10}, "packed at 8 Å"),
        ],
    )
    def test_bad_settings_end_with_status_2(
        self, files: tuple[Path, Path], tmp_path: Path, tlgen: Tlgen, acquisition: dict[str, Any], words: str
    ) -> None:
        status, _, err = tlgen(
            "simulate", files[0], self.recipe(tmp_path, **acquisition), "--to", tmp_path / "a.mrc"
        )
        assert status == 2
        assert words in err
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "a.mrc").exists()

    def test_bad_scenes_end_with_status_2(
        self, files: tuple[Path, Path], tmp_path: Path, tlgen: Tlgen
    ) -> None:
        folder, recipe = files
        written = (folder / "scene.json").read_text()
        for place, words in ((10.0, "overlap"), (500.0, "no atom in the box")):
            content = json.loads(written)
            content["molecules"][1]["position"] = [place, 0.0, 0.0]
            (folder / "scene.json").write_text(json.dumps(content))
            status, _, err = tlgen("simulate", folder, recipe, "--to", tmp_path / "a.mrc")
            assert status == 2
            assert words in err
        for change, words in (
            ({"kind": 9}, "molecule 2 is of kind 9, and there are 1"),
            ({"kind": -1}, "molecule 2 is of kind -1"),
            ({"quaternion": [0, 0, 0, 0]}, "the quaternion of molecule 2 is not a rotation"),
            ({"quaternion": [float("nan"), 0, 0, 1]}, "the quaternion of molecule 2 is not a rotation"),
        ):
            content = json.loads(written)
            content["molecules"][1] |= change
            (folder / "scene.json").write_text(json.dumps(content))
            status, _, err = tlgen("simulate", folder, recipe, "--to", tmp_path / "a.mrc")
            assert (status, words in err, err.count("\n")) == (2, True, 1), err
        bead = {"kind": "bead", "centre": [0, 0, 0], "radius": 20, "seed": 1}
        for change, words in (
            ({"shape": [0, 20, 22]}, "a box of (0, 20, 22) voxels"),
            ({"voxel_size": -8}, "voxels of -8 Å"),
            ({"class_names": []}, "no class of the label 1"),
            ({"decorations": [bead]}, "Å into a bead"),
            ({"decorations": [bead | {"radius": -20}]}, "has the radius -20; it must be positive"),
            ({"decorations": [bead | {"centre": [0, 0, float("nan")]}]}, "give numbers"),
        ):
            content = json.loads(written)
            content["class_names"].append("gold")
            content |= change
            (folder / "scene.json").write_text(json.dumps(content))
            status, _, err = tlgen("simulate", folder, recipe, "--to", tmp_path / "a.mrc")
            assert (status, words in err, err.count("\n")) == (2, True, 1), err
        (folder / "scene.json").write_text(written)
        assert tlgen("simulate", folder, recipe, "--to", tmp_path / "a.mrc", "--angle", 7)[0] == 2
        assert tlgen("simulate", folder, recipe, "--to", tmp_path / "a.tif")[0] == 2

    def test_run_refuses_at_the_door(self, tmp_path: Path, tlgen: Tlgen) -> None:
        status, _, err = tlgen("run", self.recipe(tmp_path, tilt_range=85), "--to", tmp_path / "corpus")
        assert status == 2
        assert "beyond 80°" in err
        assert not (tmp_path / "corpus").exists()
