"""What the engine itself costs: many tiny samples by the real pipeline, on two local worker processes.

    python benchmarks/engine.py
    python benchmarks/engine.py --samples 40 --demo 0

The samples are small boxes of two kinds of balls, each packed, simulated tilt by tilt, reconstructed,
labelled and committed to a corpus on disk, as ``tlgen run`` does it. Some samples are made first, so that all
processes have imported and compiled what they need; that time is told apart. Of the others are measured

- workers busy: the time for which a worker process was taken by a call, of all its time;
- overhead: all of the workers' time but that inside the functions of the pipeline;
- the same in CPU time, which what else the machine does hardly changes: of Dask, the driver and the worker
  processes, of all that was spent;
- scheduler: CPU time of the driver's process a call. Client, scheduler and the driver all live in it, so the
  scheduler takes less.

Then some samples of the demo are made by one worker and by two. Prints tables, and as the last line one JSON
object of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from catalogs.corpus.catalog import Catalog
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import read_recipe
from tlgen.recipes.samples import SampleSpec, expand
from tlgen.runs import prepare_structures
from tlgen.runs.bookkeeping import Bookkeeping
from tlgen.runs.jobs import sample_job
from tlrun.cluster.connect import open_cluster
from tlrun.fan_out import Progress, fan_out

WARM = 6  # samples


def write_ball(path: Path, radius: float, seed: int) -> None:
    """Write a PDB file of a ball of carbon atoms, about as dense as a protein."""
    rng = np.random.default_rng(seed)
    n = int(4 / 3 * np.pi * radius**3 / 18)
    xyz = rng.uniform(-radius, radius, (20 * n, 3))
    xyz = xyz[np.linalg.norm(xyz, axis=1) < radius][:n]
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(xyz)
    ]
    path.write_text("\n".join([*lines, "END", ""]))


def tiny(folder: Path, samples: int, tilt_step: float) -> Recipe:
    """Write and read a recipe of tiny samples."""
    write_ball(folder / "big.pdb", 40, 0)
    write_ball(folder / "small.pdb", 25, 1)
    content: dict[str, Any] = {
        "name": "tiny",
        "shape": [20, 40, 40],
        "targets": {"big": {"structures": ["big.pdb"], "count": 4, "variants": {"number": 0}}},
        "distractors": [{"file": "small.pdb", "count": 6}],
        "acquisition": {
            "engine": "multislice",
            "voxel_size": 10,
            "tilt_range": 60,
            "tilt_step": tilt_step,
            "dose": {"min": 80, "max": 140},
        },
        "samples": {"train": {"number": samples}},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    return read_recipe(str(folder / "tiny.yaml"))


def cpu_seconds() -> dict[str, float]:
    """CPU seconds so far of this process, of the workers, and of the workers' children."""
    spent = {"driver": time.process_time(), "workers": 0.0, "children": 0.0}
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline())
        kind = "children" if "tlrun.child" in line else "workers" if "spawn_main" in line else ""
        if kind:
            spent[kind] += sum(process.cpu_times()[:2])
    return spent


