"""Recipes: what is refused, and that a sample's name follows from what determines it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalogs.errors import InputError
from tlgen.recipe import Recipe, draw_acquisition, expand, read_recipe, shipped_recipes

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


def test_every_shipped_recipe_is_valid() -> None:
    assert "demo" in shipped_recipes()
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert len(expand(recipe, PREPARED)) == sum(g.number for g in recipe.samples.values())


def test_the_demo_randomizes_and_holds_out() -> None:
    specs = expand(read_recipe("demo"), PREPARED)
    assert len({spec.acquisition for spec in specs}) >= 6
    held_out = [spec for spec in specs if spec.split == "test"]
    assert [spec.acquisition.engine for spec in held_out] == ["parakeet"]
    assert sum(spec.acquisition.engine == "parakeet" for spec in specs) >= 2
    others = {spec.acquisition for spec in specs if spec.split != "test"}
    assert held_out[0].acquisition not in others


@pytest.mark.parametrize(
    ("content", "words"),
    [
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
        ({**MINIMAL, "acquisition": {"dose": {"from": 9}}}, "acquisition.dose: give a value, a list"),
        ({**MINIMAL, "acquisition": {"dose": []}}, "acquisition.dose: give a value, a list"),
        ({**MINIMAL, "acquisition": {"voxel_size": [8, 10]}}, "a corpus has one voxel size"),
        ("- a\n- list\n", "is not a recipe"),
        ("a: [1\nb: 2", "is not valid YAML in line 2"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    assert words in refused(tmp_path, content)


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"there is no recipe nowhere.yaml; .*demo"):
        read_recipe("nowhere.yaml")


def test_a_value_out_of_range_names_its_key() -> None:
    with pytest.raises(InputError, match="acquisition: dose: Input should be greater than 0"):
        draw_acquisition({"dose": -3}, 0)


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
