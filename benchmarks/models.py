"""The models that come with the program: on simulated tomograms of other microscopes, and in a real cell.

    python benchmarks/models.py [--data ../shared/real] [--structures FOLDER:FOLDER] [--work build/models]

Makes judges that training never saw: benchmarks/judges, and benchmarks/models/cytosol-judge.yaml where
--structures names the folder with its density maps. Picks in them by name as a user does, with the program's
own cut, and compares with the truth, class by class. With the real series of benchmarks/real.py it counts
the silver ribosomes that are found. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from machine import machine
from real import JUDGES, call, cell, reconstruct

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from catalogs.model_file import read_card
from catalogs.model_sources import listed, shipped
from tlpick import score

OWN = Path(__file__).parent / "models" / "cytosol-judge.yaml"


def judged(
    name: str, classes: set[str], radii: dict[str, float], corpus: Path, to: Path
) -> list[dict[str, Any]]:
    """Pick in a corpus with the program's own cut, and compare with the truth: a row for each class."""
    call("tlpick", "run", name, corpus, "--to", to, "--rescale", "--trust-contrast")
    catalog = Catalog.open(str(corpus))
    truth = pd.concat(
        catalog.particles(record.sample_id).assign(tomogram=record.name) for record in catalog.records()
    )
    truth = truth[truth["class_name"].isin(set(radii))]
    picks = particles.read(to / "particles.star")
    picks = picks[picks["class_name"].isin(set(truth["class_name"]))]
    of_id = {record.sample_id: record.name for record in catalog.records()}
    picks = picks.assign(tomogram=picks["tomogram"].replace(of_id))
    table = score(picks, truth, radii={key: radii[key] for key in set(truth["class_name"])}).table
    rows: list[dict[str, Any]] = table.reset_index().to_dict("records")
    return [{"model": name, "judge": corpus.name, "tomograms": len(of_id), **row} for row in rows]


def main() -> None:
    """Run the benchmark."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--data", type=Path, help="folder of the real series")
    asked.add_argument("--structures", help="folders with density maps, separated by colons")
    asked.add_argument("--work", type=Path, default=Path("build/models"), help="everything that is made")
    asked.add_argument("--model", action="append", help="only this one; repeat it")
    options = asked.parse_args()
    if options.structures:
        os.environ["TLGEN_STRUCTURES"] = options.structures
    recipes = [*(JUDGES / f"{domain}.yaml" for domain in ("thick", "coarse"))]
    if options.structures:
        recipes.append(OWN)
    for recipe in recipes:
        call("tlgen", "run", recipe, "--to", options.work / "judges" / recipe.stem)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"benchmark": "models"}
    for model in listed([shipped()]):
        if options.model and model.name not in options.model:
            continue
        card = read_card(model.file())
        radii = {info.name: info.radius for info in card.classes if info.is_particle}
        figures[f"{model.name}_bytes"] = model.file().stat().st_size
        for recipe in recipes:
            where = options.work / model.name / recipe.stem
            corpus = options.work / "judges" / recipe.stem
            rows += judged(model.name, radii, corpus, where)
        if options.data is not None:
            work = options.work / model.name
            tomogram, link = options.work / "TS_01.mrc", work / "TS_01.mrc"
            reconstruct(options.data, tomogram)
            if not link.exists():
                link.symlink_to(tomogram.resolve())
            real = cell(options.data, work, model.file())
            for key in ("kept_picks", "recall_rank150_100A", "inside_cell", "average_precision_before"):
                figures[f"{model.name}_{key}"] = real[key]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    for (model_name, judge), part in table.groupby(["model", "judge"]):
        figures[f"{model_name}_{judge}_f1"] = round(float(part["f1"].mean()), 3)
    for name, value in figures.items():
        print(f"{name:40} {value}")
    print(machine())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
