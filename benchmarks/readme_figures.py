"""Most figures of the README's table: runs their commands one after the other, and keeps what they say.

    python benchmarks/readme_figures.py --deepfinder CLONE --template-learning CLONE --structures FOLDER
    python benchmarks/readme_figures.py --only segment --only train
    python benchmarks/readme_figures.py --report

CLONE are clones of cryoet-deepfinder and of MohamadHarastani/TemplateLearning; without them, and without
FOLDER (the paper's structures: ``templates/``, ``distractors/``, ``frequencies.csv``), the figures that need
them are left out. The last line of each command is kept in ``benchmarks/results/NAME.json`` with its commit,
date and machine, one entry for each kind of processor. What is there for this processor and this commit is
not measured again unless ``--again`` is given. Several hours on two cores; nothing else should run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: Arguments of each benchmark; words in braces are replaced by folders, and left out with it if not given.
COMMANDS: dict[str, list[str]] = {
    "segment": ["--reference", "{deepfinder}"],
    "train": ["--reference", "{deepfinder}", "--only", "networks", "--only", "onednn"],
    "estimate": ["--only", "cell", "--structures", "{structures}/distractors"],
    "simulate": ["--structures", "{structures}/distractors"],
    "variants": ["4v5d"],
    "localise": [],
    "reconstruct": [],
    "tetris": ["--reference", "{template_learning}", "--structures", "{structures}"],
    "pseudoatoms": ["{maps}"],
    "stream": ["--reference", "{deepfinder}", "--quick"],
    "corpus": [],
    "batch": [],
    "engine": [],
    "scale": [],
    "browse": [],
    "labels": ["--structures", "{structures}/distractors"],
    "quality": [],
    "finetune": ["--seeds", "0", "1", "2"],
}


def arguments(name: str, folders: dict[str, Path | None]) -> list[str] | None:
    """Fill in a command's folders; None if one that it needs was not given."""
    words: list[str] = []
    for word in COMMANDS[name]:
        if "{" in word:
            if any(folder is None and f"{{{key}}}" in word for key, folder in folders.items()):
                if not words or not words[-1].startswith("--"):
                    return None
                words.pop()
                continue
            word = word.format(**folders)
        words.append(word)
    return words


def measured(name: str, words: list[str]) -> dict[str, Any] | None:
    """Run a benchmark; returns the figures of its last line."""
    print(f"$ python benchmarks/{name}.py {' '.join(words)}", flush=True)
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *words], stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"{name}.py ended with status {done.returncode}", file=sys.stderr)
        return None
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures | {"wall_minutes": round((time.perf_counter() - begun) / 60, 1)}


def commit() -> str:
    """Return the commit of this checkout."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    return done.stdout.strip()


def keep(name: str, words: list[str], figures: dict[str, Any]) -> None:
    """Write the figures beside those of other processors."""
    path = RESULTS / f"{name}.json"
    entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    shown = [Path(word).name if "/" in word else word for word in words]
    entries[str(machine())] = {
        "command": f"benchmarks/{name}.py {' '.join(shown)}".strip(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "figures": {key: value for key, value in figures.items() if key != "machine"},
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


def is_there(name: str) -> bool:
    """Tell whether this processor's figures of this commit are kept."""
    path = RESULTS / f"{name}.json"
    entries = json.loads(path.read_text()) if path.exists() else {}
    return bool(entries.get(str(machine()), {}).get("commit") == commit())


def report() -> None:
    """Print what is kept."""
    for path in sorted(RESULTS.glob("*.json")):
        for processor, entry in json.loads(path.read_text()).items():
            if isinstance(entry, dict) and "figures" in entry:
                print(f"\n{entry['command']}\n  {processor}; commit {entry['commit']}, {entry['date']}")
                print(f"  {json.dumps(entry['figures'])}")


def main() -> int:
    """Run the benchmarks; returns the exit status."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--deepfinder", type=Path, help="a clone of cryoet-deepfinder")
    asked.add_argument("--template-learning", type=Path, help="a clone of the paper's program")
    asked.add_argument("--structures", type=Path, help="folder of the paper's structures")
    asked.add_argument("--maps", type=Path, help="folder of density maps")
    asked.add_argument("--only", choices=COMMANDS, action="append", help="one benchmark; repeat it")
    asked.add_argument("--again", action="store_true", help="measure also what is kept")
    asked.add_argument("--report", action="store_true", help="print what is kept, and measure nothing")
    options = asked.parse_args()
    if options.report:
        report()
        return 0
    folders = {
        key: getattr(options, key) for key in ("deepfinder", "template_learning", "structures", "maps")
    }
    failed = 0
    for name in options.only or COMMANDS:
        words = arguments(name, folders)
        if words is None or (is_there(name) and not options.again):
            continue
        figures = measured(name, words)
        if figures is None:
            failed += 1
        else:
            keep(name, words, figures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
