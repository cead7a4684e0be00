"""Mend a corpus: take out what is damaged so that it is made again, what nobody needs, and index anew."""

from __future__ import annotations

import time
from dataclasses import dataclass

from catalogs.corpus import index
from catalogs.corpus.verification import OnProgress, Problem, examine
from catalogs.storage.store import Store


@dataclass(frozen=True)
class Plan:
    """What a repair does.

    Attributes
    ----------
    problems
        Everything that was found.
    remake
        Sample id -> name of the samples that are damaged; the name is empty if it is not known. Their
        records and what is left of them are removed.
    groups
        Groups, or files, that no record names and that are older than the grace time; removed.
    objects
        Single objects that belong to nothing, and damaged molecules; removed.
    young
        What no record names but somebody may be writing; stays.
    newer
        Records of a newer format version; they stay, and so does what they name.
    """

    problems: tuple[Problem, ...]
    remake: dict[str, str]
    groups: tuple[str, ...]
    objects: tuple[str, ...]
    young: tuple[str, ...]
    newer: tuple[str, ...]


def plan(
    store: Store,
    *,
    grace: float = index.GRACE,
    deep: bool = True,
    journal: bool = True,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Find what is wrong and decide what to do; nothing is changed.

    Parameters
    ----------
    store
        Of the corpus.
    grace
        Seconds that what no record names must be old to be removed.
    deep, journal, on_progress
        See :func:`catalogs.corpus.verification.examine`.
    """
    problems = tuple(examine(store, deep=deep, journal=journal, on_progress=on_progress))
    of = {kind: [p for p in problems if p.kind == kind] for kind in {p.kind for p in problems}}
    remake = {p.sample_id: p.name for p in (*of.get("sample", ()), *of.get("record", ()))}
    limit = time.time() - grace
    orphans = of.get("orphan", [])
    strangers = [p.key for p in of.get("stranger", ()) if p.sample_id not in remake]
    return Plan(
        problems=problems,
        remake=remake,
        groups=tuple(p.key for p in orphans if p.modified < limit),
        objects=(*strangers, *(p.key for p in of.get("structure", ()))),
        young=tuple(p.key for p in orphans if p.modified >= limit),
        newer=tuple(p.key for p in of.get("newer", ())),
    )


def apply(store: Store, todo: Plan, *, journal: bool = True) -> None:
    """Do what a plan says, and write the index anew from the records unless there are newer ones.

    Stopped anywhere, it leaves a corpus that the next repair mends: a sample loses its record first.

    Parameters
    ----------
    store
        Of the corpus.
    todo
        From :func:`plan`.
    journal
        As :func:`catalogs.corpus.index.compact` takes it.

    Raises
    ------
    NewerFormat
        If there are records of a newer version: all else is done, the index is not.
    """
    for sample_id in todo.remake:
        index.remove_record(store, sample_id)
        folder = f"samples/{sample_id[:2]}"
        names = (name for name in store.folders(folder) if name.partition("-")[0] == sample_id)
        for name in names:
            store.remove(f"{folder}/{name}")
    for group in todo.groups:
        store.remove(group)
    store.remove_objects([*todo.groups, *todo.objects])  # a group that is a single file, too
    index.compact(store, journal=journal, rebuild=True)
