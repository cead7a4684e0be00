"""Checks of a corpus's location: not among other files, and not copied into itself."""

from __future__ import annotations

import os

from catalogs.corpus import index, molecules
from catalogs.corpus.commit import SAMPLES
from catalogs.errors import InputError
from catalogs.storage.store import Store

#: The file that makes a folder a corpus.
CORPUS = "corpus.json"


def refuse_what_is_there(store: Store) -> None:
    """Refuse a folder that contains other files."""
    ours = {SAMPLES, index.COMMITS, index.RECENT, index.INDEX, molecules.STRUCTURES, "failures", "runs"}
    marker = store.url.rsplit("/", 1)[-1]  # some buckets list the folder itself
    names = [name for name in store.folders("") if store.local is not None or name != marker]
    other = [n for n in names if n and n not in ours and not n.startswith((".", "probe-", CORPUS))]
    if other:
        raise InputError(
            f"{store.url} holds other files ({', '.join(other[:3])}) and no corpus; give an empty folder"
        )


def refuse_one_in_the_other(source: Store, target: Store) -> None:
    """Refuse to copy a corpus to itself or into itself, under any name."""
    here, there = (
        os.path.realpath(store.url) if store.local is not None else store.url for store in (source, target)
    )
    if here == there:
        raise InputError(f"{source.url} cannot be copied to itself; give another place")
    if f"{there}/".startswith(f"{here}/") or f"{here}/".startswith(f"{there}/"):
        raise InputError(f"{target.url} and {source.url} lie inside each other; give another place")
