"""File names in the folder of a run, and writing of files, completely or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogs.atomic_write import write_text

SEGMENTATION = "segmentation.zarr"
PARTICLES = "particles.star"
#: All picks, including those that are kept; and the picks in decoys.
ALL, DECOYS = "particles.all.star", "decoys.star"
DONE = "done.json"
RUN = "run.json"
REPORT = "report.html"
#: The page where picks are accepted and rejected.
CURATE = "curate.html"
#: Reserved names in the folder of a run, which the folder of a tomogram cannot have.
RESERVED = (PARTICLES, ALL, RUN, REPORT, CURATE, "lists", "score.json")
_WORK = ".work-"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def absolute(path: str) -> str:
    """Return the absolute path of a file; URLs stay as they are."""
    return path if "://" in path else str(Path(path).absolute())


@contextlib.contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Make a folder for unfinished files; remove it at the end, as well as those of dead processes.

    Parameters
    ----------
    target
        Existing folder in which to make it.
    """
    for left in target.glob(f"{_WORK}*"):
        if not _at_work(left.name):
            shutil.rmtree(left, ignore_errors=True)
    folder = target / f"{_WORK}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _at_work(name: str) -> bool:
    """Return whether the process that made a folder may still run; on other machines this is unknown."""
    host, pid, _ = name.removeprefix(_WORK).rsplit("-", 2)
    return host != socket.gethostname() or Path(f"/proc/{pid}").exists()