def measured(recipe: Recipe, specs: list[SampleSpec], workers: int, warm: int) -> dict[str, float]:
    """Make samples in a corpus of their own; measure all but the first few."""
    wanted = prepare_structures.preparations(recipe)
    with tempfile.TemporaryDirectory() as folder, open_cluster(f"local:{workers}") as client:
        begin = time.monotonic()
        catalog = Catalog.create(
            folder + "/corpus", classes=prepare_structures.class_infos(recipe), recipe={}, name=recipe.name
        )
        classes = tuple(info.name for info in catalog.classes)
        prepared = [prepare_structures.prepare(catalog.url, p) for p in wanted]

        def make(some: list[SampleSpec]) -> Progress:
            with Bookkeeping(catalog.url) as book:
                summary = fan_out(
                    (sample_job(catalog.url, spec, prepared, classes, {}) for spec in some),
                    client,
                    keep_results=False,
                    on_result=lambda name, _: book.made(name),
                )
            assert summary.done == len(some), summary.failures
            assert summary.progress is not None
            return summary.progress

        make(specs[:warm])
        start = time.monotonic() - begin
        before = cpu_seconds()
        progress = make(specs[warm:])
        after = cpu_seconds()
        assert len(Catalog.open(catalog.url).records()) == len(specs)

    calls = sum(progress.calls_done.values())
    inside = sum(progress.call_seconds.values())
    cpu = {kind: after[kind] - before[kind] for kind in after}
    return {
        "samples": len(specs) - warm,
        "calls": calls,
        "seconds": progress.seconds,
        "start_seconds": start,
        "ms_inside_a_call": 1e3 * inside / calls,
        "cpu_seconds_a_sample": cpu["children"] / (len(specs) - warm),
        "workers_busy_share": progress.occupied_seconds / progress.worker_seconds,
        "overhead_share": 1 - inside / progress.worker_seconds,
        "overhead_cpu_share": (cpu["driver"] + cpu["workers"]) / sum(cpu.values()),
        "scheduler_ms_a_call": 1e3 * cpu["driver"] / calls,
        "worker_shell_ms_a_call": 1e3 * cpu["workers"] / calls,
        "samples_an_hour": 3600 * (len(specs) - warm) / progress.seconds,
        "load": os.getloadavg()[0],
    }


def specs_of(recipe: Recipe) -> list[SampleSpec]:
    """Expand a recipe."""
    return expand(recipe, {p.key: p.count for p in prepare_structures.preparations(recipe)})


def main() -> None:
    parser = argparse.ArgumentParser(description="What the engine itself costs.")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tilt-step", type=float, default=12.0, metavar="°")
    parser.add_argument("--demo", type=int, default=4, help="samples of the demo's group train; 0: none")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    figures: dict[str, float] = {}
    if given.samples:
        with tempfile.TemporaryDirectory() as folder:
            recipe = tiny(Path(folder), WARM + given.samples, given.tilt_step)
            figures = measured(recipe, specs_of(recipe), given.workers, WARM)
        print(
            f"{given.samples} tiny samples, {figures['calls']:.0f} calls of "
            f"{figures['ms_inside_a_call']:.0f} ms, {given.workers} workers, in {figures['seconds']:.0f} s "
            f"(start and {WARM} samples before: {figures['start_seconds']:.0f} s)\n"
            f"  workers busy            {100 * figures['workers_busy_share']:6.1f} %\n"
            f"  overhead                {100 * figures['overhead_share']:6.1f} % of the wall time\n"
            f"                          {100 * figures['overhead_cpu_share']:6.1f} % of the CPU time\n"
            f"  driver and scheduler    {figures['scheduler_ms_a_call']:6.1f} CPU-ms a call\n"
            f"  a worker's own process  {figures['worker_shell_ms_a_call']:6.1f} CPU-ms a call\n"
            f"  load of the machine     {figures['load']:6.1f}"
        )
    if given.demo:
        recipe = read_recipe("demo")
        train = [spec for spec in specs_of(recipe) if spec.name.startswith("train-0")]
        print(f"\nthe demo's group train, {given.demo} samples after one that is not counted")
        print("workers  samples/hour  CPU-s/sample  workers busy  overhead (wall)  load")
        for workers in (1, 2):
            found = measured(recipe, train[: given.demo + 1], workers, 1)
            print(
                f"{workers:7} {found['samples_an_hour']:13.1f} {found['cpu_seconds_a_sample']:13.1f}"
                f"{100 * found['workers_busy_share']:12.1f} % {100 * found['overhead_share']:14.1f} %"
                f"{found['load']:7.1f}"
            )
            for name in ("samples_an_hour", "cpu_seconds_a_sample", "workers_busy_share", "load"):
                figures[f"demo_{name}_{workers}_workers"] = found[name]
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
