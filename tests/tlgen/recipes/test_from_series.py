"""``tlgen match``: a recipe that takes its tilt series as a user's own acquisition was taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen import api as tlgen_api
from tlgen.cli import tlgen
from tlgen.recipes.from_series import match, scheme_of
from tlgen.recipes.recipe_file import read_recipe, shipped_recipes
from tlgen.recipes.samples import expand
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import order, tilt_series
from tlgen.tilts.series_files import AcquiredSeries, read_one


@settings(max_examples=60, deadline=None)
@given(
    scheme=st.sampled_from(["dose_symmetric", "bidirectional", "unidirectional"]),
    negative=st.booleans(),
    group=st.integers(1, 4),
    start=st.integers(-4, 4),
    step=st.sampled_from([1.5, 2.0, 3.0]),
    half=st.integers(6, 20),
    seed=st.integers(0, 99),
    by_angle=st.booleans(),
)
def test_every_scheme_is_found_again(
    scheme: str, negative: bool, group: int, start: int, step: float, half: int, seed: int, by_angle: bool
) -> None:
    first = start * step
    angles = [first + k * step for k in range(-half, half + 1)]
    taken = order(angles, scheme, first, negative, group)
    measured = np.array(taken) + np.random.default_rng(seed).normal(0, 0.03, len(taken))
    stack = np.argsort(measured) if by_angle else np.arange(len(taken))
    series = AcquiredSeries(
        "ts",
        tuple(measured[stack]),
        tuple(3.0 for _ in taken),
        tuple(int(k) for k in np.argsort(stack)),
        True,
    )
    found = scheme_of(series)
    assert found is not None
    again = [t.angle for t in tilt_series(Acquisition.model_validate(found))]
    assert again == pytest.approx(taken, abs=0.1)


def test_what_is_no_scheme_is_kept_as_a_list() -> None:
    angles = (0.0, 3.0, -3.0, -6.0, 6.0, 9.0, -9.0)  # Hagen's own order swings
    assert scheme_of(AcquiredSeries("ts", angles)) is None
    assert scheme_of(AcquiredSeries("ts", (0.0, 3.0, -3.0, 7.5, -6.0))) is None
    taken = tuple(order([float(a) for a in range(-9, 10, 3)], "dose_symmetric"))
    assert scheme_of(AcquiredSeries("ts", taken, (3.0,) * 7)) is not None
    assert scheme_of(AcquiredSeries("ts", taken, (3.0,) * 6 + (4.0,))) is None  # more dose at high tilt


@pytest.mark.parametrize("template", sorted(shipped_recipes()))
def test_the_recipe_is_centred_on_the_acquisition(
    mdoc: Callable[..., Path], tmp_path: Path, template: str
) -> None:
    path, to = mdoc(tmp_path), tmp_path / "mine.yaml"
    made = match(str(path), str(to), template, 10.0)
    assert any("tilt_group" in line for line in made.changes)
    recipe = read_recipe(str(to))
    assert made.recipe == recipe
    series = read_one(path)
    specs = expand(recipe, {"a": 1})
    assert {spec.split for spec in specs} == {"train", "val", "test"}
    for spec in specs:
        acq = spec.acquisition
        engine(acq.engine).check(acq)
        assert (acq.voltage, acq.pixel_size, acq.voxel_size) == (300, 2.74, 10.96)
        assert [t.angle for t in tilt_series(acq)] == [round(series.angles[k]) for k in series.taken]
        assert abs(acq.dose - 22.4) <= 0.151 * 22.4
        assert 3 <= acq.defocus <= 5
    box = np.array(recipe.shape) * 10.96
    below = read_recipe(template)
    voxel = below.acquisition.get("voxel_size", 8.0)
    assert box == pytest.approx(np.array(below.shape) * voxel, abs=6)


def test_a_list_of_tilts_reaches_the_recipe(relion: Callable[..., Path], tmp_path: Path) -> None:
    path = relion(tmp_path, names=("TS_01",))
    text = path.parent / "tilt_series/TS_01.star"
    lines = text.read_text().splitlines()
    text.write_text("\n".join([line for line in lines if not line.startswith("TS_01_3.0")] + [""]))
    to = tmp_path / "mine.yaml"
    match(f"{path}#TS_01", str(to), "demo", 8.0)
    content = yaml.safe_load(to.read_text())["acquisition"]
    assert content["tilt_series"].split()[0] == "1:3"
    assert content["voxel_size"] == pytest.approx(6 * 1.35)
    acq = expand(read_recipe(str(to)), {"a": 1})[0].acquisition
    assert len(tilt_series(acq)) == 6
    assert acq.tilt_scheme == "listed"


def test_without_a_name_the_recipe_is_printed(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(tlgen, ["match", str(mdoc(tmp_path))])
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = yaml.safe_load(result.output)
    assert content["acquisition"]["tilt_group"] == 2
    assert content["extends"] == "demo"


def test_from_python_the_recipe_is_there_without_a_file(
    mdoc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("extends: demo\nname: own\nshape: [50, 100, 100]\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    made = tlgen_api.match(mdoc(tmp_path), template="own.yaml", voxel_size=10.0)
    assert made.recipe.shape == (46, 91, 91)
    assert made.recipe.acquisition["tilt_group"] == 2
    assert yaml.safe_load(made.text)["extends"] == "own.yaml"
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix == ".yaml"] == [
        path for path in before if path.suffix == ".yaml"
    ]


def test_a_template_of_ones_own_is_found_from_anywhere(
    mdoc: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a/own.yaml"
    below.parent.mkdir()
    below.write_text("extends: demo\nname: own\nshape: [50, 100, 100]\n")
    (tmp_path / "b").mkdir()
    match(str(mdoc(tmp_path)), str(tmp_path / "b/mine.yaml"), str(below), 10.0)
    monkeypatch.chdir("/")
    assert read_recipe(str(tmp_path / "b/mine.yaml")).shape == (46, 91, 91)


def test_mistakes_are_told(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    path = str(mdoc(tmp_path))
    (tmp_path / "there.yaml").write_text("name: there\n")
    for to, size, words in (
        ("there.yaml", 10.0, "already exists"),
        ("mine.txt", 10.0, r"must end in \.yaml"),
        ("mine.yaml", 0.0, "must be positive"),
        ("mine.yaml", float("inf"), "no more than 200 Å, not inf"),
    ):
        with pytest.raises(InputError, match=words):
            match(path, str(tmp_path / to), "demo", size)
    with pytest.raises(InputError, match="there is no file"):
        match(str(tmp_path / "gone.mdoc"), None, "demo", 10.0)
    with pytest.raises(InputError, match="there is no recipe"):
        match(path, None, "dmeo", 10.0)


def test_a_new_recipe_names_the_targets_to_edit(mdoc: Callable[..., Path], tmp_path: Path) -> None:
    to = tmp_path / "mine.yaml"
    matched = match(str(mdoc(tmp_path)), str(to), None, 10.0)
    assert "put your structures under its targets" in matched.remark
    content = yaml.safe_load(to.read_text())
    assert content["targets"]["ribosome"]["structures"] == ["4v5d"]
    assert [entry["file"] for entry in content["distractors"]][:3] == ["3jb9", "4v8r", "4v1w"]
    assert len(content["distractors"]) == 12
    below = read_recipe("demo")
    made = read_recipe(str(to))
    assert (made.targets, made.distractors) == (below.targets, below.distractors)
    # who writes another target does not train on ribosomes too
    content["targets"] = {"proteasome": {"structures": ["3jb9"], "count": 4}}
    to.write_text(yaml.safe_dump(content))
    assert list(read_recipe(str(to)).targets) == ["proteasome"]


@pytest.mark.parametrize("extends", [False, True])
def test_a_recipe_that_is_there_keeps_all_but_its_tilt_series(
    mdoc: Callable[..., Path], tmp_path: Path, extends: bool
) -> None:
    to, path = tmp_path / "mine.yaml", str(mdoc(tmp_path))
    if extends:
        to.write_text(
            "extends: ribosome   # all of it\nname: mine\nsamples: {def: {number: 3}}\n\n# last word\n"
        )
    else:
        result = CliRunner().invoke(tlgen, ["new", str(to)])
        assert result.exit_code == 0, result.output
        text = to.read_text()
        for word, own in (("count: 30 ", "count: 9 "), ("number: 9\n", "number: 70\n")):
            assert text.count(word) == 1
            text = text.replace(word, own)
        to.write_text(text)
    old, before = to.read_text(), read_recipe(str(to))
    made = match(path, str(to), None, 10.0)
    assert "the rest is unchanged" in made.remark
    assert (tmp_path / "mine.yaml.before").read_text() == old
    after = read_recipe(str(to))
    assert made.recipe == after
    kept = {"shape", "acquisition", "samples"}
    assert after.model_dump(exclude=kept) == before.model_dump(exclude=kept)
    assert list(after.samples) == list(before.samples)
    for name, group in after.samples.items():
        assert (group.number, group.split) == (before.samples[name].number, before.samples[name].split)
    for spec in expand(after, {"a": 1}):
        assert (spec.acquisition.engine, spec.acquisition.voxel_size) == ("multislice", 10.96)
        assert len(tilt_series(spec.acquisition)) == 7
        assert 0.9 <= spec.acquisition.ice_density <= 1.1
    comments = [line for line in old.splitlines() if line.startswith("#")]
    assert all(line in to.read_text().splitlines() for line in comments)
    match(path, str(to), None, 10.0)
    assert read_recipe(str(to)) == after
