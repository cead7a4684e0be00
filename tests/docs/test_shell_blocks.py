"""The shell commands of README and documentation run, page by page, in a tiny world."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
PAGES = sorted([TOP / "README.md", *(TOP / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: First words of commands; a block without a language is a block of commands if it begins with one.
PROGRAMS = {
    *("tlgen", "tltrain", "tlpick", "python", "dask", "export", "less"),
    *("docker", "apptainer", "make", "pip", "cd", "source", "3dmod"),
}

#: What cannot run in the tests, and why: parts of a command line.
CANNOT = {
    "make demo": "it is the whole way through, which takes minutes; CI runs it",
    "make test": "these are the tests",
    "make setup": "it installs from the internet",
    "cd template-learning": "there is no clone of the project here",
    "source .venv/bin/activate": "there is no clone of the project here",
    "pip install": "it installs from the internet",
    "docker build": "it needs Docker and the internet",
    "apptainer build": "it needs Apptainer and the internet",
    "3dmod ": "it is IMOD's, and needs a screen",
    "--napari": "it opens a window",
    "--to /data/corpus --cluster cluster.yaml": "it needs a Slurm cluster",
    "python benchmarks/labels.py": "it takes minutes; `make` has a target for no benchmark",
    "docs/gallery/crowd.yaml": "`make docs` makes the gallery",
    "docs/gallery/cell.yaml": "`make docs` makes the gallery",
    "python docs/pictures.py gallery": "`make docs` makes the gallery",
}

#: What is made smaller, or stands for a name of the user's own: pattern -> what runs instead.
INSTEAD = [
    # recipes that take minutes
    (r"tlgen (plan|pack|run|variants) (demo|ribosome-cell)\b", r"tlgen \1 tiny.yaml"),
    (r"tlgen simulate scene demo\b", "tlgen simulate scene tiny.yaml"),
    (r"--sample train-003", "--sample train-001"),
    (r"tlgen new mine\.yaml", "tlgen new mine.yaml && cp tiny.yaml mine.yaml"),
    (r"(tlgen match TS_01\.mrc\.mdoc --to mine\.yaml)", r"\1 --template tiny.yaml"),
    # long trainings: of an option that is given twice, the last counts
    (r"(tltrain fit [^#&\n]*)", r"\1 --steps 6 --patch 16 --batch 2 --validate-every 3 "),
    (
        r"(tltrain finetune [^#&\n]*)",
        r"\1 --steps 4 --patch 16 --batch 2 --validate-every 2 --max-forgetting 1 ",
    ),
    (r"--learning-curve 0,25,50,150", "--learning-curve 0,4"),
    (r"--precision 0\.9", "--precision 0.05"),
    (r"--cluster local:4", "--cluster local:2"),
    # names of the user's own
    (r"\bTOMOGRAM\b", "$(tlgen ls demo/corpus --where \"split == 'test'\" --paths)"),
    (r"\bTRUTH\b", "truth.star"),
    (r"/shared/models", "shared/models"),
    (r"https://storage\.example\.org", "$FSSPEC_S3_ENDPOINT_URL"),
    (r"(AWS_\w+)=\.\.\.", r"\1=test"),
    # what runs until it is stopped
    (r"(tlgen browse [^#\n]*)", r"{ timeout -s INT 6 \1 || [ $? = 124 ]; } "),
    (r"dask scheduler", "{ dask scheduler --host 127.0.0.1 --port PORT --no-dashboard & } ; sleep 4"),
    (
        r"dask worker (\S+) --nworkers 16 --nthreads 1",
        r"{ dask worker \1 --nworkers 1 --nthreads 1 --no-dashboard & } ; sleep 4",
    ),
    (r"tcp://HOST:8786", "tcp://127.0.0.1:PORT"),
]

#: Where a page expects what the world has. Each is put there if the page names it.
PLACES = {
    "tiny.yaml": ("tiny.yaml", "my.yaml"),
    "corpus": ("corpus", "demo/corpus", "mine/corpus", "ribosome-corpus"),
    "ribosome.tlm": ("ribosome.tlm", "demo/ribosome.tlm", "mine.tlm", "shared/models/capsid.tlm"),
    "picks": ("picks",),
    "tomograms/TS_01.mrc": ("TS_01.mrc", "tomogram.mrc", "tomo.mrc", "data/TS_01.mrc", "tomograms/TS_01.mrc"),
    "tomograms/TS_02.mrc": ("TS_02.mrc", "data/TS_02.mrc", "tomograms/TS_02.mrc"),
    "truth.star": ("truth.star", "picks.star"),
    **{
        name: (name,)
        for name in (
            *("tomograms.star", "curated.csv", "labels.mrc", "mask.mrc", "TS_01.ali", "TS_01.tlt"),
            *("TS_01.mrc.mdoc", "net_weights_FINAL.h5"),
        )
    },
}
#: Where a page means something else by a name.
ON_PAGE = {
    "README.md": {"truth-1.star": ("truth.star",)},
    "evaluation.md": {"picks-of-corpus": ("picks",), "truth-1.star": ("truth.star",)},
    "structures.md": {"tiny.yaml": ("tiny.yaml", "mine.yaml")},
}
#: Always there: they are named by patterns, or by the words that stand for others.
ALWAYS = {"tiny.yaml", "data/TS_01.mrc", "data/TS_02.mrc", "tomograms/TS_01.mrc", "tomograms/TS_02.mrc"}


def commands(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, with what cannot run in the tests left out."""
    lines = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        text = match[2]
        first = (text.split() or [""])[0]
        if match[1] in ("sh", "bash", "console") or (match[1] == "" and first in PROGRAMS):
            lines += text.replace("\\\n", " ").splitlines()
    return [line for line in lines if not any(part in line for part in CANNOT)]


