"""mkdocs hook: the build of the documentation makes the pictures of the gallery.

Corpora and pictures are kept in ``.cache/gallery``. Samples are made again if their recipe or the program's
data version changed, pictures also if ``docs/pictures.py`` changed. An interrupted build goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import tlgen
from tlgen.recipes.samples import expand
from tlgen.runs.prepare_structures import preparations

DOCS = Path(__file__).parent
KEPT = DOCS.parent / ".cache" / "gallery"
_STAMP = "drawn.json"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pictures to the site as files of the folder ``images``."""
    from mkdocs.structure.files import File

    for path in pictures(sorted((DOCS / "gallery").glob("*.yaml")), KEPT):
        files.append(File.generated(config, f"images/{path.name}", abs_src_path=str(path)))
    return files


def pictures(recipes: list[Path], kept: Path) -> list[Path]:
    """Make the pictures of all samples of some recipes that are not there yet; returns the paths of all.

    Parameters
    ----------
    recipes
        Files of the recipes.
    kept
        Folder for the corpora and the pictures.
    """
    draw = _pictures_module()
    kept.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for path in recipes:
        recipe = tlgen.load_recipe(str(path))
        specs = expand(recipe, {each.key: each.count for each in preparations(recipe)})
        ids = sorted(spec.sample_id for spec in specs)
        program = hashlib.sha256((DOCS / "pictures.py").read_bytes()).hexdigest()
        stamp = {"samples": ids, "program": program}
        drawn = [kept / draw.picture_of(spec.name) for spec in specs]
        note = kept / f"{path.stem}-{_STAMP}"
        known = json.loads(note.read_text()) if note.is_file() else None
        if known != stamp or not all(each.is_file() for each in drawn):
            corpus = tlgen.make(recipe, kept / path.stem)
            draw.gallery(corpus, ids, kept)
            note.write_text(json.dumps(stamp))
        found += drawn
    return found


def _pictures_module() -> Any:
    """Import ``docs/pictures.py``, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("docs_pictures", DOCS / "pictures.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{DOCS / 'pictures.py'} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
