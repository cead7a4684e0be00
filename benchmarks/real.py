"""A real cell, from its tilt series to ribosomes, and judges: how well it goes where nobody simulated.

    python benchmarks/real.py --data ../shared/real [--model ribosome.tlm] [--work build/real]
    python benchmarks/real.py --work build/real --report

Reconstructs the series of a Mycoplasma pneumoniae cell (EMPIAR-10499, TS_01), makes a small crowded corpus
and trains a network on it unless a model is given, picks, and compares with silver ribosomes that template
matching found. Then it simulates judges (benchmarks/judges: three domains that training never saw), picks
there with ``--fdr 0.1`` and counts which share is wrong in truth. What is done is not done again; the figures
of the last whole run are kept with its commit and its machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine
from scipy.spatial import cKDTree

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from tlpick.evaluation.matching import evaluate
from tlpick.output.gallery import in_order

JUDGES = Path(__file__).parent / "judges"
DOMAINS = ("thick", "plate", "coarse")
#: The silver list that is at hand covers y below this, Å; what it judges lies there.
HALF = 3150.0
NEAR = 100.0
#: Membranes of the cell as seen in slices: y, and x of the left and of the right one, Å.
CELL = np.array(
    [[0, 450, 4500], [800, 420, 4900], [1600, 600, 5280], [2400, 800, 5600], [3200, 1150, 5900],
     [4000, 1500, 6400], [5600, 2350, 6900], [6300, 2550, 6900]], float,
)  # fmt: skip


def call(*command: object) -> None:
    """Run one of the programs, as a user does."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    code = f"import sys, {words[0]}.cli as cli; sys.argv = {words!r}; cli.main()"
    subprocess.run([sys.executable, "-c", code], check=True)


def inside_cell(table: pd.DataFrame) -> np.ndarray:
    """Tell which picks lie between the membranes."""
    y, left, right = CELL.T
    inside: np.ndarray = (table["x"] > np.interp(table["y"], y, left)) & (
        table["x"] < np.interp(table["y"], y, right)
    )
    return np.asarray(inside)


def found(table: pd.DataFrame, silver: np.ndarray) -> float:
    """Share of silver places with a pick within :data:`NEAR`."""
    if not len(table):
        return 0.0
    far = cKDTree(table[["x", "y", "z"]].to_numpy(np.float64)).query(silver)[0]
    return float((far <= NEAR).mean())


def average_precision(table: pd.DataFrame, silver: np.ndarray) -> float:
    """Area under precision over recall of the silver places in this half, the best picks first."""
    ours = in_order(table[table["y"] < HALF])
    far, nearest = cKDTree(silver).query(ours[["x", "y", "z"]].to_numpy(np.float64))
    seen: set[int] = set()
    right = np.zeros(len(ours), bool)
    for k, (distance, which) in enumerate(zip(far, nearest, strict=True)):
        if distance <= NEAR and which not in seen:
            seen.add(int(which))
            right[k] = True
    precision = right.cumsum() / np.arange(1, len(ours) + 1)
    return float((precision * right).sum() / len(silver))


def reconstruct(data: Path, tomogram: Path) -> None:
    """Reconstruct the real series, unless that is done."""
    if not tomogram.exists():
        call(
            "tlgen", "reconstruct", data / "TS_01.ali", "--angles", data / "TS_01.tlt", "--to", tomogram,
            "--voxel-size", 10, "--thickness", 2400,
        )  # fmt: skip


def cell(data: Path, work: Path, model: Path) -> dict[str, Any]:
    """Pick in the real cell."""
    tomogram = work / "TS_01.mrc"
    reconstruct(data, tomogram)
    picks = work / "picks"
    call("tlpick", "run", model, tomogram, "--to", picks)
    kept, every = (particles.read(picks / "TS_01" / f"particles{which}.star") for which in ("", ".all"))
    listed = pd.read_csv(data / "silver_ribosomes_y_below_3150A.csv")
    places = listed[["x_A", "y_A", "z_A"]].to_numpy(np.float64)
    surest = places[listed["rank"].to_numpy() <= 150]
    best = in_order(every)
    done = json.loads((picks / "TS_01" / "done.json").read_text())
    return {
        "kept_picks": len(kept),
        "all_picks": len(every),
        "picks_at_fdr_0.1": int((every["wrong"] <= 0.1).sum()),
        "recall_rank150_100A": round(found(kept, surest), 3),
        "recall_best500_100A": round(found(best[:500], surest), 3),
        "recall_best700_100A": round(found(best[:700], surest), 3),
        "expected_wrong": _greatest(kept, "wrong"),
        "expected_wrong_at_most": _greatest(kept, "wrong_at_most"),
        "hand": done["hands"].get("ribosome"),
        "inside_cell": round(float(inside_cell(kept).mean()), 3) if len(kept) else 0.0,
        "average_precision_before": round(average_precision(every, places), 3),
        "differs": done["differs"],
        "ice": done["ice"],
        "beads": done["beads"],
        "pick_seconds": round(sum(done["seconds"].values())),
    }


