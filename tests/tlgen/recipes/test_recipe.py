"""Recipes: what is refused, and that a sample's name follows from what determines it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from catalogs.errors import InputError
from tlgen.packing import quantities
from tlgen.recipes.drawn import Range
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import json_schema, new_recipe, read_recipe, shipped_recipes
from tlgen.recipes.samples import draw_acquisition, expand
from tlgen.recipes.units import in_unit
from tlgen.runs import contents
from tlgen.runs.make_sample import quantity_of

MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "shape": [16, 32, 32],
    "targets": {"ribosome": {"structures": ["4v5d"], "count": 2}},
    "samples": {"train": {"number": 2}},
}
PREPARED = {"a1": 5, "b2": 3}


def changed(**words: Any) -> Recipe:
    return Recipe.model_validate({**MINIMAL, **words})


def ids(recipe: Recipe, prepared: dict[str, int] = PREPARED) -> list[str]:
    return [spec.sample_id for spec in expand(recipe, prepared)]


def refused(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        read_recipe(str(path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


@pytest.mark.parametrize("given", ["maps/average.mrc", "a.map.gz", "b.em", "c.rec"])
def test_a_bare_path_of_a_map_is_a_map(given: str) -> None:
    from tlgen.recipes.recipe import Structure

    assert Structure.model_validate(given) == Structure(map=given)
    assert Structure.model_validate("4v5d") == Structure(file="4v5d")
    assert Structure.model_validate("a.cif.gz").file == "a.cif.gz"


def test_every_shipped_recipe_is_valid() -> None:
    assert "demo" in shipped_recipes()
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.description
        groups = recipe.samples.values()
        assert len(expand(recipe, PREPARED)) == sum(g.number * g.combinations for g in groups)


@pytest.mark.parametrize("name", ["ribosome", "fas", "nucleosome"])
def test_the_papers_recipes_have_its_48_combinations(name: str) -> None:
    specs = expand(read_recipe(name), PREPARED)
    made = {spec.acquisition for spec in specs if spec.split == "train" and spec.acquisition.phase_plate}
    assert len(made) == 48
    expected = set(itertools.product((75, 150), (2, 4), (-60, -40), (0.9, 1.1), (0, 0.5, 1.0)))
    assert {(a.dose, a.tilt_step, a.tilt_min, a.ice_density, a.defocus) for a in made} == expected
    assert {(a.engine, a.pixel_size, a.slice_thickness, a.voltage) for a in made} == {("parakeet", 1, 3, 300)}
    assert {s.shape for s in specs} == {(128, 256, 256)}
    assert not made & {spec.acquisition for spec in specs if spec.split != "train"}


def test_an_ablation_differs_in_one_thing() -> None:
    whole = read_recipe("ribosome").model_dump(exclude={"name", "description"})
    ablations = [
        name
        for name, path in shipped_recipes().items()
        if name.startswith("ribosome-") and yaml.safe_load(path.read_text()).get("extends") == "ribosome"
    ]
    assert len(ablations) == 5
    for name in ablations:
        other = read_recipe(name).model_dump(exclude={"name", "description"})
        assert sum(whole[key] != other[key] for key in whole) == 1, name


def test_the_json_schema_knows_every_shipped_recipe_and_no_wrong_key() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    judge = Draft202012Validator(schema)
    for path in shipped_recipes().values():
        assert judge.is_valid(yaml.safe_load(path.read_text()))
    assert judge.is_valid(MINIMAL | {"distractors": "paper", "packing": {"gap": "3 Å"}})
    assert not judge.is_valid(MINIMAL | {"packin": {}})
    assert not judge.is_valid(MINIMAL | {"acquisition": {"doze": 3}})
    assert schema["properties"]["acquisition"]["anyOf"][0]["properties"]["defocus"]["unit"] == "µm"


def test_the_demo_randomizes_and_holds_out() -> None:
    specs = expand(read_recipe("demo"), PREPARED)
    assert len({spec.acquisition for spec in specs}) >= 6
    held_out = [spec for spec in specs if spec.split == "test"]
    assert [spec.acquisition.engine for spec in held_out] == ["parakeet"]
    assert sum(spec.acquisition.engine == "parakeet" for spec in specs) >= 2
    others = {spec.acquisition for spec in specs if spec.split != "test"}
    assert held_out[0].acquisition not in others


def test_a_group_may_have_a_packing_of_its_own() -> None:
    groups = {"train": {"number": 1}, "dilute": {"packing": {"gap": 20, "concentration": 60}}}
    recipe = Recipe.model_validate({**MINIMAL, "packing": {"gap": 4}, "samples": groups})
    crowded, dilute = expand(recipe, PREPARED)
    assert (crowded.packing.gap, dilute.packing.gap, dilute.packing.concentration) == (4, 20, 60)
    # the group that says nothing keeps the id that it has without the other
    alone = Recipe.model_validate({**MINIMAL, "packing": {"gap": 4}, "samples": {"train": {"number": 1}}})
    assert expand(alone, PREPARED)[0].sample_id == crowded.sample_id
    assert "packing          gap 20.0, concentration 60.0: dilute" in contents.lines(recipe, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {**MINIMAL, "samples": {"train": {"packing": {"fill": "saturation", "ratio": {"x": 1}}}}},
            "unknown key samples.train.packing.ratio.x",
        ),
        ({**MINIMAL, "sampels": {}}, "unknown key sampels; did you mean 'samples'?"),
        (
            {**MINIMAL, "acquisition": {"defocuss": 2}},
            "unknown key acquisition.defocuss; did you mean 'defocus'?",
        ),
        (
            {**MINIMAL, "samples": {"train": {"number": 2, "acquisition": {"doze": 2}}}},
            "unknown key samples.train.acquisition.doze; did you mean 'dose'?",
        ),
        (
            {**MINIMAL, "targets": {"r": {"structures": ["4v5d"], "count": 2, "variant": {}}}},
            "unknown key targets.r.variant; did you mean 'variants'?",
        ),
        ({k: v for k, v in MINIMAL.items() if k != "shape"}, "the key shape is missing"),
        ({**MINIMAL, "shape": [4, 32, 32]}, "shape must be at least 8 voxels"),
        ({**MINIMAL, "acquisition": {"dose": {"min": 9, "max": 2}}}, "min must not be larger than max"),
        (
            {**MINIMAL, "acquisition": {"dose": {"min": -10, "max": 100}}},
            "acquisition.dose: must be greater than 0, not -10",
        ),
        ({**MINIMAL, "acquisition": {"dose": [90, 0]}}, "dose: must be greater than 0, not 0"),
        ({**MINIMAL, "acquisition": {"defocus": float("nan")}}, "defocus: must be a finite number"),
        (
            {**MINIMAL, "samples": {"a": {"grid": {"dose": [60, float("inf")]}}}},
            "samples.a.grid.dose: must be a finite number, not inf",
        ),
        (
            {**MINIMAL, "acquisition": {"contrast": 0}},
            "acquisition.contrast: must be 'parakeet' or 'physical' or greater than 0, not 0",
        ),
        ({**MINIMAL, "acquisition": {"dose": {"from": 9}}}, "acquisition.dose: give a value, a list"),
        ({**MINIMAL, "acquisition": {"dose": []}}, "acquisition.dose: give a value, a list"),
        ({**MINIMAL, "acquisition": {"voxel_size": [8, 10]}}, "a corpus has one voxel size"),
        (
            {**MINIMAL, "acquisition": {"defocus": "2 parsec"}},
            "acquisition.defocus: '2 parsec' has an unknown unit; use A,",
        ),
        ({**MINIMAL, "packing": {"gap": "3 kV"}}, "packing.gap: '3 kV' has an unknown unit"),
        (
            {**MINIMAL, "samples": {"a": {"grid": {"dose": 3}}}},
            "samples.a.grid.dose: give a list of the values",
        ),
        (
            {**MINIMAL, "samples": {"a": {"grid": {"doze": [3]}}}},
            "unknown key samples.a.grid.doze; did you mean",
        ),
        ({**MINIMAL, "distractors": [{"set": "papr"}]}, "distractors.0.set: Input should be 'paper'"),
        ({**MINIMAL, "distractors": [{"set": "paper", "folder": "x"}]}, "give either a set or a folder"),
        ({**MINIMAL, "distractors": [{"file": "4v5d", "conut": 3}]}, "did you mean 'count'?"),
        (
            {**MINIMAL, "targets": {"r": {"structures": [{"map": "a.mrc", "file": "b"}], "count": 2}}},
            "targets.r.structures.0: give either a file (or PDB id) or a map",
        ),
        (
            {**MINIMAL, "targets": {"r": {"structures": [{"file": "4v5d", "contour": 2}], "count": 2}}},
            "contour needs a map, and 4v5d is not a map",
        ),
        ({**MINIMAL, "packing": {"molecules": 9}}, "packing: molecules needs ratio"),
        ({**MINIMAL, "packing": {"ratio": {"ribosome": 1}}}, "packing: ratio needs molecules, concentration"),
        (
            {**MINIMAL, "packing": {"fill": "saturation", "concentration": "300 mg/ml"}},
            "packing: concentration and fill both set the number of molecules",
        ),
        (
            {**MINIMAL, "packing": {"fill": "saturation", "ratio": {"ribosom": 1}}},
            "unknown key packing.ratio.ribosom; did you mean 'ribosome'?",
        ),
        (
            {
                **MINIMAL,
                "packing": {"fill": "saturation", "ratio": {"ribosome": 1}},
                "distractors": [{"file": "4v1w", "count": 1}],
            },
            "packing.ratio has no number for distractor",
        ),
        ({**MINIMAL, "extends": "nothing"}, "mine.yaml extends nothing, and there is no recipe nothing"),
        ({**MINIMAL, "extends": "mine.yaml"}, "extends itself"),
        ({**MINIMAL, "extends": ["demo"]}, "extends must be the name or path of a recipe"),
        ("- a\n- list\n", "is not a recipe"),
        ("a: [1\nb: 2", "is not valid YAML in line 2"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    assert words in refused(tmp_path, content)


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "big.pdb").write_text("END\n")
    base = {**MINIMAL, "targets": {"big": {"structures": ["big.pdb"], "count": 2}}, "seed": 3}
    base |= {"acquisition": {"dose": 80, "defocus": 2}, "distractors": [{"file": "4v1w", "count": 1}]}
    (tmp_path / "base" / "base.yaml").write_text(yaml.safe_dump(base))
    changes = {
        "extends": "base/base.yaml",
        "name": "mine",
        "acquisition": {"defocus": 4},
        "targets": {"big": {"count": 7}, "small": {"structures": ["4v5d"], "count": 1}},
        "distractors": None,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changes))
    recipe = read_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.name, recipe.seed, recipe.distractors) == ("mine", 3, [])
    assert recipe.acquisition == {"dose": 80, "defocus": 4}
    assert list(recipe.targets) == ["big", "small"]
    assert recipe.targets["big"].count == 7
    assert recipe.targets["big"].structures[0].file == str(tmp_path / "base" / "big.pdb")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2 um", "µm", 2),
        ("25000 Å", "µm", 2.5),
        ("25000 \N{ANGSTROM SIGN}", "µm", 2.5),
        ("2.5 μm", "µm", 2.5),
        ("-60°", "°", -60),
        ("100 e/A^2", "e/Å²", 100),
        ("100 e/Å²", "e/Å²", 100),
        ("300kV", "kV", 300),
        ("0.6 nm", "Å", 6),
        ("1e-3 mm", "µm", 1),
        ("940 kg/m³", "g/cm³", 0.94),
    ],
)
def test_quantities_with_units(text: str, unit: str, value: float) -> None:
    assert in_unit(text, unit) == value


def test_quantities_in_a_recipe() -> None:
    recipe = changed(
        packing={"gap": "0.3 nm"},
        acquisition={"defocus": {"min": "20000 A", "max": "3 um"}, "dose": ["80 e/A^2", 120]},
        samples={"train": {"grid": {"voltage": ["200 kV", 300]}}},
    )
    assert recipe.packing.gap == 3
    assert recipe.acquisition["defocus"] == Range(2, 3)
    assert recipe.acquisition["dose"] == [80, 120]
    assert [s.acquisition.voltage for s in expand(recipe, PREPARED)] == [200, 300]


@pytest.mark.parametrize(
    ("words", "fill"),
    [
        ({}, quantities.Counts()),
        ({"fill": "saturation"}, quantities.Saturation()),
        ({"concentration": "300 g/l"}, quantities.Concentration(300)),
        ({"concentration": 300, "ratio": {"ribosome": 1}}, quantities.Concentration(300, {"ribosome": 1})),
        ({"molecules": 90, "ratio": {"ribosome": 1}}, quantities.Ratio({"ribosome": 1}, 90)),
    ],
)
def test_how_many_molecules_a_recipe_asks_for(words: dict[str, Any], fill: quantities.Fill) -> None:
    assert quantity_of(changed(packing=words).packing) == fill


def test_more_of_a_grid_leave_the_first_ones_as_they_were() -> None:
    group: dict[str, Any] = {"grid": {"dose": [80, 120], "defocus": [2, 3, 4]}}
    once, twice = (changed(samples={"train": {**group, "number": n}}) for n in (1, 2))
    assert len(ids(once)) == 6
    assert len(set(ids(twice))) == 12
    assert ids(twice)[:6] == ids(once)
    again = [spec.acquisition for spec in expand(twice, PREPARED)]
    assert again[:6] == again[6:]


def test_a_new_recipe_is_a_copy_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "my ribosome.yaml"
    assert new_recipe("ribosome", path) == "my-ribosome"
    mine, theirs = read_recipe(str(path)), read_recipe("ribosome")
    assert mine == theirs.model_copy(update={"name": "my-ribosome"})
    assert path.read_text().count("#") == shipped_recipes()["ribosome"].read_text().count("#")
    with pytest.raises(InputError, match="already exists"):
        new_recipe("ribosome", path)
    with pytest.raises(InputError, match="did you mean 'ribosome'"):
        new_recipe("ribosme", tmp_path / "other.yaml")
    with pytest.raises(InputError, match=r"must end in \.yaml"):
        new_recipe("ribosome", tmp_path / "other")


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"there is no recipe nowhere.yaml; .*demo"):
        read_recipe("nowhere.yaml")


def test_a_value_out_of_range_names_its_key() -> None:
    with pytest.raises(InputError, match="acquisition: dose: Input should be greater than 0"):
        draw_acquisition({"dose": -3}, 0)


def test_a_range_of_a_whole_number_draws_whole_numbers_and_both_ends() -> None:
    words = {"padding": Range(30, 32), "tilt_group": Range(1, 2)}
    drawn = [draw_acquisition(words, seed) for seed in range(40)]
    assert {acq.padding for acq in drawn} == {30, 31, 32}
    assert {acq.tilt_group for acq in drawn} == {1, 2}


def test_structures_are_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.pdb").write_text("END\n")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "targets": {"x": {"structures": ["mine.pdb"], "count": 1}}}))
    [structure] = read_recipe(str(path)).targets["x"].structures
    assert structure.file == str(tmp_path / "mine.pdb")


def test_more_samples_leave_the_first_ones_as_they_were() -> None:
    assert ids(changed(samples={"train": {"number": 5}}))[:2] == ids(changed())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"shape": [16, 32, 40]},
        {"packing": {"gap": 9}},
        {"packing": {"faces": "cut"}},
        {"packing": {"fill": "saturation"}},
        {"acquisition": {"dose": 50}},
        {"name": "other"},
    ],
)
def test_what_determines_a_sample_changes_its_id(change: dict[str, Any]) -> None:
    assert not set(ids(changed(**change))) & set(ids(changed()))


def test_other_structures_change_the_ids() -> None:
    assert not set(ids(changed(), {"a1": 5, "c3": 3})) & set(ids(changed()))


def test_one_more_randomized_parameter_leaves_the_others_as_they_were() -> None:
    words: dict[str, Any] = {"dose": {"min": 80, "max": 140}, "defocus": [2, 3, 4]}
    more = words | {"ice_density": {"min": 0.8, "max": 1.0}}
    one, two = (draw_acquisition(changed(acquisition=w).acquisition, 7) for w in (words, more))
    assert (one.dose, one.defocus) == (two.dose, two.defocus)
    assert one.ice_density != two.ice_density


@given(st.integers(0, 2**32), st.floats(1, 50), st.floats(0, 100))
def test_a_range_is_kept(seed: int, low: float, width: float) -> None:
    words: dict[str, Any] = {
        "dose": changed(acquisition={"dose": {"min": low, "max": low + width}}).acquisition["dose"]
    }
    assert low - 1e-4 <= draw_acquisition(words, seed).dose <= low + width + 1e-4


def test_samples_are_the_same_wherever_they_are_computed() -> None:
    usual = ids(changed())
    assert ids(changed(acquisition={"device": "auto"})) == usual
    assert ids(changed(acquisition={"astigmatism": 0})) == usual  # its default
    assert not set(ids(changed(acquisition={"astigmatism": 0.1}))) & set(usual)


@pytest.mark.parametrize("word", ["12.10", "2024-05-15"])
def test_a_name_that_yaml_takes_for_a_number(tmp_path: Path, word: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"extends: demo\ntargets: {{a: {{structures: [{word}], count: 3}}}}\n")
    with pytest.raises(
        InputError, match=r"targets\.a\.structures\.0: YAML reads this as .*; write it in quotes"
    ):
        read_recipe(str(path))
    path.write_text(f"extends: demo\ntargets: {{{word}: {{structures: [7cth], count: 3}}}}\n")
    assert list(read_recipe(str(path)).targets) == [word]
