"""A run over many tomograms: in this process, or one at a time on each of several workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

import click

from catalogs.calibration import Expectation
from catalogs.errors import InputError
from catalogs.model_file import read_card
from tlpick.files import PARTICLES
from tlpick.picks import refuse_unknown_classes, thresholds
from tlpick.pipeline import Failed, Picked, Settings, attempt, check_names, collect
from tlpick.report import write_report


def run(
    model: str,
    tomograms: Sequence[str],
    folder: str,
    settings: Settings,
    workers: int,
    precision: float | None = None,
) -> bool:
    """Pick every tomogram that the folder does not hold picks of yet, and say so line by line.

    Parameters
    ----------
    model
        Path of the model file.
    tomograms
        Paths or URLs.
    folder
        Where the picks go; see :mod:`tlpick.pipeline` for its layout.
    settings
        Of the run.
    workers
        Tomograms at a time; more than one run in processes of their own.
    precision
        The run's list keeps the picks that promise this share of right ones; None: all.

    Returns
    -------
    bool
        True if no tomogram failed.

    Raises
    ------
    InputError
        If the model is none or promises no such precision, two tomograms have one name, or the only
        tomogram is at fault.
    """
    card = read_card(model)
    refuse_unknown_classes(settings.localising, card)
    least = {} if precision is None else thresholds(card, precision)
    check_names(tomograms)
    each = _here if workers == 1 else _on_workers
    failed: list[Failed] = []
    for outcome in each(model, tomograms, folder, settings, workers):
        if isinstance(outcome, Picked):
            click.echo(_line(outcome))
        elif outcome.refused and len(tomograms) == 1:
            raise InputError(outcome.error)
        else:
            failed.append(outcome)
            click.echo(f"FAILED  {outcome.error}", err=True)

    done, counts = collect(model, folder, settings, failed, least)
    for name, point in least.items():
        click.echo(_promise(name, point))
    found = ", ".join(f"{n} {name}" for name, n in counts.items())
    click.echo(f"{found} in {_number(len(done), 'tomogram')}: {PurePath(folder) / PARTICLES}")
    click.echo(f"report: {write_report(folder)}")
    if failed:
        text = f"{len(failed)} of {_number(len(tomograms), 'tomogram')} failed"
        click.echo(f"{text}; the same command tries them again", err=True)
    return not failed


def _here(
    model: str, tomograms: Sequence[str], folder: str, settings: Settings, _workers: int
) -> Iterator[Picked | Failed]:
    from tlrun.progress import ProgressLine

    for k, tomogram in enumerate(tomograms, start=1):
        title = f"tomogram {k} of {len(tomograms)}, segmented:"
        with ProgressLine(title, 100, "%") as line:

            def show(done: int, total: int, line: ProgressLine = line) -> None:
                line.update(100 * done // total, f"tile {done} of {total}")

            outcome = attempt(model, tomogram, folder, settings, show)
        yield outcome


def _on_workers(
    model: str, tomograms: Sequence[str], folder: str, settings: Settings, workers: int
) -> Iterator[Picked | Failed]:
    from tlrun.clusters import open_cluster
    from tlrun.fan_out import Call, Job, Steps, fan_out
    from tlrun.progress import ProgressLine

    def steps(tomogram: str) -> Steps:
        [outcome] = yield [Call(attempt, model, tomogram, folder, settings)]
        return outcome

    jobs = [Job(str(k), lambda path=path: steps(path)) for k, path in enumerate(tomograms)]  # type: ignore[misc]
    with (
        open_cluster(f"local:{workers}") as client,
        ProgressLine("picking", len(tomograms), "tomograms") as line,
    ):
        summary = fan_out(jobs, client, on_progress=lambda p: line.update(p.items_done + p.items_failed))
    lost = {int(failure.name): failure for failure in summary.failures}
    for k, tomogram in enumerate(tomograms):
        if k in lost:  # its worker died
            yield Failed(tomogram, f"{tomogram}: {lost[k].error}", False, lost[k].details)
        else:
            yield summary.results[str(k)]


def _line(picked: Picked) -> str:
    z, y, x = picked.shape
    counts = ", ".join(f"{n} {name}" for name, n in picked.counts.items())
    return (
        f"{picked.name}: {counts}  ({x} x {y} x {z} voxels of {picked.voxel_size:.5g} Å, "
        f"{_number(picked.n_tiles, 'tile')}, redundancy {picked.redundancy:.2f}, "
        f"{sum(picked.seconds.values()):.1f} s)"
    )


def _promise(name: str, point: Expectation) -> str:
    low, high = point.interval
    return (
        f"{name}: score at least {point.threshold:.3f}, expected precision {point.precision:.2f} "
        f"({low:.2f} to {high:.2f}) and recall {point.recall:.2f}, by {point.n_picks} held-out picks"
    )


def _number(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
