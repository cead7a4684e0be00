"""``tlgen pack`` and ``tlgen view``: as a user runs them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from catalogs.pages.pictures import PALETTE
from tlgen.molecules.molecule import Molecule
from tlgen.scene.decoration_shapes import CLASS_NAMES, Bead
from tlgen.scene.scene import Scene
from tlgen.scene.scene_file import read_scene, write_scene
from tlgen.scene.view import FARTHEST, colours_of, measure, section, view

Example = tuple[Scene, dict[str, Molecule]]
Tlgen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    content = {
        "name": "small",
        "shape": [16, 24, 24],
        "targets": {"enolase": {"structures": ["3enl"], "count": 3, "variants": {"number": 1}}},
        "distractors": [{"file": "1pwc", "count": 2}],
        "acquisition": {"voxel_size": 10},
        "samples": {"train": {"number": 2}},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_pack_writes_the_scene_and_view_draws_it(tmp_path: Path, recipe: Path, tlgen: Tlgen) -> None:
    status, out, _ = tlgen(
        "pack", recipe, "--to", tmp_path / "s", "--sample", "train-001", "--voxel-size", 20
    )
    assert status == 0
    assert re.search(r"enolase +3 of 3", out)
    assert "box of 24 x 24 x 16 nm" in out
    scene, library = read_scene(tmp_path / "s")
    assert np.bincount(scene.which).sum() == 5
    assert scene.asked == {"enolase": 3, "distractor": 2}
    assert [len(a) > 0 for a in scene.amplitudes] == [v >= 0 for v in scene.variants]
    assert library[scene.digests[0]].name == "3enl"

    status, out, _ = tlgen("view", tmp_path / "s", "--to", tmp_path / "s.png")
    assert status == 0
    assert "gap to the nearest molecule" in out
    picture = np.asarray(Image.open(tmp_path / "s.png"))
    blue = (picture == (np.array(colours_of(scene)["enolase"]) * 0.55 + 255 * 0.45).round()).all(axis=2)
    assert blue.sum() > 1000
    assert tlgen("view", tmp_path / "s" / "scene.json", "--to", tmp_path / "s.html")[0] == 0
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert page.count('<svg class="plot"') == 1
    assert "<td>3</td><td>3</td>" in page
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("pack", "{recipe}", "--to", "{tmp}/s", "--sample", "train-01"), "no sample train-01; did you mean"),
        (("pack", "{recipe}", "--to", "{tmp}"), "not empty and contains no scene"),
        (("pack", "{recipe}"), "--to"),
        (("view", "{tmp}/nothing", "--to", "{tmp}/s.png"), "there is no scene in"),
        (("pack", "{recipe}", "--to", "{tmp}/s", "--voxel-size", "0"), "more than 0 Å"),
    ],
)
def test_mistakes_get_a_sentence(
    tmp_path: Path, recipe: Path, tlgen: Tlgen, arguments: tuple[str, ...], complaint: str
) -> None:
    status, _, err = tlgen(*(a.format(recipe=recipe, tmp=tmp_path) for a in arguments))
    assert status == 2
    assert complaint in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_a_picture_of_another_kind_is_refused(tmp_path: Path, tlgen: Tlgen, example: Example) -> None:
    write_scene(*example, tmp_path / "s")
    status, _, err = tlgen("view", tmp_path / "s", "--to", tmp_path / "s.jpg")
    assert status == 2
    assert ".png or .html" in err


def test_sections_show_classes_where_they_are(example: Example) -> None:
    base, molecules = example
    molecule = molecules[base.digests[0]]
    scene = Scene(
        base.shape, 8.0, (molecule.digest,), ("one",), (-1,), (1,), ("one", *CLASS_NAMES),
        np.zeros(1, np.int64), np.array([[-60.0, 30, 0]]), np.array([[0.0, 0, 0, 1]]),
        decorations=(Bead((60, 80, 0), 20),),
    )  # fmt: skip
    library = {molecule.digest: molecule}
    picture = section(scene, library, 2, 2.0)
    assert picture.shape == (120, 104, 3)
    assert (picture[0, 0] == 255).all()
    blue, gold = (colours_of(scene)[name] for name in ("one", "gold"))
    for (x, y), colour in (((-60, 30), blue), ((60, 80), gold)):
        found = picture[int(60 + y / 2), int(52 + x / 2)]
        assert np.allclose(found, np.array(colour) + (255 - np.array(colour)) * 0.45, atol=1)
    assert section(scene, library, 0, 2.0).shape == (120, 80, 3)
    assert section(scene, library, 1, 2.0).shape == (80, 104, 3)
    assert (section(scene, library, 0, 2.0) == 255).all()  # nothing stands at x = 0


def test_distractors_are_told_apart(example: Example) -> None:
    base, molecules = example
    digest = base.digests[0]
    molecule = molecules[digest]
    scene = Scene(
        base.shape, 8.0, (digest, digest), ("4v8r", "3jb9"), (-1, -1), (0, 0), ("one",),
        np.array([0, 1, 1]), np.array([[-60.0, 30, 0], [60, 30, 0], [0, -80, 0]]),
        np.tile([0.0, 0, 0, 1], (3, 1)), asked={"distractor": 5},
    )  # fmt: skip
    library = {digest: molecule}
    picture = section(scene, library, 2, 2.0).astype(int)
    found = [picture[int(60 + y / 2), int(52 + x / 2)] for x, y in ((-60, 30), (60, 30), (0, -80))]
    assert np.abs(found[0] - found[1]).max() > 20
    assert (found[1] == found[2]).all()
    rows = [(row.name, row.is_part, row.placed) for row in measure(scene, library).rows]
    assert rows == [("distractor", False, 3), ("3jb9", True, 2), ("4v8r", True, 1)]


def test_facts_count_and_measure(example: Example) -> None:
    scene, library = example
    one = library[scene.digests[0]]
    pair = replace(
        scene, which=np.array([0, 0]), positions=np.array([[-50.0, 0, 0], [50, 0, 0]]),
        quaternions=np.tile([0.0, 0, 0, 1], (2, 1)),
    )  # fmt: skip
    facts = measure(pair, library)
    rows = {row.name: (row.asked, row.placed) for row in facts.rows}
    assert rows == {"one": (4, 2), "gold": (None, 1), "distractor": (3, 0)}
    x = one.positions[:, 0]
    assert (facts.nearest_distances >= 100 - x.max() + x.min()).all()
    assert facts.nearest_distances[0] == facts.nearest_distances[1]
    assert facts.cut == 0
    assert facts.concentration == pytest.approx(2 * one.mass / np.prod(scene.box) * 1660.539)
    alone = replace(
        pair, which=pair.which[:1], positions=pair.positions[:1], quaternions=pair.quaternions[:1]
    )
    assert not (measure(alone, library).nearest_distances < FARTHEST).any()


def test_an_empty_scene_and_one_with_many_classes_can_be_drawn(tmp_path: Path, example: Example) -> None:
    scene, library = example
    empty = replace(
        scene, which=scene.which[:0], positions=scene.positions[:0], quaternions=scene.quaternions[:0],
        decorations=(), asked={f"class-{k}-with-quite-a-long-name-to-show": k + 1 for k in range(20)},
        class_names=tuple(f"class-{k}-with-quite-a-long-name-to-show" for k in range(20)),
    )  # fmt: skip
    for name in ("empty.png", "empty.html"):
        facts = view(empty, library, tmp_path / name)
        assert len(facts.rows) == 20
        assert (tmp_path / name).stat().st_size > 1000


def test_a_tomogram_of_a_corpus_is_drawn_with_its_labels(
    tmp_path: Path, tlgen: Tlgen, corpus_of_balls: Path
) -> None:
    for name, more in (("a.png", ()), ("b.html", ("--sample", "train-000"))):
        status, out, err = tlgen("view", corpus_of_balls, "--to", tmp_path / name, *more)
        assert status == 0, err
        assert f"{tmp_path / name}: train-000; 24 x 24 x 16 voxels of 10 angstrom" in out
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == PALETTE[0]).all(axis=1).sum() > 100  # the outline of a target
    sample = next((corpus_of_balls / "samples").glob("*/*.zarr"))
    status, out, err = tlgen("view", sample, "--to", tmp_path / "c.png")
    assert status == 0, err
    for arguments, words in (
        (("--sample", "train-009"), "has no sample train-009; did you mean 'train-000'?"),
        (("--sample", "x", "--to", tmp_path / "x.jpg"), "a tomogram is drawn as .png or .html"),
    ):
        status, _, err = tlgen("view", corpus_of_balls, "--to", tmp_path / "d.png", *arguments)
        assert (status, words in err) == (2, True), err


@pytest.fixture
def corpus_of_balls(tmp_path: Path, recipe: Path) -> Path:
    from tlgen.recipes.recipe_file import read_recipe
    from tlgen.runs.run import run

    text = recipe.read_text().replace("number: 2", "number: 1")
    recipe.write_text(text.replace("voxel_size: 10", "{voxel_size: 10, tilt_range: 40, tilt_step: 20}"))
    assert run(read_recipe(str(recipe)), str(tmp_path / "corpus"), "threads:1", 0)
    return tmp_path / "corpus"
