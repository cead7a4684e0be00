"""Failed items of a corpus: ``failures/<name>.json``, until the item has been made.

They are for people who look for the cause on any machine, days later. No program depends on them, so a lost
or incomplete one does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from catalogs.corpus.commit import now
from catalogs.storage.store import open_store

FAILURES = "failures"
_NAME = re.compile(rf"{FAILURES}/([0-9a-f]{{1,64}})\.json")


def note(url: str, name: str, content: dict[str, Any]) -> None:
    """Store why an item failed, in place of an earlier entry.

    Parameters
    ----------
    url
        URL of the corpus.
    name
        Name of the item: a sample's id.
    content
        JSON-like; the time is added.
    """
    text = json.dumps({**content, "when": now()}, indent=1, ensure_ascii=False)
    open_store(url).write({_key(name): text.encode()})


def names(url: str) -> set[str]:
    """List the stored items."""
    found = (_NAME.fullmatch(key) for key in open_store(url).entries(FAILURES))
    return {match[1] for match in found if match}


def read(url: str) -> list[dict[str, Any]]:
    """Read the stored failures, by name."""
    store = open_store(url)
    found = []
    for data in store.read_those_there([_key(name) for name in sorted(names(url))]):
        try:
            content = json.loads(data or b"")
        except (ValueError, RecursionError):  # incomplete, because its writer died
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def forget(url: str, items: Iterable[str]) -> None:
    """Remove the entries of items that have been made."""
    open_store(url).remove_objects([_key(name) for name in items])


def _key(name: str) -> str:
    return f"{FAILURES}/{name}.json"
