"""The pictures of the gallery: made by the documentation's build, once, and again if something changed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "shape": [16, 24, 24],
    "targets": {"enolase": {"structures": ["3enl"], "count": 2, "variants": {"number": 0}}},
    "acquisition": {"engine": "multislice", "voxel_size": 10, "tilt_range": 40, "tilt_step": 40},
    "samples": {"near-focus": {}, "dilute": {"acquisition": {"dose": 30}}},
}


@pytest.fixture(scope="module")
def hook() -> Any:
    """The hook of the documentation, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("make_gallery", DOCS / "make_gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_of_the_page_has_a_sample_of_its_own() -> None:
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    groups = [
        group
        for path in sorted((DOCS / "gallery").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["samples"]
    ]
    assert len(groups) == len(set(groups)) > 5
    for group in groups:
        assert f"(images/gallery-{group}.jpg)" in page
    assert page.count("(images/gallery-") == len(groups)


@pytest.mark.slow
def test_pictures_are_made_once_and_again_for_another_recipe(hook: Any, tmp_path: Path) -> None:
    recipe, kept = tmp_path / "tiny.yaml", tmp_path / "kept"
    recipe.write_text(yaml.safe_dump(RECIPE))
    made = hook.pictures([recipe], kept)
    assert sorted(path.name for path in made) == ["gallery-dilute.jpg", "gallery-near-focus.jpg"]
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (872, 432)
    first = [path.stat().st_mtime_ns for path in made]
    assert [path.stat().st_mtime_ns for path in hook.pictures([recipe], kept)] == first

    made[0].unlink()  # only the missing picture's corpus is drawn again; nothing is simulated
    samples = sorted((kept / "tiny" / "commits").rglob("*.json"))
    assert all(path.is_file() for path in hook.pictures([recipe], kept))
    assert sorted((kept / "tiny" / "commits").rglob("*.json")) == samples

    recipe.write_text(yaml.safe_dump(RECIPE | {"seed": 9}))
    again = hook.pictures([recipe], kept)
    assert all(new.stat().st_mtime_ns > old for new, old in zip(again, first, strict=True))
    assert len(list((kept / "tiny" / "commits").rglob("*.json"))) == 4
