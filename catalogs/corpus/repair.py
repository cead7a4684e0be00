"""Repairs a corpus: removes damaged samples, so that they are made again, and leftovers; renews the index."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from catalogs.corpus import index
from catalogs.corpus.molecules import STRUCTURES
from catalogs.corpus.verification import OnProgress, Problem, examine
from catalogs.schema import SAMPLE_ID
from catalogs.storage.store import Store

# A group, or a temporary file of a writer that died.
_MADE = re.compile(
    rf"samples/(?P<folder>[0-9a-f]{{2}})/(?P<id>{SAMPLE_ID})-[0-9a-z]+\.zarr|("
    rf"{index.COMMITS}/[0-9a-f]{{2}}|{STRUCTURES})/\.[^/]+\.[0-9a-f]{{8}}"
)


@dataclass(frozen=True)
class Repairs:
    """What a repair does.

    Attributes
    ----------
    problems
        All problems that were found.
    remake
        Sample id -> name of the damaged samples; the name is empty if unknown. Their records and what is left
        of them are removed.
    groups
        Groups or files without a record that are older than the grace time; removed.
    objects
        Single objects that belong to no sample, and damaged molecules; removed.
    young
        Groups or files without a record that somebody may be writing; kept.
    newer
        Records of a newer format version; they and their groups are kept.
    foreign
        Files whose names are not of this program, or that lie behind a symbolic link; kept.
    """

    problems: tuple[Problem, ...]
    remake: dict[str, str]
    groups: tuple[str, ...]
    objects: tuple[str, ...]
    young: tuple[str, ...]
    newer: tuple[str, ...]
    foreign: tuple[str, ...] = ()


def plan(
    store: Store,
    *,
    grace: float = index.GRACE,
    deep: bool = True,
    journal: bool = True,
    on_progress: OnProgress | None = None,
) -> Repairs:
    """Find problems and decide what to do; nothing is changed.

    Parameters
    ----------
    store
        Store of the corpus.
    grace
        Age in seconds from which files without a record are removed.
    deep, journal, on_progress
        See :func:`catalogs.corpus.verification.examine`.
    """
    problems = tuple(examine(store, deep=deep, journal=journal, on_progress=on_progress))
    of = {kind: [p for p in problems if p.kind == kind] for kind in {p.kind for p in problems}}
    remake = {p.sample_id: p.name for p in (*of.get("sample", ()), *of.get("record", ()))}
    limit = time.time() - grace
    orphans = [p for p in of.get("orphan", ()) if _ours(store, p.key)]
    strangers = [p.key for p in of.get("stranger", ()) if p.sample_id not in remake]
    single = [*strangers, *(p.key for p in of.get("structure", ()))]
    behind = {key for key in single if store.link_on_the_way(key.rpartition("/")[0])}
    others = [p.key for p in of.get("orphan", ()) if p not in orphans]
    return Repairs(
        problems=problems,
        remake=remake,
        groups=tuple(p.key for p in orphans if p.modified < limit),
        objects=tuple(key for key in single if key not in behind),
        young=tuple(p.key for p in orphans if p.modified >= limit),
        newer=tuple(p.key for p in of.get("newer", ())),
        foreign=(*others, *sorted(behind), *(p.key for p in of.get("foreign", ()))),
    )


def _ours(store: Store, key: str) -> bool:
    """Return whether a file without a record was made by this program and lies in the corpus itself."""
    made = _MADE.fullmatch(key)
    named = made is not None and (made["id"] is None or made["id"].startswith(made["folder"]))
    return named and not store.link_on_the_way(key)


def apply(store: Store, todo: Repairs, *, journal: bool = True) -> None:
    """Carry out the repairs, and write the index anew from the records unless there are newer ones.

    It may be stopped at any time: a sample loses its record first, and the next repair does the rest.

    Parameters
    ----------
    store
        Store of the corpus.
    todo
        From :func:`plan`.
    journal
        As in :func:`catalogs.corpus.index.compact`.

    Raises
    ------
    NewerFormat
        If there are records of a newer version; everything but the index is done.
    """
    for sample_id in todo.remake:
        index.remove_record(store, sample_id)
        folder = f"samples/{sample_id[:2]}"
        for group in (f"{folder}/{name}" for name in store.folders(folder)):
            if f"/{sample_id}-" in group and _ours(store, group):
                store.remove(group)
    for group in todo.groups:
        store.remove(group)
    store.remove_objects([*todo.groups, *todo.objects])  # also a group that is a single file
    index.compact(store, journal=journal, rebuild=True)
