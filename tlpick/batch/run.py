"""Picks many tomograms: in this process, or one at a time on each worker of a cluster."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from catalogs import particles
from catalogs.amounts import duration
from catalogs.console import counted
from catalogs.errors import InputError
from catalogs.model_archive import ModelRefused
from catalogs.model_file import ModelCard, check, read_card
from catalogs.progress import Line, Progress, progress_of
from catalogs.score_calibration import Expectation
from catalogs.usual_values import doubts_of_model, refuse_impossible, refuse_unusual
from tlpick.batch.files import ALL, PARTICLES
from tlpick.batch.pipeline import Failed, Picked, Settings, TomogramResult, attempt
from tlpick.batch.results import Lists, collect
from tlpick.evaluation.pick_selection import Cut, other_hand, sentence
from tlpick.network.picks import refuse_unknown_classes, thresholds
from tlpick.network.tomograms.inputs import Selection, Tomogram, expand, named
from tlpick.output.next_step import next_step
from tlpick.output.pages import write_pages

_log = logging.getLogger(__name__)

#: Called for every tomogram that is finished or has failed.
Tell = Callable[[TomogramResult], None]


@dataclass(frozen=True, eq=False)
class Run:
    """Result of picking many tomograms. Notebooks show it as a table.

    Attributes
    ----------
    folder
        Folder of the results.
    picked
        Picked tomograms, including those of earlier calls.
    failed
        Failed tomograms with the reasons.
    counts
        Class -> number of picks in the run's list.
    report
        Page with pictures and charts.
    """

    folder: Path
    picked: tuple[Picked, ...]
    failed: tuple[Failed, ...]
    counts: dict[str, int]
    report: Path

    @property
    def picks(self) -> pd.DataFrame:
        """The particle table of all tomograms."""
        return particles.read(self.folder / PARTICLES)

    @property
    def tomograms(self) -> pd.DataFrame:
        """One row per tomogram: picks of each class, seconds, and the error if it failed."""
        rows: list[dict[str, Any]] = [
            {"tomogram": each.name, **each.counts, "seconds": sum(each.seconds.values()), "error": ""}
            for each in self.picked
        ]
        rows += [{"tomogram": each.path, "error": each.error} for each in self.failed]
        return pd.DataFrame(rows).set_index("tomogram") if rows else pd.DataFrame()

    def _repr_html_(self) -> str:
        """Show the tomograms in a notebook."""
        return str(self.tomograms.to_html(na_rep="", float_format=lambda value: f"{value:.4g}"))


def run(
    model: str,
    arguments: Sequence[str],
    folder: str,
    settings: Settings,
    *,
    cluster: str | None = None,
    selection: Selection | None = None,
    precision: float | None = None,
    cut: Cut | None = None,
    lists: Lists | None = None,
    progress: bool | Progress = False,
) -> Run:
    """Pick all tomograms whose picks are not in the folder yet; log one line for each.

    Parameters
    ----------
    model
        Path of the model file.
    arguments
        Tomograms, or sources of them; see :func:`tlpick.network.tomograms.inputs.expand`.
    folder
        Folder for the picks; see :mod:`tlpick.batch.results` for its layout.
    settings
        Settings of the run.
    cluster
        As in :func:`tlrun.cluster.connect.open_cluster`; None: this process.
    selection
        Which tomograms to take from arguments with several.
    precision
        Expected precision of the kept picks according to the model's calibration, instead of a cut.
    cut
        Which picks are kept; None: those with the largest expected F1 or F2.
    lists
        Further formats of the list besides RELION's.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the model is not valid or cannot reach the precision, two tomograms have the same name, or there is
        nothing to pick.
    """
    lists = lists or Lists()
    lists.check()
    card = read_card(model)
    check(model)  # before anything is read or loaded
    refuse_unknown_classes(settings.localising, card)
    _refuse_unusual(card, settings)
    least = {} if precision is None else thresholds(card, precision)
    selection = selection or Selection()
    tomograms, wrong = expand(arguments, Selection(selection.kind, selection.where, card.voxel_size))
    if wrong and not tomograms:
        raise wrong[0][1]
    tomograms = named(tomograms, settings.preprocessing.voxel_size)
    book = _Book(len(tomograms) + len(wrong))
    for argument, error in wrong:
        book.enter(TomogramResult(Failed(argument, str(error), True, "")))
    if cluster is None:
        _here(model, tomograms, folder, settings, book, progress_of(progress))
    else:
        _on_workers(model, tomograms, folder, settings, book, cluster, progress_of(progress))
    if book.total == 1 and book.failed and book.failed[0].refused:
        raise InputError(book.failed[0].error)

    done, counts, kept = collect(model, folder, settings, book.failed, least, lists, cut)
    for line in _table(done, card):
        _log.info(line)
    for picked in done:
        for class_name, level in picked.hands.items():
            if level < 0:
                _log.warning(other_hand(picked.name, class_name))
    for picked, each in kept:
        if each.all and (each.stands_out is False or each.unlike or not least):
            _log.info(sentence(picked.name, each, cut or Cut(), ALL))
    clear = {each.class_name for _, each in kept if each.stands_out is not False and not each.unlike}
    for name, point in least.items():
        if name in clear or not kept:
            _log.info(_promise(name, point))
    found = ", ".join(f"{n} {name}" for name, n in counts.items())
    _log.info(f"{found} in {counted(len(done), 'tomogram')}: {PurePath(folder) / PARTICLES}")
    for name in lists.formats:
        _log.info(f"  {name}: {lists.place(folder, name)}")
    if any(counts.values()):
        radii = {info.name: info.radius for info in card.classes if info.is_particle}
        list_of_picks = str(PurePath(folder) / PARTICLES)
        for line in next_step(list_of_picks, "relion5", done[0].voxel_size, radii, lists.pixel_size):
            _log.info(line)
    report = write_pages(folder).report
    if book.failed:
        for failure in book.failed if book.total > 10 else []:  # because the lines have scrolled away
            _log.warning(f"FAILED  {failure.error}")
        text = f"{len(book.failed)} of {counted(book.total, 'tomogram')} failed"
        _log.warning(f"{text}; the same command tries them again")
    return Run(Path(folder), tuple(done), tuple(book.failed), counts, report)


def _refuse_unusual(card: ModelCard, settings: Settings) -> None:
    """Refuse unusual values of a model or an option, unless the user accepts them."""
    if settings.preprocessing.voxel_size is not None:
        refuse_impossible("pixel_size", settings.preprocessing.voxel_size, "`voxel_size`")
    radii = {info.name: info.radius for info in card.classes if info.is_particle}
    refuse_unusual(
        doubts_of_model(card.voxel_size, radii, f"the model {card.name!r}"), settings.preprocessing.yes
    )


class _Book:
    """Collects the results of the tomograms, and logs one line for each."""

    def __init__(self, total: int) -> None:
        self.total, self.failed = total, list[Failed]()
        self._done, self._skipped, self._fresh = 0, 0, 0
        self._started, self._once = time.monotonic(), 0.0

    def enter(self, outcome: TomogramResult) -> None:
        self._done += 1
        result = outcome.result
        if isinstance(result, Failed):
            self.failed.append(result)
            if self.total > 1 or not result.refused:
                _log.warning(f"FAILED  {result.error}")
            return
        self._fresh += outcome.fresh
        if outcome.fresh:
            self._once = max(self._once, result.seconds.get("load model", 0.0))
        _log.info(_line(result, outcome.fresh) + self._so_far())

    def _so_far(self) -> str:
        if self.total == 1:
            return ""
        left = self.total - self._done
        if not left or not self._fresh:
            return f"  [{self._done}/{self.total}]"
        each = (time.monotonic() - self._started - self._once) / (self._fresh + len(self.failed))
        return f"  [{self._done}/{self.total}, about {duration(each * left)} left]"


def _here(
    model: str,
    tomograms: Sequence[Tomogram],
    folder: str,
    settings: Settings,
    book: _Book,
    progress: Progress,
) -> None:
    for k, tomogram in enumerate(tomograms, start=1):
        title = f"tomogram {k} of {len(tomograms)}, segmented:"
        with progress(title, 100, "%") as line:

            def show(done: int, total: int, line: Line = line) -> None:
                line.update(100 * done // total)

            outcome = attempt(model, tomogram, folder, settings, show)
        if isinstance(outcome.result, Failed) and outcome.result.model:  # it would be the same for all others
            raise ModelRefused(outcome.result.error)
        book.enter(outcome)


def _on_workers(
    model: str,
    tomograms: Sequence[Tomogram],
    folder: str,
    settings: Settings,
    book: _Book,
    cluster: str,
    progress: Progress,
) -> None:
    from tlrun.calls import ClusterLost
    from tlrun.cluster.connect import open_cluster
    from tlrun.fan_out import Call, Failure, Job, Steps, Summary, fan_out
    from tlrun.on_dask import lost_in_words

    def steps(tomogram: Tomogram) -> Steps:
        [outcome] = yield [Call(attempt, model, tomogram, folder, settings)]
        return outcome

    jobs = [Job(str(k), lambda each=each: steps(each)) for k, each in enumerate(tomograms)]  # type: ignore[misc]
    left = {job.name for job in jobs}

    def enter(name: str, outcome: TomogramResult) -> None:
        left.discard(name)
        book.enter(outcome)

    try:
        with (
            lost_in_words(),
            open_cluster(cluster) as client,
            progress("picking", len(tomograms), "tomograms") as line,
        ):
            summary = fan_out(
                jobs,
                client,
                on_progress=lambda p: line.update(p.items_done + p.items_failed),
                on_result=enter,
            )
    except ClusterLost as error:
        summary = Summary(stopped=str(error))

    def lost(failure: Failure) -> TomogramResult:  # its worker died repeatedly
        path = tomograms[int(failure.name)].path
        return TomogramResult(Failed(path, f"{path}: {failure.error}", False, failure.details))

    for failure in summary.failures:
        enter(failure.name, lost(failure))
    for name in sorted(left, key=int):  # the run was stopped before they were picked
        enter(name, lost(Failure(name, summary.stopped, "")))


def _line(picked: Picked, fresh: bool) -> str:
    z, y, x = picked.shape
    counts = ", ".join(f"{n} {name}" for name, n in picked.counts.items())
    if not fresh:
        return f"{picked.name}: {counts}  (picked before)"
    found = [picked.ice, counted(picked.beads, "bead") + " masked" if picked.beads else ""]
    seen = "".join(f"; {each}" for each in found if each)
    return (
        f"{picked.name}: {counts}  ({x} x {y} x {z} voxels of {picked.voxel_size:.5g} Å, "
        f"{counted(picked.n_tiles, 'tile')}, redundancy {picked.redundancy:.2f}, "
        f"{sum(picked.seconds.values()):.1f} s{seen})"
    )


def _table(done: Sequence[Picked], card: ModelCard) -> list[str]:
    """List the picks per tomogram by class, and the times; nothing for a single tomogram."""
    if len(done) < 2:
        return []
    rows: list[tuple[str, ...]] = [("class", "picks", "least", "median", "most")]
    for info in card.classes:
        counts = sorted(picked.counts[info.name] for picked in done)
        spread = (counts[0], statistics.median(counts), counts[-1])
        rows.append((info.name, str(sum(counts)), *(f"{n:g}" for n in spread)))
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines = ["", f"picks in {len(done)} tomograms:"]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"  {row[0]:<{widths[0]}}  " + "  ".join(cells))
    stages: dict[str, float] = {}
    for picked in done:
        for stage, seconds in picked.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    voxels = sum(picked.shape[0] * picked.shape[1] * picked.shape[2] for picked in done)
    spent = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in stages.items())
    return [*lines, f"  {voxels / 1e6:.1f} million voxels; {spent}", ""]


def _promise(name: str, point: Expectation) -> str:
    low, high = point.interval
    return (
        f"{name}: score at least {point.threshold:.3f}, expected precision {point.precision:.2f} "
        f"({low:.2f} to {high:.2f}) and recall {point.recall:.2f}, by {point.n_picks} held-out picks"
    )
