"""The record of each run that stays in a corpus: ``runs/<time>-<id>.json``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from catalogs.console import DISTRIBUTION
from catalogs.storage.store import open_store
from tlgen.recipes.samples import DATA_VERSION
from tlrun.fan_out import Summary
from tlrun.reporting.display import busy

#: Folder of the records in a corpus.
FOLDER = "runs"
_FAILURES = 1000  # at most; all of them are in failures/


def account(
    recipe: str, summary: Summary, names: Mapping[str, str], items: int, workers: Sequence[str]
) -> dict[str, Any]:
    """Make the record of a run that has ended.

    Parameters
    ----------
    recipe
        Its name.
    summary
        Of the fan-out.
    names
        Of the samples, by id.
    items
        Samples that were to be made.
    workers
        Result of :func:`tlrun.cluster.connect.describe`.

    Returns
    -------
    dict
        JSON-like.
    """
    progress, now = summary.progress, datetime.now(UTC)
    content: dict[str, Any] = {
        "recipe": recipe,
        "software": version(DISTRIBUTION),
        "data_version": DATA_VERSION,
        "ended": now.isoformat(timespec="seconds"),
        "workers": list(workers),
        "items": items,
        "items_done": summary.done,
        "items_failed": len(summary.failures),
        "stopped": summary.stopped,
        "failures": [
            {"name": names.get(f.name, f.name), "id": f.name, "step": f.kind, "error": f.error}
            for f in summary.failures[:_FAILURES]
        ],
    }
    if progress is not None:
        content |= {
            "began": (now - timedelta(seconds=progress.seconds)).isoformat(timespec="seconds"),
            "seconds": round(progress.seconds, 1),
            "worker_seconds": round(progress.worker_seconds, 1),
            "busy": busy(progress),
            "calls": {
                group: {"done": n, "seconds": round(progress.call_seconds.get(group, 0.0), 2)}
                for group, n in sorted(progress.calls_done.items())
            },
            "retried": progress.retried,
            "bytes_written": progress.bytes_written,
        }
    return content


def record(url: str, content: Mapping[str, Any]) -> None:
    """Write the record of a run into its corpus; an error in writing is ignored."""
    ended = datetime.fromisoformat(content["ended"])
    key = f"{FOLDER}/{ended:%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}.json"
    with contextlib.suppress(Exception):  # every storage has its own; the samples are what matters
        open_store(url).create(key, json.dumps(content, indent=1, ensure_ascii=False).encode())
