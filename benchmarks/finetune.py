"""What annotations give: F1 on another microscope's tomograms by how many particles were annotated.

    python benchmarks/finetune.py                          # about 15 minutes on two cores
    python benchmarks/finetune.py --keep bench/ --steps 800 --counts 0 25 50 150
    python benchmarks/finetune.py --seeds 0 1 2            # several draws of annotations

Apoferritin among chaperonins and ribosomes, simulated by multislice (`finetune.yaml` beside this file).
The corpus is near focus with a high dose and wide tilts. The tomograms that are annotated are far under
focus with half of the dose, narrower tilts, and, as files of another program are, blurred, with other
grey values and more noise. A model is trained on the corpus by `tltrain fit`; `tltrain finetune
--learning-curve` tunes it with each number of annotations and, to compare, trains from scratch on the
same ones. F1 is of picks, one to one within the radius, on two tomograms that no training sees. Prints a
table, and as the last line one JSON object of the figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RECIPE = Path(__file__).with_suffix(".yaml")
HELD_OUT = 2


def run(program: str, *arguments: object) -> None:
    """Run one of our programs; its lines go to stderr."""
    code = f"import sys, {program}.cli; sys.argv[0] = {program!r}; {program}.cli.main()"
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=sys.stderr, stderr=sys.stderr
    )


def annotate(corpus: str, folder: Path, blur: float, noise: float, gamma: float) -> list[str]:
    """Write the other microscope's tomograms as MRC files, and their particles as a list; gives names."""
    from scipy.ndimage import gaussian_filter

    from catalogs import particles
    from catalogs.corpus.catalog import Catalog
    from catalogs.intensity import measure
    from catalogs.seeds import generator
    from catalogs.volumes import write_mrc

    catalog = Catalog.open(corpus)
    folder.mkdir(exist_ok=True)
    tables, names = [], []
    for record in sorted(catalog.records(), key=lambda record: record.name):
        if record.split != "test":
            continue
        grey = catalog.arrays(record.sample_id)["tomogram"][:]
        known = measure(grey)
        grey = (grey - known.centre) / known.spread
        grey += noise * generator("noise", record.name).standard_normal(grey.shape)
        grey = gaussian_filter(grey, blur)
        low, high = grey.min(), grey.max()
        grey = ((grey - low) / (high - low)) ** gamma
        write_mrc(folder / f"{record.name}.mrc", grey.astype(np.float32), record.acquisition.voxel_size)
        table = catalog.particles(record.sample_id)
        tables.append(table[table["label"] > 0].assign(tomogram=record.name))
        names.append(record.name)
    sizes = {"voxel_size": record.acquisition.voxel_size, "shape": record.shape}
    particles.write(pd.concat(tables, ignore_index=True), folder / "picks.star", **sizes)
    return names


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 25, 50, 150])
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--base-steps", type=int, default=400, help="of the model to begin with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--unlabelled", default="positive-unlabelled")
    parser.add_argument("--blur", type=float, default=0.7, help="voxels")
    parser.add_argument("--noise", type=float, default=3.0, help="in spreads of the tomogram")
    parser.add_argument("--gamma", type=float, default=0.8)
    parser.add_argument("--keep", type=Path, help="a folder to work in; what is there is used")
    chosen = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        root = chosen.keep or Path(scratch)
        root.mkdir(exist_ok=True)
        began = time.monotonic()
        run("tlgen", "run", RECIPE, "--to", root / "corpus")
        model = root / "base.tlm"
        patch = ("--patch", 32)
        run("tltrain", "fit", root / "corpus", "--to", model, "--steps", chosen.base_steps, *patch)
        names = annotate(str(root / "corpus"), root / "real", chosen.blur, chosen.noise, chosen.gamma)
        held = [word for name in names[-HELD_OUT:] for word in ("--held-out", name)]
        rows = []
        for seed in chosen.seeds:
            folder = root / f"curve-{seed}"
            real = root / "real"
            run(
                *("tltrain", "finetune", model, "-t", real / "*.mrc", "-p", real / "picks.star"),
                *("--to", folder, "--learning-curve", ",".join(map(str, chosen.counts)), *held),
                *("--from-scratch", "--unlabelled", chosen.unlabelled, "--steps", chosen.steps),
                *("--seed", seed, "--trust-contrast", "--max-forgetting", 0.1),
            )
            with open(folder / "curve.csv") as file:
                rows += [row | {"seed": seed} for row in csv.DictReader(file)]
        seconds = time.monotonic() - began

    figures: dict[str, float] = {}
    heads = ("annotations", "training", "F1", "precision", "recall", "F1 simulated")
    print("{:>11}  {:<12}  {:>5}  {:>9}  {:>6}  {:>12}".format(*heads))
    for key, group in pd.DataFrame(rows).groupby(["annotations", "training"], sort=False):
        mean = group[["f1", "precision", "recall", "simulated_f1"]].astype(float).mean()
        print(
            f"{key[0]:>11}  {key[1]:<12}  {mean['f1']:5.3f}  {mean['precision']:9.3f}  "
            f"{mean['recall']:6.3f}  {mean['simulated_f1']:12.3f}"
        )
        name = "tuned" if key[1] == "fine-tuned" else "scratch"
        figures[f"f1_{name}_{key[0]}"] = round(float(mean["f1"]), 4)
        figures[f"simulated_f1_{name}_{key[0]}"] = round(float(mean["simulated_f1"]), 4)
    print(json.dumps(figures | {"seconds": round(seconds), "seeds": len(chosen.seeds)}))


if __name__ == "__main__":
    main()
