"""Choosing among models without labels: how well estimates rank models whose quality is known.

    python benchmarks/choose.py --data ../shared/real [--work build/choose] [--models 8]
    python benchmarks/choose.py --report

Trains small networks on corpora that differ in crowding, contrast and number of steps, picks with each of
them in a real cell (EMPIAR-10499, TS_01) and in simulated judges (benchmarks/judges), and compares what
``tlpick check`` with several models estimates (right picks by the mirror image and by decoys) with the
average precision against silver ribosomes and against the truth. What is done is not done again, and the
table grows with every model: benchmarks/results/choose.csv, with commit, machine and date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from machine import machine
from real import DOMAINS, JUDGES, average_precision, call, reconstruct
from scipy.stats import spearmanr

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from tlpick.batch.pipeline import Settings
from tlpick.batch.rank_models import estimate
from tlpick.evaluation.matching import evaluate
from tlpick.network.tomograms.intake import Preprocessing
from tlpick.output.gallery import in_order

RESULTS = Path(__file__).parent / "results" / "choose.csv"
TARGET = "ribosome"


@dataclass(frozen=True)
class Candidate:
    """A model to train: a corpus by name, and the number of steps."""

    corpus: str
    steps: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.corpus}-{self.steps}"


#: Corpora that differ from the demo's in a few keys; ``cell`` is cell.yaml of the data.
CORPORA: dict[str, dict[str, Any]] = {
    "crowded": {"acquisition": {"contrast": "physical"}},
    "parakeet": {"acquisition": {"contrast": "parakeet"}},
    "dilute": {
        "acquisition": {"contrast": "physical"},
        "packing": {"gap": 20, "fill": "counts"},
        "distractors": [{"file": "4v1w", "count": 8}, {"file": "3enl", "count": 8}],
    },
}
CANDIDATES = tuple(
    Candidate(corpus, steps) for steps in (150, 800) for corpus in ("crowded", "dilute", "parakeet", "cell")
)


def trained(candidate: Candidate, data: Path, work: Path) -> Path:
    """Make the corpus and train the network, unless it is there."""
    model, corpus = work / f"{candidate.name}.tlm", work / f"corpus-{candidate.corpus}"
    if model.exists():
        return model
    recipe = data / "cell.yaml"
    if candidate.corpus in CORPORA:
        recipe = work / f"{candidate.corpus}.yaml"
        changes = CORPORA[candidate.corpus]
        groups = {
            "train": {"number": 9}, "check": {"number": 2, "split": "val"}, "train-dilute": None,
            "train-parakeet": None, "held-out": None,
        }  # fmt: skip
        words = {"extends": "demo", "name": candidate.corpus, "samples": groups, **changes}
        recipe.write_text(yaml.safe_dump(words))
    call("tlgen", "run", recipe, "--to", corpus)
    call(
        "tltrain", "fit", corpus, "--to", model, "--network", "small", "--steps", candidate.steps,
        "--patch", 48, "--batch", 8,
    )  # fmt: skip
    return model


def in_cell(model: Path, data: Path, work: Path) -> dict[str, float]:
    """Pick in the real cell; estimates, and average precision against silver ribosomes."""
    tomogram = work / "TS_01.mrc"
    reconstruct(data, tomogram)
    folder = work / "cell" / model.stem
    found = estimate(str(model), [str(tomogram)], str(folder), [TARGET], Settings())
    listed = pd.read_csv(data / "silver_ribosomes_y_below_3150A.csv")
    every = particles.read(folder / "TS_01" / "particles.all.star")
    return {
        "cell_picks": found.right.picks,
        "cell_by_mirror": round(found.right.by_mirror, 1),
        "cell_by_decoys": round(found.right.by_decoys, 1),
        "cell_ap": round(average_precision(every, listed[["x_A", "y_A", "z_A"]].to_numpy(np.float64)), 4),
    }


def in_judges(model: Path, work: Path, domains: list[str]) -> dict[str, float]:
    """Pick in judges; estimates, and average precision against the truth of all of them together."""
    total = {"judges_picks": 0.0, "judges_by_mirror": 0.0, "judges_by_decoys": 0.0}
    precisions = []
    for domain in domains:
        corpus, folder = work / "judges" / domain, work / "judged" / domain / model.stem
        call("tlgen", "run", JUDGES / f"{domain}.yaml", "--to", corpus)
        settings = Settings(preprocessing=Preprocessing(rescale=True, trust_contrast=True))
        found = estimate(str(model), [str(corpus)], str(folder), [TARGET], settings)
        total["judges_picks"] += found.right.picks
        total["judges_by_mirror"] += found.right.by_mirror
        total["judges_by_decoys"] += found.right.by_decoys
        catalog = Catalog.open(str(corpus))
        for record in catalog.records():
            truth = catalog.particles(record.sample_id).assign(tomogram=record.sample_id)
            truth = truth[truth["class_name"] == TARGET]
            picks = particles.read(folder / record.sample_id / "particles.all.star")
            precisions.append(against_truth(picks[picks["class_name"] == TARGET], truth))
    return {
        **{key: round(value, 1) for key, value in total.items()},
        "judges_ap": round(float(np.mean(precisions)), 4),
    }


def against_truth(picks: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Average precision of picks, the best first, one to one with the true particles."""
    if not len(picks):
        return 0.0
    ours = in_order(picks).reset_index(drop=True)
    paired = evaluate(ours.assign(tomogram=truth["tomogram"].iloc[0]), truth, {TARGET: 108.0})
    right = paired.picks["partner"].to_numpy() >= 0
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float((precision * right).sum() / len(truth))


def correlations(table: pd.DataFrame) -> dict[str, float | None]:
    """Rank correlation of each estimate with each average precision (Spearman)."""
    found: dict[str, float | None] = {"models": len(table)}
    for place in ("cell", "judges"):
        for way in ("by_mirror", "by_decoys"):
            columns = [f"{place}_{way}", f"{place}_ap"]
            known = table[columns].dropna() if set(columns) <= set(table) else pd.DataFrame()
            value = float(spearmanr(*known.to_numpy().T).statistic) if len(known) > 2 else float("nan")
            found[f"{place}_{way}_rank_correlation"] = None if np.isnan(value) else round(value, 3)
    return found


def main() -> None:
    """Run the benchmark."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--data", type=Path, default=Path("../shared/real"))
    asked.add_argument("--work", type=Path, default=Path("build/choose"), help="everything that is made")
    asked.add_argument("--judges", nargs="*", choices=DOMAINS, default=list(DOMAINS), help="domains")
    asked.add_argument("--models", type=int, default=len(CANDIDATES), help="only the first so many")
    asked.add_argument("--report", action="store_true", help="print the kept table only")
    options = asked.parse_args()
    if not options.report:
        options.work.mkdir(parents=True, exist_ok=True)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip()
        rows = []
        for candidate in CANDIDATES[: options.models]:
            model = trained(candidate, options.data, options.work)
            row: dict[str, Any] = {"model": candidate.name, "steps": candidate.steps}
            row |= in_cell(model, options.data, options.work)
            if options.judges:
                row |= in_judges(model, options.work, options.judges)
            rows.append(row | {"commit": commit, "date": date.today().isoformat(), "machine": str(machine())})
            RESULTS.parent.mkdir(exist_ok=True)
            pd.DataFrame(rows).to_csv(RESULTS, index=False)
            print(row, flush=True)
    table = pd.read_csv(RESULTS)
    print(table.drop(columns=["commit", "date", "machine"]).to_string(index=False))
    print(json.dumps({"benchmark": "choose", **correlations(table)}))


if __name__ == "__main__":
    main()