def script(page: Path, port: int = 0) -> str:
    """Return the commands of a page as they run in the tests."""
    text = "\n".join(commands(page))
    for pattern, instead in INSTEAD:
        text = re.sub(pattern, instead, text)
    return text.replace("PORT", str(port))


RUNNABLE = [page for page in PAGES if any(line.split("#")[0].strip() for line in commands(page))]


def test_what_cannot_run_is_still_in_the_pages() -> None:
    every = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [part for part in CANNOT if part not in every] == []
    assert all(CANNOT.values())


def test_what_runs_instead_is_still_in_the_pages() -> None:
    every = "\n".join("\n".join(commands(page)) for page in PAGES)
    assert [pattern for pattern, _ in INSTEAD if not re.search(pattern, every)] == []


def test_most_commands_run() -> None:
    ours = [line for page in PAGES for line in commands(page) if re.match(r"tl(gen|train|pick) ", line)]
    assert len(ours) > 60


def put(source: Path, folder: Path, text: str, more: dict[str, tuple[str, ...]]) -> None:
    """Put what a page names where it expects it, unless its commands make it."""
    elsewhere = {place for places in more.values() for place in places}
    everything = [(name, [p for p in places if p not in elsewhere]) for name, places in PLACES.items()]
    for name, places in [*everything, *more.items()]:
        for place in places:
            named = re.search(rf"(--to )?(?<![\w./-]){re.escape(place)}(?![\w.-])", text)
            made_here = named is not None and named[1] and name != "corpus"
            if (named is None or made_here) and place not in ALWAYS:
                continue
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (source / name).is_dir() else shutil.copy2)(source / name, target)


@pytest.fixture
def port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, world: Any, tmp_path: Path, port: int) -> None:
    text = script(page, port)
    put(world.folder, tmp_path, text, ON_PAGE.get(page.name, {}))
    whole = f"set -euxo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{text}\n"
    done = subprocess.run(
        ["bash", "-c", whole],
        cwd=tmp_path,
        env=world.env,
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, f"{TOP / page.name}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
