"""``tlgen run``: expand a recipe, make the samples that the corpus lacks, and report the result."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catalogs.amounts import data_size
from catalogs.console import counted
from catalogs.corpus.catalog import Catalog
from catalogs.progress import Progress, progress_of
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import Classified, SampleSpec, classify, expand
from tlgen.runs import costs, history, make_sample, prepare_structures, recipe_checks
from tlgen.runs.bookkeeping import Bookkeeping
from tlgen.runs.jobs import sample_job
from tlgen.simulate.engine import engine
from tlgen.tilts.scheme import tilt_series
from tlrun.calls import ClusterLost
from tlrun.cluster.cluster_file import read_cluster
from tlrun.cluster.connect import check_cluster, describe, open_pools, slots
from tlrun.fan_out import Call, Failure, Job, Steps, Summary, fan_out
from tlrun.interrupts import finish_first, terminated_in_order
from tlrun.memory import TooLarge
from tlrun.on_dask import lost_in_words
from tlrun.reporting.display import Display, account
from tlrun.reporting.journal import Journal

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)

#: If this many samples fail one after the other, without a success in between, the run stops.
MOST_IN_A_ROW = 20
#: Number of slice thicknesses for which the displaced ice is computed beforehand.
MOST_SLICES = 3
# Where the stack of a process that crashed, or was stopped, begins in its log.
_STACK = re.compile(r"^(?:Fatal Python error|Current thread|Thread) ?(?=:|0x)", re.MULTILINE)
#: Seconds that one step (packing, one tilt, the rest) may take.
TIME_LIMIT = 2 * 3600.0


def run(
    recipe: Recipe,
    url: str,
    cluster: str,
    retries: int,
    time_limit: float = TIME_LIMIT,
    log_json: str | None = None,
    *,
    progress: bool | Progress = False,
) -> bool:
    """Make the samples of a recipe that the corpus at ``url`` lacks.

    Parameters
    ----------
    recipe
        Validated.
    url
        Of the corpus; made if it is not there.
    cluster
        One word or a file, as :func:`tlrun.cluster.connect.open_pools` takes it.
    retries
        Of each call that raises, dies or hangs.
    time_limit
        Seconds after which a call hangs.
    log_json
        File that gets the run as JSON lines, see :mod:`tlrun.reporting.journal`.
    progress
        True shows the run and each finished sample; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    bool
        Whether the corpus now has every sample of the recipe.

    Raises
    ------
    InputError
        A structure is missing, an engine cannot honour a setting, or the corpus has other classes.
    """
    read_cluster(cluster)
    recipe_checks.check_recipe(recipe)
    wanted = prepare_structures.preparations(recipe)
    specs = expand(recipe, {p.key: p.count for p in wanted})
    found = classify(specs, Catalog.open(url) if Catalog.exists(url) else None)
    _tell(recipe, url, found)
    with Journal(log_json) as journal:
        if not found.todo:
            journal.write("end", **history.account(recipe.name, Summary(), {}, 0, ()))
            return True

        check_cluster(cluster)
        recipe_checks.check_decorations(recipe, found.todo)
        prepare_structures.refuse_small_boxes(recipe)
        prepare_structures.refuse_targets_among_distractors(recipe)
        catalog = Catalog.create(
            url,
            classes=prepare_structures.class_infos(recipe),
            recipe=recipe.model_dump(mode="json", exclude_defaults=True),
            name=recipe.name,
        )
        this = _Run(recipe, catalog, found.todo, retries, time_limit, journal, progress)
        try:
            return _on_clusters(this, cluster, wanted)
        except ClusterLost as lost:
            this.end(Summary(stopped=str(lost)))
            _tell_stopped(str(lost))
            return False


@dataclass
class _Run:
    """Data that all parts of one run need; the clusters are added when they are open."""

    recipe: Recipe
    catalog: Catalog
    todo: list[SampleSpec]
    retries: int
    time_limit: float
    journal: Journal
    progress: bool | Progress
    clients: Mapping[str, Client] = field(default_factory=dict)
    workers: Sequence[str] = ()
    stop: Callable[[], bool] = lambda: False

    @property
    def names(self) -> dict[str, str]:
        """Names of the samples by their ids."""
        return {spec.sample_id: spec.name for spec in self.todo}

    def end(self, summary: Summary) -> None:
        """Write the result of the run into the corpus and the journal."""
        account = history.account(self.recipe.name, summary, self.names, len(self.todo), self.workers)
        history.record(self.catalog.url, account)
        self.journal.write("end", **account)


def _on_clusters(this: _Run, cluster: str, wanted: list[prepare_structures.Preparation]) -> bool:
    with (
        terminated_in_order(),
        lost_in_words(),
        open_pools(
            cluster,
            one_call_per_process=any(engine(s.acquisition.engine).one_call_per_process for s in this.todo),
            constants=("tlgen.recipes.samples:DATA_VERSION",),
        ) as clients,
        finish_first(_tell_interrupt) as stop,
        Bookkeeping(this.catalog.url) as book,
    ):
        # described now, because they may be gone at the end
        this.clients, this.workers, this.stop = clients, describe(clients), stop
        for line in this.workers:
            _log.info(f"  {line}")
        prepared = _prepare(this, wanted, book)
        done = prepared is not None and _make(this, prepared, book)
    if book.complaint:
        _log.warning(f"  {book.complaint}")
    return done


def _tell(recipe: Recipe, url: str, found: Classified) -> None:
    total = len(found.todo) + len(found.done)
    stale = f"; {len(found.stale)} in it that the recipe does not make, which stay" if found.stale else ""
    _log.info(f"recipe {recipe.name}: {total} samples, {len(found.done)} of them in {url} already{stale}")


def _tell_interrupt() -> None:
    _log.warning(
        "interrupted: samples that have begun are finished, no others begin; once more stops at once, "
        "and the same command goes on later"
    )


def _prepare(
    this: _Run, wanted: list[prepare_structures.Preparation], book: Bookkeeping
) -> list[prepare_structures.Prepared] | None:
    """Make the variants of structures that do not exist yet; None if some failed."""
    started, catalog = time.monotonic(), this.catalog
    found = {p.key: prepare_structures.already_prepared(catalog, p) for p in wanted}
    missing = [p for p in wanted if found[p.key] is None]
    slices = slices_of(this.todo)

    def job(preparation: prepare_structures.Preparation) -> Job:
        def steps() -> Steps:
            return (yield [Call(prepare_structures.prepare, catalog.url, preparation, slices)])[0]

        return Job(f"{preparation.name}-{preparation.key}", steps)

    names = {job(p).name: p.name for p in missing}

    def tell_failure(failure: Failure) -> None:
        book.failed(failure, names[failure.name])
        this.journal.failed(failure, names[failure.name])

    # the largest first: its normal modes take longest
    missing.sort(key=lambda p: (p.variants is None, p.name))
    with progress_of(this.progress)("structures and their variants", len(missing), "structures") as line:
        summary = fan_out(
            [job(p) for p in missing],
            this.clients,
            retries=this.retries,
            time_limit=this.time_limit,
            stop=this.stop,
            hopeless=_refused,
            fatal=_storage_is_full,
            on_progress=lambda p: line.update(p.items_done),
            on_result=lambda name, _: book.made(name),
            on_failure=tell_failure,
        )
    if summary.failures or summary.stopped:
        this.end(Summary(failures=summary.failures, stopped=summary.stopped or "a structure is missing"))
        _report(summary, "structure", names, started)
        return None
    found |= {prepared.key: prepared for prepared in summary.results.values()}
    return [p for p in found.values() if p is not None]


def slices_of(specs: Sequence[SampleSpec]) -> tuple[float, ...]:
    """List the thicknesses (Å) of slices for which samples need the ice that structures displace.

    Empty if there are many thicknesses; then the workers compute the ice.
    """
    acquisitions = [spec.acquisition for spec in specs if spec.acquisition.engine == "multislice"]
    found = sorted({acq.slice_thickness for acq in acquisitions if acq.ice_density})
    return tuple(found) if len(found) <= MOST_SLICES else ()


def _make(this: _Run, prepared: list[prepare_structures.Prepared], book: Bookkeeping) -> bool:
    """Make the samples, and show the progress."""
    started, todo, names = time.monotonic(), this.todo, this.names
    classes = tuple(info.name for info in this.catalog.classes)
    content = this.recipe.model_dump(mode="json", exclude_defaults=True)
    tilts = {spec.sample_id: len(tilt_series(spec.acquisition)) for spec in todo}
    by_others = 0
    _log.info(f"  {_memory(todo, tilts, slots(this.clients))}")

    def tell(sample_id: str, made: make_sample.Made) -> None:
        nonlocal by_others
        book.made(sample_id)
        by_others += not made.here
        record = made.record
        display.done(
            record.name,
            _line(made),
            sample_id=sample_id,
            seconds=record.seconds,
            n_bytes=record.n_bytes,
            here=made.here,
        )

    def tell_failure(failure: Failure) -> None:
        book.failed(failure, names[failure.name])
        display.failed(failure, names[failure.name])

    with Display(
        "simulating",
        costs.work(todo),
        len(todo),
        unit="tilts",
        journal=this.journal,
        progress=this.progress,
    ) as display:
        summary = fan_out(
            (
                sample_job(this.catalog.url, spec, prepared, classes, content)
                for spec in costs.one_of_each_first(todo)
            ),
            this.clients,
            retries=this.retries,
            time_limit=this.time_limit,
            keep_results=False,
            measure=lambda made: made.record.n_bytes if made.here else 0,
            stop=this.stop,
            hopeless=_refused,
            fatal=_storage_is_full,
            most_in_a_row=MOST_IN_A_ROW,
            on_progress=display.update,
            on_result=tell,
            on_failure=tell_failure,
        )
    if by_others:
        _log.info(f"  {by_others} of them were made meanwhile by another run into this corpus")
    if summary.progress is not None:
        for text in account(summary.progress, len(todo)):
            _log.info(text)
    this.end(summary)
    return _report(summary, "sample", names, started)


def _line(made: make_sample.Made) -> str:
    record = made.record
    acquisition, seconds = record.acquisition, sum(record.seconds.values())
    return (
        f"{record.name:14} {acquisition.engine:10} dose {acquisition.dose:5.1f} e/Å²  "
        f"defocus {acquisition.defocus:4.2f} µm  {record.n_tilts} tilts  "
        f"{record.n_particles} targets + {record.n_distractors} distractors, "
        f"{100 * record.occupancy:.0f} % full  {seconds:.0f} CPU-s"
        + ("" if made.here else "  (another run)")
        + "".join(f"\n      {line}" for line in made.short)
    )


def _memory(todo: list[SampleSpec], tilts: dict[str, int], workers: int) -> str:
    """Describe the memory of the run: images of begun samples here, calls on each host."""
    images = max(tilts[spec.sample_id] * spec.shape[1] * spec.shape[2] * 4 for spec in todo)
    begun = min(len(todo), 2 * workers)
    return (
        f"memory: at most {counted(begun, 'sample')} begun, {data_size(begun * images)} of images in this "
        "process; on each host steps wait for each other where they do not fit together"
    )


def _refused(error: BaseException) -> bool:
    """Tell whether an error would be the same in another attempt, because it depends only on the sample."""
    return isinstance(error, prepare_structures.Refused | TooLarge | ArithmeticError)


def _storage_is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _report(summary: Summary, what: str, names: dict[str, str], started: float) -> bool:
    """Report what was made and what failed, with the reason of each failure."""
    _log.info(f"{counted(summary.done, what)} made in {time.monotonic() - started:.0f} s")
    for failure in summary.failures:
        _log.warning(f"  {_said(failure, names.get(failure.name, failure.name))}")
    if summary.failures:
        text = "failed; the rest is kept, and the same command tries only these (tlgen ls --failed tells why)"
        _log.warning(f"{counted(len(summary.failures), what)} {text}")
    if summary.stopped:
        _tell_stopped(summary.stopped)
    return not summary.failures and not summary.stopped


def _tell_stopped(why: str) -> None:
    _log.warning(f"stopped: {why}; what is finished is kept, and the same command goes on")


def _said(failure: Failure, name: str) -> str:
    tries = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
    where = f" in {failure.kind}" if failure.kind else ""
    last = _STACK.split(failure.log, maxsplit=1)[0].splitlines()[-1:]
    end = f"; its process said last: {last[0].strip()}" if last else ""
    return f"{name} failed{where}{tries}: {failure.error}{end}"
