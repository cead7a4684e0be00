"""Template matching by pyTME beside our picks: simulated judges with truth, and a real cell.

    python benchmarks/template_matching.py --pytme /path/to/pytme [--model ribosome] [--work build/matching]
    python benchmarks/template_matching.py --pytme /path/to/pytme --data ../shared/real --only real
    python benchmarks/template_matching.py --report

pyTME (``pip install pytme`` in an environment of its own; GPL-2.0-only, run as a program, never imported)
searches a 70S ribosome (4v5d, which Parakeet ships) at 20 Å a voxel with steps of 9.7°, with the wedge and
the contrast transfer of the tilts, a spherical mask that fits the particle, its background correction by
phase scrambling, and its own peak caller. Its cut-off is the best one by truth, judge by judge, which no user
knows; ours is the program's own. The real cell has no truth: its silver list came from template matching with
an average of this very ribosome, so that it favours template matching.

For both: precision, recall and F1 one to one within 100 Å; the share of side views among the particles that
were found, less that among all; picks at gold beads; CPU seconds. What is done is not done again. Prints a
table, and as the last line one JSON object, which is kept in ``benchmarks/results/template_matching.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine
from numpy.typing import NDArray
from readme_figures import RESULTS, keep
from real import DOMAINS, HALF, JUDGES, call, found, inside_cell, reconstruct
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from catalogs import open_volume, particles, write_mrc
from catalogs.corpus.catalog import Catalog
from catalogs.schema import Acquisition, SampleRecord
from tlgen.molecules.structures import load_structure
from tlgen.tilts.scheme import tilt_series
from tlpick.evaluation.matching import evaluate
from tlpick.network.tomograms.intake import resample

CLASS = "ribosome"
STRUCTURE = "4v5d"
VOXEL, STEP, NEAR = 20.0, 9.7, 100.0
#: Å: radius of the mask around the template, and the least distance of two peaks.
RADIUS, APART = 160.0, 160.0
#: Å: a pick that near to gold is a pick of gold.
AT_GOLD = 100.0


def children_cpu() -> float:
    """Return CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_pytme(pytme: Path, *words: object) -> float:
    """Run pyTME; returns its CPU seconds."""
    before = children_cpu()
    command = [str(pytme), *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return children_cpu() - before


def template(pytme: Path, work: Path) -> tuple[Path, Path]:
    """Make the template and its mask; returns their files."""
    density, mask = work / "template.mrc", work / "mask.mrc"
    if not density.exists():
        package = importlib.util.find_spec("parakeet")
        assert package is not None, "Parakeet is not installed"
        assert package.origin is not None
        atoms = Path(package.origin).parent / "data" / "files" / f"{STRUCTURE}.cif"
        run_pytme(
            pytme, "template", "-m", atoms, "-o", density, "--sampling-rate", VOXEL, "--lowpass", 2 * VOXEL,
            "--box-size", 2 * math.ceil(RADIUS / VOXEL) + 4,
        )  # fmt: skip
    if not mask.exists():
        shape = open_volume(density).shape
        grid = np.indices(shape) - (np.array(shape)[:, None, None, None] // 2)
        far = np.sqrt((grid**2).sum(axis=0)) * VOXEL
        write_mrc(mask, np.exp(-0.5 * (np.maximum(far - RADIUS, 0) / VOXEL) ** 2).astype(np.float32), VOXEL)
    return density, mask


def match(
    pytme: Path, work: Path, volume: NDArray[np.float32], acquisition: Acquisition, peaks: int
) -> tuple[pd.DataFrame, float]:
    """Search the template in a tomogram of 20 Å voxels; returns peaks with their scores, and CPU seconds."""
    work.mkdir(parents=True, exist_ok=True)
    kept, cost = work / "peaks.csv", work / "cpu.json"
    if not (kept.exists() and cost.exists()):
        density, mask = template(pytme, work.parent)
        tomogram, tilts = work / "tomogram.mrc", work / "tilts.tlt"
        write_mrc(tomogram, volume, VOXEL)
        angles = sorted(tilt.angle for tilt in tilt_series(acquisition))
        tilts.write_text("".join(f"{angle:.2f}\n" for angle in angles))
        cpu = run_pytme(
            pytme, "match", "-m", tomogram, "-i", density, "-I", mask, "-o", work / "scores.pickle",
            "--invert-target-contrast", "-a", STEP, "-n", 2, "--tilt-angles", tilts, "--wedge-axes", "2,1",
            "--defocus", acquisition.defocus * 1e4, "--amplitude-contrast", acquisition.amplitude_contrast,
            "--spherical-aberration", acquisition.spherical_aberration * 1e7,
            "--acceleration-voltage", acquisition.voltage, "--phase-shift", phase_shift(acquisition),
            "--ctf-correction", "raw", "--background-correction", "phase-scrambling", "--pad-edges",
        )  # fmt: skip
        cpu += run_pytme(
            pytme, "postprocess", "--input-file", work / "scores.pickle", "--output-prefix", work / "peaks",
            "--output-format", "orientations", "--min-distance", round(APART / VOXEL), "--num-peaks", peaks,
        )  # fmt: skip
        listed = pd.read_csv(next(work.glob("peaks*.tsv")), sep="\t")
        places = listed[["x", "y", "z"]] * VOXEL
        places.assign(score=listed["score"]).to_csv(kept, index=False)
        cost.write_text(json.dumps(cpu))
    return pd.read_csv(kept), float(json.loads(cost.read_text()))


def phase_shift(acquisition: Acquisition) -> float:
    """Return the phase plate's shift, degrees."""
    return acquisition.phase_shift if acquisition.phase_plate else 0.0


def as_picks(table: pd.DataFrame, tomogram: str) -> pd.DataFrame:
    """Make peaks a particle table."""
    return table.assign(class_name=CLASS, tomogram=tomogram)


def best_cut(peaks: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Keep the peaks above the score that gives the best F1 with the truth."""
    best, kept = -1.0, peaks[:0]
    ranked = peaks.sort_values("score", ascending=False)
    for n in range(1, len(ranked) + 1):
        f1 = evaluate(ranked[:n], truth, {CLASS: NEAR}).scores[0].f1
        if f1 > best:
            best, kept = f1, ranked[:n]
    return kept


def is_side_view(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which particles show their side: their longest axis lies within 30° of the plane of the slab."""
    atoms = load_structure(STRUCTURE).positions
    _, axes = np.linalg.eigh(np.cov(atoms.T))
    turns = Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy(np.float64))
    along: NDArray[np.bool_] = np.abs(turns.apply(axes[:, -1])[:, 2]) < 0.5
    return along


def gold(catalog: Catalog, record: SampleRecord) -> NDArray[np.float64]:
    """Return centres (x, y, z) of a sample's gold beads, Å."""
    from scipy.ndimage import center_of_mass
    from scipy.ndimage import label as numbered

    of = {info.name: info.label for info in catalog.classes}
    if "gold" not in of:
        return np.empty((0, 3))
    pieces, n = numbered(np.asarray(catalog.arrays(record.sample_id)["classes"][...]) == of["gold"])
    centres = np.array(center_of_mass(pieces > 0, pieces, range(1, n + 1))).reshape(-1, 3)
    return centres[:, ::-1] * catalog.voxel_size


def judged(
    who: str, picks: pd.DataFrame, truth: pd.DataFrame, beads: NDArray[np.float64], **more: Any
) -> dict[str, Any]:
    """Compare picks with the truth of one tomogram: a row of the table."""
    compared = evaluate(picks, truth, {CLASS: NEAR})
    seen = truth.reset_index(drop=True)[compared.truth["partner"].to_numpy() >= 0]
    at_gold = 0
    if len(beads) and len(picks):
        at_gold = int((cKDTree(beads).query(picks[["x", "y", "z"]])[0] < AT_GOLD).sum())
    return {
        **more,
        "who": who,
        "truth": len(truth),
        "picks": len(picks),
        "right": len(seen),
        "side_of_truth": int(is_side_view(truth).sum()),
        "side_of_right": int(is_side_view(seen).sum()) if len(seen) else 0,
        "at_gold": at_gold,
    }


def judges(pytme: Path, model: str, work: Path, domains: list[str], most: int) -> pd.DataFrame:
    """Pick in simulated tomograms by both; a row for each tomogram and program."""
    rows = []
    for domain in domains:
        corpus, picks, cost = work / "judges" / domain, work / model / domain, work / model / f"{domain}.json"
        call("tlgen", "run", JUDGES / f"{domain}.yaml", "--to", corpus)
        if not cost.exists():
            before = children_cpu()
            call("tlpick", "run", model, corpus, "--to", picks, "--rescale", "--trust-contrast")
            cost.write_text(json.dumps(children_cpu() - before))
        catalog = Catalog.open(str(corpus))
        records = sorted(catalog.records(), key=lambda record: record.name)
        every = particles.read(picks / "particles.star")
        ours_cpu = float(json.loads(cost.read_text())) / len(records)
        for record in records[:most]:
            truth = catalog.particles(record.sample_id).assign(tomogram=record.sample_id)
            truth = truth[truth["class_name"] == CLASS]
            names = [record.sample_id, record.name]
            ours = every[every["tomogram"].isin(names) & (every["class_name"] == CLASS)]
            values = np.asarray(catalog.arrays(record.sample_id)["tomogram"][...], np.float32)
            peaks, cpu = match(
                pytme,
                work / "pytme" / f"{domain}-{record.name}",
                resample(values, catalog.voxel_size, VOXEL),
                record.acquisition,
                3 * len(truth) + 20,
            )
            theirs = best_cut(as_picks(peaks, record.sample_id), truth)
            beads = gold(catalog, record)
            more = {"domain": domain, "tomogram": record.name}
            ours = ours.assign(tomogram=record.sample_id)
            rows.append(judged("ours", ours, truth, beads, cpu_s=ours_cpu, **more))
            rows.append(judged("pyTME", theirs, truth, beads, cpu_s=cpu, **more))
            print(pd.DataFrame(rows[-2:]).to_string(index=False), flush=True)
    return pd.DataFrame(rows)


def figures_of(table: pd.DataFrame) -> dict[str, Any]:
    """Sum up the judges."""
    figures: dict[str, Any] = {}
    for who, word in (("ours", "ours"), ("pyTME", "template_matching")):
        rows = table[table["who"] == who]
        total = rows[["truth", "picks", "right", "side_of_truth", "side_of_right", "at_gold"]].sum()
        figures |= {
            f"precision_{word}": round(float(total["right"] / max(total["picks"], 1)), 3),
            f"recall_{word}": round(float(total["right"] / total["truth"]), 3),
            f"f1_{word}": round(float(2 * total["right"] / (total["picks"] + total["truth"])), 3),
            f"side_view_bias_{word}": round(
                float(
                    total["side_of_right"] / max(total["right"], 1) - total["side_of_truth"] / total["truth"]
                ),
                3,
            ),
            f"beads_among_picks_{word}": int(total["at_gold"]),
            f"cpu_s_{word}": round(float(rows["cpu_s"].mean()), 1),
        }
    return figures | {
        "judges": int(len(table) / 2),
        "f1_minus_template_matching": round(figures["f1_ours"] - figures["f1_template_matching"], 3),
        "beads_among_picks": figures["beads_among_picks_ours"],
        "cpu_ratio": round(figures["cpu_s_template_matching"] / figures["cpu_s_ours"], 2),
    }


def real(pytme: Path, model: str, work: Path, data: Path) -> dict[str, Any]:
    """Pick in the real cell by both, and compare with the silver list."""
    tomogram, picks, cost = work / "TS_01.mrc", work / model / "real", work / model / "real.json"
    reconstruct(data, tomogram)
    if not cost.exists():
        before = children_cpu()
        call("tlpick", "run", model, tomogram, "--to", picks)
        cost.write_text(json.dumps(children_cpu() - before))
    ours = particles.read(picks / "TS_01" / "particles.star")
    angles = [float(line) for line in (data / "TS_01.tlt").read_text().split()]
    acquisition = Acquisition(
        tilt_scheme="listed", tilt_series=" ".join(f"{angle:g}" for angle in angles), defocus=1.8, dose=120.0,
        tilt_min=min(angles), tilt_max=max(angles),
    )  # fmt: skip
    values = np.asarray(open_volume(tomogram).read(), np.float32)
    peaks, cpu = match(pytme, work / "pytme" / "real", resample(values, 10.0, VOXEL), acquisition, len(ours))
    listed = pd.read_csv(data / "silver_ribosomes_y_below_3150A.csv")
    surest = listed.loc[listed["rank"] <= 150, ["x_A", "y_A", "z_A"]].to_numpy(np.float64)
    figures: dict[str, Any] = {"real_picks": len(ours), "real_half_A": HALF}
    ranked = peaks.sort_values("score", ascending=False)[: len(ours)]
    for word, table, spent in (
        ("ours", ours, float(json.loads(cost.read_text()))),
        ("template_matching", ranked, cpu),
    ):
        figures |= {
            f"real_recall_rank150_{word}": round(found(table, surest), 3),
            f"real_inside_cell_{word}": round(float(inside_cell(table).mean()), 3),
            f"real_cpu_s_{word}": round(spent, 1),
        }
    return figures


def main() -> None:
    """Run the benchmark."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--pytme", type=Path, help="the program pytme")
    asked.add_argument("--model", default="ribosome")
    asked.add_argument("--data", type=Path, help="folder of the real series")
    asked.add_argument("--work", type=Path, default=Path("build/matching"), help="everything that is made")
    asked.add_argument("--only", choices=["judges", "real"])
    asked.add_argument("--domain", action="append", choices=DOMAINS, help="of the judges [all of them]")
    asked.add_argument("--most", type=int, default=8, help="tomograms of each domain")
    asked.add_argument("--report", action="store_true", help="print what is kept, and measure nothing")
    options = asked.parse_args()
    if options.report:
        for processor, entry in json.loads((RESULTS / "template_matching.json").read_text()).items():
            print(f"{entry['command']}\n  {processor}; commit {entry['commit']}, {entry['date']}")
            print(json.dumps(entry["figures"]))
        return
    if options.pytme is None:
        asked.error("name the program with --pytme")
    options.work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    if options.only != "real":
        table = judges(
            options.pytme, options.model, options.work, options.domain or list(DOMAINS), options.most
        )
        print(table.to_string(index=False))
        figures |= figures_of(table)
    if options.only != "judges" and options.data is not None:
        figures |= real(options.pytme, options.model, options.work, options.data)
    for name, value in figures.items():
        print(f"{name:36} {value}")
    keep("template_matching", sys.argv[1:], figures)
    print(json.dumps(figures | {"machine": str(machine())}))


if __name__ == "__main__":
    main()
