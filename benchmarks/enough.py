"""What a first look, a working model and a paper cost on this machine: the table of ``tlgen new``.

    python benchmarks/enough.py
    python benchmarks/enough.py --budget 120    # larger calibration boxes: slower, nearer to the truth

A corpus is planned as ``tlgen plan`` plans it, from one small sample of each kind, which is made here; its
structures are prepared whole. All three sizes take the structures of the demo, so nothing is fetched. A
training costs its steps, each timed on random patches with the network, the patch and the batch of its size;
validation and reading come on top (a few per cent). Figures are hours of one core.

Prints a table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from machine import machine
from train import apart

from catalogs.corpus.catalog import Catalog
from tlgen.commands.enough import SIZES, Size
from tlgen.recipes.recipe_file import read_recipe, shipped_recipes
from tlgen.recipes.samples import expand
from tlgen.runs import prepare_structures
from tlgen.runs.plan import estimate
from tlgen.runs.run import slices_of

MULTISLICE = {"engine": "multislice"}
GRID = {"tilt_step": [2, 4], "tilt_range": [60, 40], "ice_density": [0.9, 1.1], "dose": [75, 150]}


def recipe_of(size: Size) -> dict[str, Any]:
    """Write the recipe of a size: the demo's own, or with other samples and boxes."""
    recipe: dict[str, Any] = yaml.safe_load(Path(shipped_recipes()["demo"]).read_text())
    if size.name == "a working model":
        recipe["samples"] = {
            "train": {"number": 40, "acquisition": MULTISLICE},
            "check": {"number": 5, "split": "val", "acquisition": MULTISLICE},
            "held-out": {"number": 5, "split": "test", "acquisition": MULTISLICE},
        }
    if size.name == "a paper":
        recipe["shape"] = [128, 256, 256]
        recipe["targets"]["ribosome"]["variants"]["number"] = 10
        recipe["acquisition"] = {"voxel_size": 8, **MULTISLICE}
        recipe["samples"] = {
            "train": {"grid": {**GRID, "defocus": [2, 2.5, 3, 3.5, 4, 4.5]}},
            "check": {"number": 4, "split": "val"},
        }
    return recipe


def corpus_hours(size: Size, budget: float, folder: Path) -> tuple[float, int]:
    """Plan the corpus of a size: core-hours, its structures among them, and the number of boxes."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(size)))
    recipe = read_recipe(str(path))
    wanted = prepare_structures.preparations(recipe)
    todo = expand(recipe, {each.key: each.count for each in wanted})
    costs = estimate(recipe, todo, budget)
    url = str(folder / "corpus")
    infos = prepare_structures.class_infos(recipe)
    Catalog.create(url, classes=infos, recipe={}, name=recipe.name)
    begun = time.process_time()
    for each in wanted:
        prepare_structures.prepare(url, each, slices_of(todo))
    return costs.core_hours + (time.process_time() - begun) / 3600, len(todo)


def training_hours(size: Size, steps: int) -> float:
    """Time a few steps of the training of a size, in a process of their own; core-hours of all."""
    job = {
        "network": size.network,
        "patch": size.patch,
        "batch": size.batch,
        "steps": steps,
        "what": ["step"],
    }
    found = apart(job, {})
    if found is None:
        raise SystemExit(f"no step of {size.network} could be taken")
    return found["step_cpu_s"] * size.steps / 3600


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds that each calibration may take")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after a first one")
    given = parser.parse_args()
    print(machine())
    print(f"{'':18} {'boxes':>6} {'corpus, core-h':>15} {'training, core-h':>17}   training")
    figures: dict[str, float] = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_RUNTIME_DIR"] = folder  # what earlier plans have measured is not used
            corpus, boxes = corpus_hours(size, given.budget, Path(folder))
        training = training_hours(size, given.steps)
        what = f"{size.network}, {size.steps} steps of {size.batch} patches of {size.patch}³ voxels"
        print(f"{size.name:18} {boxes:>6} {corpus:>15.2g} {training:>17.2g}   {what}", flush=True)
        key = size.name.split()[-1]
        figures |= {f"{key}_corpus_core_h": round(corpus, 4), f"{key}_training_core_h": round(training, 4)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
