"""A cell's scene for the other benchmarks: packed as in a run, and its tilts as a run's workers make them.

Its structures are those that packages ship, or a folder's beside them (81 of them make the scenes that people
make). A worker is a process of its own, which has imported what it needs and simulated nothing yet.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from catalogs.corpus.catalog import Catalog
from tlgen.molecules.library import CorpusLibrary
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import expand
from tlgen.runs import make_sample, prepare_structures, run
from tlgen.scene.scene import Scene
from tlgen.tilts.scheme import tilt_series

RECIPE = Path(__file__).with_name("cell.yaml")
#: Degrees; the tilts that are timed.
ANGLES = (0.0, 51.0)


def recipe_with(structures: Path | None, folder: Path) -> Path:
    """Name the recipe, or write one with a folder's structures as distractors."""
    if structures is None:
        return RECIPE
    content = yaml.safe_load(RECIPE.read_text())
    content["distractors"] = [{"folder": str(structures.resolve()), "count": 4}]
    path = folder / RECIPE.name
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass(frozen=True)
class Cell:
    """A corpus with the structures, the file that holds the packed scene, and what packing took, CPU-s."""

    url: str
    scene: Path
    structures: float
    packing: float


@contextmanager
def cell(structures: Path | None) -> Iterator[Cell]:
    """Prepare the structures and pack the scene; what is prepared is kept in a folder of its own."""
    with TemporaryDirectory(prefix="cell-") as temporary:
        folder = Path(temporary)
        os.environ["TLGEN_PREPARED"] = str(folder / "prepared")
        recipe = read_recipe(str(recipe_with(structures, folder)))
        wanted = prepare_structures.preparations(recipe)
        spec = expand(recipe, {p.key: p.count for p in wanted})[0]
        infos = prepare_structures.class_infos(recipe)
        catalog = Catalog.create(str(folder / "corpus"), classes=infos, recipe={}, name=recipe.name)
        started = time.process_time()
        prepared = [prepare_structures.prepare(catalog.url, p, run.slices_of([spec])) for p in wanted]
        read = time.process_time() - started
        packed = make_sample.pack_scene(catalog.url, spec, prepared, tuple(info.name for info in infos))
        path = folder / "scene"
        path.write_bytes(pickle.dumps((packed.scene, spec.acquisition)))
        yield Cell(catalog.url, path, read, packed.seconds)


def measured(structures: Path | None) -> dict[str, float]:
    """Time tilts with and without decorations, a worker's first tilt and its second; prints a table."""
    with cell(structures) as made:
        scene, _ = pickle.loads(made.scene.read_bytes())
        library = CorpusLibrary(made.url)
        atoms = sum(library[scene.digests[k]].n_atoms for k in scene.which)
        x, y, z = scene.box
        print(
            f"\nA cell: {x:.0f} x {y:.0f} x {z:.0f} Å, {len(scene.which)} molecules of {len(scene.digests)}"
            f" structures, {atoms / 1e6:.1f} million atoms, {len(scene.decorations)} decorations; CPU seconds"
        )
        print(f"structures {made.structures:.1f}, packing {made.packing:.1f}")
        warm = _worker(made)
        cold = _worker(made, TLGEN_PREPARED=str(Path(made.url).with_name("nothing")))
    print("   tilt   with decorations   without   times")
    figures: dict[str, float] = {"decorations_ratio": 0.0}
    for angle in ANGLES:
        with_them, bare = warm[f"{angle:g}"], warm[f"{angle:g} bare"]
        print(f"{angle:6g}°  {with_them:17.2f}  {bare:8.2f}  {with_them / bare:6.2f}")
        figures["decorations_ratio"] = max(figures["decorations_ratio"], with_them / bare)
        figures[f"cell_seconds_{angle:g}"] = with_them
    figures["first_tilt_extra_s"] = warm["first"] - warm["second"]
    figures["first_tilt_extra_cold_s"] = cold["first"] - cold["second"]
    print(
        f"a worker's first tilt takes {figures['first_tilt_extra_s']:.2f} s more than its second;"
        f" {figures['first_tilt_extra_cold_s']:.2f} s where nothing of the structures has been prepared"
    )
    return figures


def _worker(made: Cell, **environment: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", made.url, str(made.scene)]
    done = subprocess.run(
        command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True
    )
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def _work(url: str, path: Path) -> None:
    """Time tilts as a worker makes them, one call each; prints CPU seconds as JSON."""
    scene, acq = pickle.loads(path.read_bytes())
    tilts = {tilt.angle: tilt for tilt in tilt_series(acq)}

    def seconds(scene: Scene, angle: float) -> float:
        started = time.process_time()
        make_sample.simulate_tilts(url, scene, acq, [tilts[angle]], 1)
        return time.process_time() - started

    times = {which: seconds(scene, ANGLES[0]) for which in ("first", "second")}
    bare = replace(scene, decorations=())
    for angle in ANGLES:
        alternating = [(seconds(scene, angle), seconds(bare, angle)) for _ in range(3)]
        times[f"{angle:g}"], times[f"{angle:g} bare"] = map(min, zip(*alternating, strict=True))
    print(json.dumps(times))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One worker of the benchmark of a cell's scene.")
    parser.add_argument("--worker", nargs=2, metavar=("URL", "SCENE"), required=True)
    given = parser.parse_args()
    _work(given.worker[0], Path(given.worker[1]))
