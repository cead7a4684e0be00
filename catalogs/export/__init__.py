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

#: Number of samples exported or found, number of all samples.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Layout:
    """A layout of samples in a folder.

    Attributes
    ----------
    title
        Title for people.
    sample
        Writes the missing files of one sample; returns whether there were any.
    begin, finish
        Write files that concern all samples, before and after the samples, from the records of all samples in
        the folder. ``finish`` returns remarks for people.
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
    """Result of an export.

    Attributes
    ----------
    written, present
        Names of the samples that were written, and of those that existed before.
    failed
        Name -> problem of the sample in the corpus.
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

    Every file is written completely or not at all. Existing files are not written again, so that an
    interrupted export goes on where it stopped, and a second export adds the new samples of a corpus.

    Parameters
    ----------
    corpus
        Path or URL.
    to
        Path or URL of an empty folder, or of an earlier export of the same kind.
    layout
        Name in :data:`LAYOUTS`.
    where
        A query on :attr:`catalogs.corpus.catalog.Catalog.samples`; None: all samples.
    copies
        Make copies instead of hard links into the corpus (copick only, on one disk).
    on_progress
        Called after each sample.

    Raises
    ------
    InputError
        If there is no corpus, the query is wrong or finds nothing, or the folder has other content.
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
                return name, "it was removed from the corpus"
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
    """Select the samples: name -> id, in the order of names, which become file names."""
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
    """Store which samples the folder will contain, before any of them; return what is stored.

    File names do not identify the samples. Without this, samples of another corpus would count as finished.
    """
    url, store = target.store.url, target.store
    try:
        before: dict[str, Any] = json.loads(store.read(MANIFEST))
        samples = dict(before["samples"])
    except FileNotFoundError:
        if store.sizes(""):
            raise InputError(f"{url} is neither empty nor an export; give another place") from None
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
        # whether the files that concern all samples are complete
        "finished": bool(before.get("finished")) and ids.keys() <= samples.keys(),
        "samples": dict(sorted((samples | ids).items())),
    }
    _write(target, manifest)
    return manifest


def _write(target: Target, manifest: dict[str, Any]) -> None:
    target.put(MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _window(threads: ThreadPoolExecutor, function: Callable[[str], Any], names: list[str]) -> Iterator[Any]:
    """Call a function on all names in order, a few at a time; an error stops further calls."""
    rest = iter(names)
    waiting = [threads.submit(function, name) for name in islice(rest, 2 * _SAMPLES_AT_A_TIME)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [threads.submit(function, name) for name in islice(rest, 1)]
