"""Values that are possible and mean something else get a word; impossible ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.usual_values import USUAL, doubt, impossible
from tlgen import api as tlgen_api
from tlgen.molecules.molecule import Molecule
from tlgen.recipes.doubts import doubts
from tlgen.recipes.recipe_file import read_recipe, shipped_recipes
from tlgen.runs.unplaced_molecules import refuse_small_boxes

Tlgen = Callable[..., tuple[int, str, str]]


def written(folder: Path, recipe: dict[str, Any], **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}))
    return str(path)


@pytest.mark.parametrize("name", sorted(USUAL))
def test_limits_are_in_order_and_say_why(name: str) -> None:
    limits = USUAL[name]
    assert limits.least <= limits.low < limits.high <= limits.most
    assert doubt(name, (limits.low + limits.high) / 2) is None
    assert limits.why in (impossible(name, limits.most * 1.01) or "")
    assert "." not in limits.why.rstrip(".")[-1]
    if limits.least < limits.low:
        assert limits.why in (doubt(name, limits.low * 0.99, called="a.b") or "")


def test_what_the_schema_sets_itself_is_usual() -> None:
    for name, field in Acquisition.model_fields.items():
        if name in USUAL:
            assert doubt(name, field.default) is None, name


def test_nothing_is_unusual_about_the_shipped_recipes() -> None:
    for name in shipped_recipes():
        assert doubts(read_recipe(name)) == {}, name


@pytest.mark.parametrize(
    ("changes", "quantity", "words"),
    [
        ({"acquisition": {"voxel_size": 1}}, "voxel_size", "is it in nm? 1 nm is 10 Å"),
        ({"acquisition": {"voxel_size": 10, "dose": 3}}, "dose", "dose is that of all images together"),
        ({"acquisition": {"voxel_size": 10, "dose": {"min": 3, "max": 90}}}, "dose", "acquisition.dose is 3"),
        ({"acquisition": {"voxel_size": 10, "defocus": -3}}, "defocus", "turns the contrast round"),
        ({"acquisition": {"voxel_size": 10, "defocus": [3, 30]}}, "defocus", "in Å or nm"),
        ({"acquisition": {"voxel_size": 10, "defocus": 0}}, "defocus", "1 to 8 µm under focus"),
        ({"acquisition": {"voxel_size": 10, "tilt_step": 0.1}}, "tilts", "is 1201: a tilt series has"),
        ({"acquisition": {"voxel_size": 10, "amplitude_contrast": 0.7}}, "amplitude_contrast", "percent"),
        ({"shape": [8, 24, 25]}, "thickness", "the box along z is 80 Å"),
        ({"samples": {"a": {"number": 20_000}}}, "samples", "is 20000: the paper trained"),
        ({"packing": {"concentration": 900}}, "concentration", "a cytoplasm has 200 to 400"),
        ({"decorations": {"beads": {"radius": 5}}}, "bead_radius", "is it in nm?"),
    ],
)
def test_an_unusual_value_gets_a_word(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], quantity: str, words: str
) -> None:
    found = doubts(read_recipe(written(tmp_path, recipe, **changes)))
    assert words in " ".join(found.pop(quantity))
    assert set(found) <= {"tilt_step"}
    assert quantity not in doubts(read_recipe(written(tmp_path, recipe, **changes, unusual=[quantity])))


def test_a_phase_plate_makes_focus_usual(tmp_path: Path, recipe: dict[str, Any]) -> None:
    acquisition = {"voxel_size": 10, "phase_plate": True, "defocus": 0}
    assert doubts(read_recipe(written(tmp_path, recipe, acquisition=acquisition))) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"acquisition": {"dose": 1e300}},
            "dose: must be from 0.001 to 1000000 e/Å², not 1e+300",
        ),
        (
            {"acquisition": {"tilt_step": 1e-4}},
            "tilt_step: must be from 0.05 to 178°, not 0.0001",
        ),
        ({"acquisition": {"voxel_size": 0.01}}, "voxel_size: must be from 0.5 to 200 Å"),
        ({"acquisition": {"voxel_size": 0.5}, "shape": [10, 99, 99]}, "shape: each side of the box"),
        ({"samples": {"a": {"number": 10**9}}}, "must be from 1 to 1000000, not 1e+09"),
        ({"samples": {"a": {"number": 10**6, "grid": {"dose": [60, 90]}}}}, "samples: the number of all"),
        ({"unusual": ["voxelsize"]}, "unusual names voxelsize, which is not a known quantity; did you mean"),
    ],
)
def test_an_impossible_value_is_refused(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(written(tmp_path, recipe, **changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"count": 10**9}, "targets.big.count must be at most 1000000"),
        ({"count": 10**5}, "targets.big.count: 100000 molecules do not fit into the box of shape; it holds"),
        ({"count": 2, "variants": {"number": 10**7}}, "targets.big.variants.number: Input should be less"),
    ],
)
def test_a_number_is_bounded_by_what_fits(
    tmp_path: Path, recipe: dict[str, Any], target: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(written(tmp_path, recipe, targets={"big": {"structures": ["big.pdb"], **target}}))
    assert words in str(caught.value)


def test_a_number_in_scientific_notation_is_one(tmp_path: Path, recipe: dict[str, Any]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe).replace("tilt_step: 20", "tilt_step: 2e1"))
    assert read_recipe(str(path)).acquisition["tilt_step"] == 20


def test_a_run_waits_for_a_yes(tmp_path: Path, recipe: dict[str, Any], tlgen: Tlgen) -> None:
    path = written(tmp_path, recipe, acquisition={**recipe["acquisition"], "dose": 3})
    status, _, err = tlgen("run", path, "--to", tmp_path / "c")
    assert (status, (tmp_path / "c").exists()) == (2, False)
    assert "unusual: acquisition.dose is 3 e/Å²: a whole tilt series has 60 to 160" in err
    assert "add --yes, or unusual: [dose] to the recipe" in err
    status, out, err = tlgen("plan", path, "--to", tmp_path / "c", "--budget", 1)
    assert (status, "unusual: acquisition.dose" in err) == (0, True), err
    assert "big              2 of big, rigid" in out
    assert "distractors      3 of small (3)" in out
    assert "box              25 x 24 x 16 nm: held-out, train" in out


def test_a_run_from_python_waits_for_the_same_word(tmp_path: Path, recipe: dict[str, Any]) -> None:
    strange = {**recipe["acquisition"], "dose": 3}
    words = r"acquisition\.dose is 3 e/Å²: a whole .* if intended, add `yes`, or unusual: \[dose\] to"
    with pytest.raises(InputError, match=words):
        tlgen_api.make(read_recipe(written(tmp_path, recipe, acquisition=strange)), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    # what is impossible is said first
    recipe["targets"]["big"]["structures"] = ["nowhere.pdb"]
    path = written(tmp_path, recipe, acquisition=strange)
    for yes in (False, True):
        with pytest.raises(InputError, match=r"nowhere\.pdb"):
            tlgen_api.make(read_recipe(path), tmp_path / "c", yes=yes)


@pytest.mark.parametrize("command", ["run", "plan", "pack"])
def test_a_box_without_room_for_a_target_is_refused(
    tmp_path: Path, recipe: dict[str, Any], tlgen: Tlgen, command: str
) -> None:
    path = written(tmp_path, recipe, acquisition={"voxel_size": 4}, shape=[9, 40, 40])
    more = ["--yes"] if command == "run" else []
    status, _, err = tlgen(command, path, "--to", tmp_path / "c", *more)
    assert (status, (tmp_path / "c").exists()) == (2, False), err
    assert "no target has room in the box of shape: big is" in err
    assert "the box 160 x 160 x 36 Å" in err


def test_a_target_has_room_if_it_can_lie_flat(tmp_path: Path, recipe: dict[str, Any]) -> None:
    rod = np.zeros((40, 3), np.float32)
    rod[:, 0] = np.linspace(-100, 100, 40)
    rod[:, 1] = np.tile([-10, 10], 20)
    molecule = Molecule("rod", np.full(40, 6, np.uint8), rod, np.ones(40, bool))
    lying = read_recipe(written(tmp_path, recipe, acquisition={"voxel_size": 5}, shape=[8, 50, 50]))
    refuse_small_boxes(lying, [molecule])
    cube = np.stack(np.meshgrid(*[np.linspace(-60, 60, 5)] * 3), -1).reshape(-1, 3).astype(np.float32)
    large = Molecule("cube", np.full(125, 6, np.uint8), cube, np.ones(125, bool))
    with pytest.raises(InputError, match="cube is 120 x 120 x 120 Å large, the box 250 x 250 x 40 Å"):
        refuse_small_boxes(lying, [large])
    refuse_small_boxes(lying, [large, molecule])


def test_fewer_than_asked_for_are_explained(tmp_path: Path, recipe: dict[str, Any], tlgen: Tlgen) -> None:
    recipe["targets"]["big"]["count"] = 60
    status, out, err = tlgen("pack", written(tmp_path, recipe), "--to", tmp_path / "scene")
    assert status == 0, err
    assert "of 60 big placed: no room is left for more, with 6 Å between molecules (they fill" in out
