"""How right ``tlgen plan`` and the time left that ``tlgen run`` shows are: a recipe planned, then made.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --recipe my.yaml --cluster local:2
    python benchmarks/estimate.py --only cell --structures FOLDER   # a plan of a cell of your structures

The plan comes from small samples made on this machine (nothing that was remembered is used), the time left
from the run's own journal (``--log-json``). Prints tables, and as the last line one JSON object of the
figures. The demo takes about 10 minutes on two cores. ``plan_cell_s`` is how long ``tlgen plan`` takes for a
cell (``benchmarks/cell.yaml``) where nothing of its structures has been prepared, ``refuse_cell_s`` until it
refuses a vesicle that does not fit; seconds on the clock.
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

import cell
import yaml
from machine import machine

#: Shares of the calls' time at which the time left is compared with what it was.
SHARES = (0.1, 0.25, 0.5, 0.75)
TLGEN = (sys.executable, "-c", "import tlgen.cli; tlgen.cli.main()")
UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def planned(recipe: str, url: str, cluster: str, folder: Path) -> dict[str, float]:
    """Ask ``tlgen plan``."""
    text = subprocess.run(
        [*TLGEN, "plan", recipe, "--to", url, "--cluster", cluster],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    print(text)
    found = {name: re.search(rf"{name} +(\S+) ?(\w*)", text) for name in ("tasks", "core-hours", "bytes")}
    values = {name: match.groups() for name, match in found.items() if match}
    return {
        "tasks": int(values["tasks"][0]),
        "core_hours": float(values["core-hours"][0]),
        "bytes": float(values["bytes"][0]) * UNITS[values["bytes"][1]],
    }


def made(recipe: str, url: str, cluster: str, journal: Path) -> list[dict[str, Any]]:
    """Make the corpus; returns the journal's lines."""
    command = [*TLGEN, "run", recipe, "--to", url, "--cluster", cluster]
    subprocess.run([*command, "--log-json", str(journal)], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in journal.read_text().splitlines()]


def cells_plan(structures: Path | None, cluster: str) -> dict[str, float]:
    """Time the plan of a cell with nothing prepared, and the refusal of a vesicle that does not fit."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = cell.recipe_with(structures, folder)
        content = yaml.safe_load(recipe.read_text())
        content["decorations"]["vesicles"] = {"radius": 400}
        refused = folder / "refused.yaml"
        refused.write_text(yaml.safe_dump(content))
        environment = os.environ | {"TMPDIR": temporary, "TLGEN_PREPARED": str(folder / "prepared")}

        def seconds(path: Path, status: int) -> float:
            command = [*TLGEN, "plan", str(path), "--to", str(folder / "corpus"), "--cluster", cluster]
            started = time.perf_counter()
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
            took = time.perf_counter() - started
            assert done.returncode == status, done.returncode
            return took

        figures = {"plan_cell_s": seconds(recipe, 0), "refuse_cell_s": seconds(refused, 2)}
    print(
        f"the plan of a cell: {figures['plan_cell_s']:.1f} s with nothing prepared;"
        f" a vesicle too large is refused after {figures['refuse_cell_s']:.1f} s"
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="How right the plan and the time left are.")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--cluster", default="local:2")
    parser.add_argument("--structures", type=Path, help="folder of the cell's distractors")
    parser.add_argument("--only", choices=["cell"], help="only the plan of a cell")
    given = parser.parse_args()
    print(machine())
    of_cell = cells_plan(given.structures, given.cluster)
    if given.only:
        print(json.dumps({k: round(v, 2) for k, v in of_cell.items()} | {"machine": machine().figures()}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        url = str(folder / "corpus")
        plan = planned(given.recipe, url, given.cluster, folder)
        lines = made(given.recipe, url, given.cluster, folder / "journal.jsonl")

    # the last fan-out makes the samples; the one before it prepares the structures
    first = max(k for k, line in enumerate(lines) if line["event"] == "begin")
    steps = [line for line in lines[first:] if line["event"] == "progress"]
    end = next(line for line in lines if line["event"] == "end")
    total, spent = steps[-1]["seconds"], sum(steps[-1]["call_seconds"].values())
    figures: dict[str, Any] = {"recipe": given.recipe, "cluster": given.cluster, "seconds": total}
    print(f"{given.recipe} on {given.cluster}: {total:.0f} s, load {os.getloadavg()[0]:.1f}")
    print("work done   time left, said   was     said/was")
    for share in SHARES:
        at = next(line for line in steps if sum(line["call_seconds"].values()) >= share * spent)
        said, was = at["seconds_left"], total - at["seconds"]
        done = sum(at["call_seconds"].values()) / spent
        print(f"{100 * done:8.0f} % {said:15.0f} s {was:6.0f} s {said / was:10.2f}")
        figures[f"time_left_said_over_was_at_{round(100 * share)}_percent"] = said / was
    worst = max(
        abs(line["seconds_left"] / (total - line["seconds"]) - 1)
        for line in steps
        if sum(line["call_seconds"].values()) >= 0.1 * spent and total - line["seconds"] > 0.05 * total
    )
    print(f"worst from a tenth on until 5 % of the time were left: {100 * worst:.0f} %")
    figures["time_left_worst_error"] = worst
    hours, n_bytes = spent / 3600, steps[-1]["bytes_written"]
    print(f"\n{'':12}{'plan':>10}{'true':>10}")
    print(f"{'core-hours':12}{plan['core_hours']:10.3f}{hours:10.3f}")
    print(f"{'megabytes':12}{plan['bytes'] / 1e6:10.1f}{n_bytes / 1e6:10.1f}")
    figures |= {f"planned_{name}": value for name, value in plan.items()}
    figures |= {"true_core_hours": hours, "true_bytes": n_bytes, "samples": end["items_done"]}
    figures |= of_cell
    told = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(told | {"machine": machine().figures()}))


if __name__ == "__main__":
    main()
