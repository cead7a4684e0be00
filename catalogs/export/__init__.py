"""Export samples of a corpus to folders that other programs read; see :data:`LAYOUTS`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.export import copick, mrc
from catalogs.export.target import Job, Target
from catalogs.schema import SampleRecord
from catalogs.storage.store import in_parallel, open_store

__all__ = ["LAYOUTS", "Exported", "Layout", "export"]

MANIFEST = "export.json"
_SAMPLES_AT_A_TIME = 2
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)

#: Samples exported or found so far, samples in all.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Layout:
    """How samples lie in a folder.

    Attributes
    ----------
    title
        For people.
    sample
        Writes what is missing of one sample; whether anything was.
    begin, finish
        Write what belongs to all samples, before and after them; given the records of all samples in the
        folder. What ``finish`` returns are remarks for people.
    """

    title: str
    sample: Callable[[Job], bool]
    begin: Callable[[Target, Catalog], None]
    finish: Callable[[Target, Catalog, list[SampleRecord]], list[str]]


LAYOUTS: dict[str, Layout] = {
    "mrc": Layout("MRC volumes, RELION 5 STAR files", mrc.sample, mrc.begin, mrc.finish),
    "deepfinder": Layout(
        "DeepFinder's training set", mrc.deepfinder_sample, mrc.nothing, mrc.deepfinder_finish
    ),
    "original": Layout(
        "results of the original TemplateLearning scripts",
        mrc.original_sample,
        mrc.nothing,
        mrc.original_finish,
    ),
    "copick": Layout("a copick project", copick.sample, copick.begin, copick.finish),
}


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes
    ----------
    written, present
        Names of the samples that were written, and of those that were there before.
    failed
        Name -> what is wrong with the sample in the corpus.
    remarks
        Sentences for people.
    """

    written: tuple[str, ...]
    present: tuple[str, ...]
    failed: dict[str, str]
    remarks: tuple[str, ...]


def export(
    corpus: str | os.PathLike[str],
    to: str | os.PathLike[str],
    layout: str,
    *,
    where: str | None = None,
    copies: bool = False,
    on_progress: OnProgress | None = None,
) -> Exported:
    """Export samples of a corpus.

    Every file appears whole or not at all. What is there already is not written again, so that an export
    that was interrupted goes on where it was, and one of a corpus that has grown adds what is new.

    Parameters
    ----------
    corpus
        Path or URL.
    to
        Path or URL of a folder that is empty, or of an earlier export of the same kind.
    layout
        Name in :data:`LAYOUTS`.
    where
        A query over :attr:`catalogs.corpus.catalog.Catalog.samples`; all samples without it.
    copies
        Copy what could be hard links into the corpus (copick only, on one disk).
    on_progress
        Called after each sample.

    Raises
    ------
    InputError
        If there is no corpus, the query is wrong or finds nothing, or the folder holds something else.
    """
    if layout not in LAYOUTS:
        raise InputError(
            f"there is no export as {layout!r}{nearest(layout, LAYOUTS)} (there are {', '.join(LAYOUTS)})"
        )
    chosen = LAYOUTS[layout]
    catalog = Catalog.open(corpus)
    ids = _choose(catalog, where)
    target = Target(open_store(to), copies)
    manifest = _claim(target, catalog, layout, ids)
    chosen.begin(target, catalog)
    there = frozenset(target.store.sizes(""))

    def one(name: str) -> tuple[str, bool | str]:
        try:
            record = catalog.record(ids[name])
            if record is None:
                return name, "it was taken out of the corpus"
            return name, chosen.sample(Job(catalog, record, target, there))
        except (InputError, FileNotFoundError) as error:
            return name, str(error)

    written: list[str] = []
    present: list[str] = []
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(_SAMPLES_AT_A_TIME) as threads:
        try:
            for done, (name, came) in enumerate(_window(threads, one, list(ids)), start=1):
                if isinstance(came, str):
                    failed[name] = came
                else:
                    (written if came else present).append(name)
                if on_progress:
                    on_progress(done, len(ids))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    remarks: list[str] = []
    if written or failed or not manifest["finished"]:
        wanted = [sample_id for name, sample_id in manifest["samples"].items() if name not in failed]
        records = in_parallel(catalog.record, wanted)
        remarks = chosen.finish(target, catalog, [record for record in records if record is not None])
        _write(target, {**manifest, "finished": not failed})
    return Exported(tuple(written), tuple(present), failed, tuple(remarks))


def _choose(catalog: Catalog, where: str | None) -> dict[str, str]:
    """Choose the samples: name -> id, in the order of names, which become names of files."""
    frame = catalog.query(where).sort_values("name")
    if frame.empty:
        which = f" for which {where}" if where else ""
        raise InputError(f"the corpus at {catalog.url} has no samples{which}: there is nothing to export")
    twice = frame["name"][frame["name"].duplicated()]
    if len(twice):
        raise InputError(
            f"several samples of the corpus at {catalog.url} are called {twice.iloc[0]!r}; choose by `where`"
        )
    odd = [name for name in frame["name"] if not _NAME.fullmatch(name)]
    if odd:
        raise InputError(f"the sample name {odd[0]!r} cannot be the name of a file")
    return dict(zip(frame["name"], map(str, frame.index), strict=True))


def _claim(target: Target, catalog: Catalog, layout: str, ids: dict[str, str]) -> dict[str, Any]:
    """Write down which samples the folder is of, before any of them; returns what is written.

    The names of files say nothing of the sample they hold: without this, samples of another corpus would
    pass for those that are finished.
    """
    url, store = target.store.url, target.store
    try:
        before: dict[str, Any] = json.loads(store.read(MANIFEST))
        samples = dict(before["samples"])
    except FileNotFoundError:
        if store.sizes(""):
            raise InputError(f"{url} is not empty and is no export; give another place") from None
        before, samples = {"layout": layout}, {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{store.at(MANIFEST)} is damaged; export to another place") from error
    if before.get("layout") != layout:
        raise InputError(f"{url} is an export as {before.get('layout')}; give another place for {layout}")
    other = [name for name, sample_id in ids.items() if samples.get(name, sample_id) != sample_id]
    if other:
        raise InputError(f"{url} holds another sample called {other[0]}; export to another place")
    manifest = {
        "layout": layout,
        "corpus": catalog.url,
        # Whether what belongs to all samples is written for all of them.
        "finished": bool(before.get("finished")) and ids.keys() <= samples.keys(),
        "samples": dict(sorted((samples | ids).items())),
    }
    _write(target, manifest)
    return manifest


def _write(target: Target, manifest: dict[str, Any]) -> None:
    target.put(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _window(threads: ThreadPoolExecutor, function: Callable[[str], Any], names: list[str]) -> Iterator[Any]:
    """Call a function on all names in order, with a few calls under way: an error stops what is to come."""
    rest = iter(names)
    waiting = [threads.submit(function, name) for name in islice(rest, 2 * _SAMPLES_AT_A_TIME)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [threads.submit(function, name) for name in islice(rest, 1)]