def _greatest(table: pd.DataFrame, column: str) -> float | None:
    return round(float(table[column].max()), 3) if len(table) and column in table else None


def judges(work: Path, model: Path) -> dict[str, Any]:
    """Compare the promised share of wrong picks with the true one on simulated tomograms of other domains."""
    rows = []
    for domain in DOMAINS:
        corpus, picks = work / "judges" / domain, work / "judged" / domain
        call("tlgen", "run", JUDGES / f"{domain}.yaml", "--to", corpus)
        call("tlpick", "run", model, corpus, "--to", picks, "--rescale", "--trust-contrast", "--fdr", 0.1)
        catalog = Catalog.open(str(corpus))
        every, tenth = (particles.read(picks / f"particles{which}.star") for which in _lists(picks))
        run = json.loads((picks / "run.json").read_text())
        for record in catalog.records():
            truth = catalog.particles(record.sample_id).assign(tomogram=record.sample_id)
            truth = truth[truth["label"] != 0]
            radii = {name: run["radii"][name] for name in set(truth["class_name"]) & set(run["radii"])}
            row: dict[str, Any] = {"domain": domain, "sample": record.name, "truth": len(truth)}
            for word, table in (("all", every), ("tenth", tenth)):
                ours = table[(table["tomogram"] == record.sample_id) & table["class_name"].isin(list(radii))]
                compared = evaluate(ours, truth[truth["class_name"].isin(list(radii))], radii)
                right = int((compared.picks["partner"] >= 0).sum())
                row |= {f"{word}_picks": len(ours), f"{word}_right": right}
            rows.append(row)
    table = pd.DataFrame(rows)
    some = table[table["tenth_picks"] > 0]
    wrong = 1 - some["tenth_right"] / some["tenth_picks"]
    print(table.assign(wrong=wrong.round(3)).to_string(index=False))
    return {
        "judges": len(table),
        "judges_with_a_promise": len(some),
        "fdr_error_median": round(float((wrong - 0.1).abs().median()), 3) if len(some) else None,
        "fdr_median": round(float(wrong.median()), 3) if len(some) else None,
        "fdr_worst": round(float(wrong.max()), 3) if len(some) else None,
        "judges_f1": round(
            float(2 * table["all_right"].sum() / (table["all_picks"] + table["truth"]).sum()), 3
        ),
    }


def _lists(picks: Path) -> tuple[str, str]:
    """Tell the endings of the lists of all and of kept picks; they are one list if all were kept."""
    return (".all" if (picks / "particles.all.star").exists() else "", "")


def main() -> None:
    """Run the benchmark."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--data", type=Path, default=Path("../shared/real"))
    asked.add_argument("--work", type=Path, default=Path("build/real"), help="everything that is made")
    asked.add_argument("--model", type=Path, help="instead of training one")
    asked.add_argument("--only", choices=["cell", "judges"], help="one of the two parts")
    asked.add_argument("--report", action="store_true", help="print the figures of the last whole run")
    options = asked.parse_args()
    kept = options.work / "figures.json"
    if options.report:
        figures = json.loads(kept.read_text())
    else:
        options.work.mkdir(parents=True, exist_ok=True)
        model = options.model or options.work / "cell.tlm"
        if options.model is None:
            call("tlgen", "run", options.data / "cell.yaml", "--to", options.work / "corpus")
            call(
                "tltrain", "fit", options.work / "corpus", "--to", model, "--network", "small",
                "--steps", 1500, "--patch", 48, "--batch", 8,
            )  # fmt: skip
        figures = {"benchmark": "real", "model": str(model)}
        if options.only != "judges":
            figures |= cell(options.data, options.work, model)
        if options.only != "cell":
            figures |= judges(options.work, model)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        )
        figures |= {"commit": commit.stdout.strip(), "machine": str(machine())}
        if options.only is None:
            kept.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
