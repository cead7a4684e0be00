"""What twenty minutes of curating give: a shipped model picks, a person judges the picks, the model learns.

    python benchmarks/circle.py                            # 10 minutes for each seed, on two cores
    python benchmarks/circle.py --keep bench/circle        # continues where it stopped

Simulates tomograms of a microscope and a sample that the model `ribosome` was not trained on (`circle.yaml`
beside this file). The model picks in twelve of them. A simulated person goes through the page curate.html as
docs/curating.md advises, the picks nearest to the cut first: 200 picks, six seconds for each, and one verdict
in 33 is wrong. `tltrain finetune` learns from the accepted and the rejected ones; the corpus of the model is
not there, as for every user. The model before and after picks in five other tomograms of that microscope, and
in two such as it was trained on, where it may have forgotten something. F1, precision and recall are those of
the picks that `tlpick run` keeps; average precision is the area under the curve of all picks. Prints a table,
and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine

from catalogs import particles
from catalogs.corpus.catalog import Catalog
from catalogs.seeds import generator
from catalogs.volumes import write_mrc
from tlpick.evaluation.matching import curve, evaluate

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RECIPE = Path(__file__).with_suffix(".yaml")
CLASS = "ribosome"
#: Split of the corpus -> what its tomograms are for.
USES = {"train": "curated", "test": "held-out", "val": "home"}
#: How the table names them.
NAMES = {"held-out": "the other microscope", "home": "as the model was trained"}


def call(program: str, *arguments: object) -> None:
    """Run one of our programs, as a user does; its lines go to stderr."""
    words = [program, *map(str, arguments)]
    print("$", " ".join(words), file=sys.stderr, flush=True)
    code = f"import sys, {program}.cli as cli; sys.argv = {words!r}; cli.main()"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=sys.stderr)


def tomograms_of(corpus: Path, root: Path) -> dict[str, pd.DataFrame]:
    """Write the tomograms as MRC files, in a folder for each use; returns the truth by use."""
    catalog = Catalog.open(str(corpus))
    tables: dict[str, list[pd.DataFrame]] = {use: [] for use in USES.values()}
    for record in sorted(catalog.records(), key=lambda record: record.name):
        use = USES[record.split]
        file = root / use / f"{record.name}.mrc"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            grey = catalog.arrays(record.sample_id)["tomogram"][:]
            write_mrc(file, grey.astype(np.float32), record.acquisition.voxel_size)
        table = catalog.particles(record.sample_id)
        tables[use].append(table[table["class_name"] == CLASS].assign(tomogram=record.name))
    return {use: pd.concat(parts, ignore_index=True) for use, parts in tables.items()}


def curate(page: Path, truth: pd.DataFrame, radius: float, number: int, error: float, seed: int) -> Any:
    """Judge the picks of curate.html that are nearest to the cut; returns the list that the page saves."""
    [text] = re.findall(r'<script type="application/json" id="picks">(.*?)</script>', page.read_text())
    columns = ["tomogram", "class_name", "label", "x", "y", "z", "score", "kept", "near"]
    seen = pd.DataFrame(json.loads(text), columns=columns)
    seen = seen[seen["class_name"] == CLASS].sort_values("near").head(number)
    compared = evaluate(seen, truth, {CLASS: radius}).picks
    right = compared["partner"].to_numpy() >= 0
    wrong_verdict = generator(seed, "curator").random(len(seen)) < error
    verdict = np.where(right ^ wrong_verdict, "accepted", "rejected")
    return compared.assign(verdict=verdict)[[*columns[:7], "verdict"]]


def judged(picks: Path, truth: pd.DataFrame, radius: float) -> dict[str, float]:
    """Compare a run's picks with the truth."""
    kept = every = particles.read(picks / "particles.star")
    if (picks / "particles.all.star").exists():
        every = particles.read(picks / "particles.all.star")
    [score] = evaluate(kept[kept["class_name"] == CLASS], truth, {CLASS: radius}).scores
    ours = every[every["class_name"] == CLASS]
    area = curve(ours, truth, radius).auc
    return {"f1": score.f1, "precision": score.precision, "recall": score.recall, "ap": area}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ribosome", help="by name, or a file")
    parser.add_argument("--picks", type=int, default=200, help="that are judged: 20 minutes at 6 s each")
    parser.add_argument("--error", type=float, default=0.03, help="share of wrong verdicts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, help="a folder to work in; what is there is used")
    parser.add_argument("--options", default="", help="more options of tltrain finetune, for comparison")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = chosen.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        rows = circle(root, chosen)
        seconds = time.monotonic() - begun
    show(pd.DataFrame(rows), chosen, seconds)


def circle(root: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Go round once for each seed; returns a row for each model and kind of tomogram."""
    call("tlgen", "run", RECIPE, "--to", root / "corpus")
    truth = tomograms_of(root / "corpus", root)
    for use in USES.values():
        call("tlpick", "run", chosen.model, root / use, "--to", root / f"before-{use}")
    run = json.loads((root / "before-curated" / "run.json").read_text())
    radius = run["radii"][CLASS]
    rows = [
        {"use": use, "when": "before", "seed": -1} | judged(root / f"before-{use}", truth[use], radius)
        for use in NAMES
    ]
    for seed in chosen.seeds:
        page = root / "before-curated" / "curate.html"
        table = curate(page, truth["curated"], radius, chosen.picks, chosen.error, seed)
        table.to_csv(root / f"curated-{seed}.csv", index=False)
        counts = table["verdict"].value_counts()
        tuned = root / f"tuned-{seed}.tlm"
        call(
            "tltrain", "finetune", chosen.model, "-t", root / "curated", "-p", root / f"curated-{seed}.csv",
            "--to", tuned, "--seed", seed, "--overwrite", *chosen.options.split(),
        )  # fmt: skip
        for use in NAMES:
            picks = root / f"after-{use}-{seed}"
            call("tlpick", "run", tuned, root / use, "--to", picks)
            row: dict[str, Any] = {"use": use, "when": "after", "seed": seed}
            row |= {"accepted": int(counts.get("accepted", 0)), "rejected": int(counts.get("rejected", 0))}
            rows.append(row | judged(picks, truth[use], radius))
    return rows


def show(table: pd.DataFrame, chosen: argparse.Namespace, seconds: float) -> None:
    """Print the table and the figures."""
    measures = ["f1", "precision", "recall", "ap"]
    figures: dict[str, Any] = {"benchmark": "circle"}
    print(f"{'tomograms':26}{'model':>8}" + "".join(f"{m:>11}" for m in measures))
    for use, name in NAMES.items():
        for when in ("before", "after"):
            group = table[(table["use"] == use) & (table["when"] == when)]
            mean = group[measures].mean()
            print(f"{name:26}{when:>8}" + "".join(f"{mean[m]:11.3f}" for m in measures))
            if when == "after" and len(group) > 1:
                low, high = group[measures].min(), group[measures].max()
                print(f"{'':26}{'':>8}" + "".join(f"{low[m]:6.2f}-{high[m]:4.2f}" for m in measures))
            figures |= {f"{m}_{when}_{use}": round(float(mean[m]), 4) for m in measures}
    for name in ("accepted", "rejected"):
        figures[name] = round(float(table[name].mean()), 1)
    figures |= {"seeds": len(chosen.seeds), "seconds": round(seconds)}
    print(f"{figures['accepted']:.0f} picks accepted and {figures['rejected']:.0f} rejected, as means")
    print(machine())
    print(json.dumps(figures | machine().figures()))


if __name__ == "__main__":
    main()
