"""``tlgen plan``: what a run would make, and what it would cost, before anything runs."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from catalogs.amounts import data_size, duration
from catalogs.console import counted
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import Classified, SampleSpec, classify, expand
from tlgen.runs import contents, cost_calibration, prepare_structures, recipe_checks
from tlgen.runs.costs import SIMULATE, like, work
from tlgen.tilts.scheme import tilt_series
from tlrun.cluster import launch
from tlrun.cluster.cluster_file import Address, Gpu, Kubernetes, Queue, read_cluster

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What is to be done, as exact counts.

    Attributes
    ----------
    found
        Samples to do, done and stale.
    wanted
        All structures of the recipe.
    structures
        Structures that must be prepared.
    tasks
        Calls on workers: one per structure, and those of all samples.
    tilts
        Tilt images that they make.
    together
        Calls that make these images.
    """

    found: Classified
    wanted: list[prepare_structures.Preparation]
    structures: list[prepare_structures.Preparation]
    tasks: int
    tilts: int
    together: int


@dataclass(frozen=True)
class Costs:
    """The costs: core-seconds by kind of sample and step, bytes, and the uncertainty as a factor."""

    seconds: dict[str, dict[str, float]]
    n_bytes: float
    factor: float

    @property
    def core_hours(self) -> float:
        """Sum over everything."""
        return sum(sum(steps.values()) for steps in self.seconds.values()) / 3600


def count(recipe: Recipe, url: str) -> Counts:
    """Count what ``tlgen run`` would do.

    Raises
    ------
    InputError
        If ``tlgen run`` would refuse the recipe.
    """
    recipe_checks.check_recipe(recipe)
    wanted = prepare_structures.preparations(recipe)
    specs = expand(recipe, {p.key: p.count for p in wanted})
    catalog = Catalog.open(url) if Catalog.exists(url) else None
    found = classify(specs, catalog)
    missing = [
        p for p in wanted if catalog is None or prepare_structures.already_prepared(catalog, p) is None
    ]
    missing = missing if found.todo else []
    calls = work(found.todo)
    return Counts(
        found,
        wanted,
        missing,
        tasks=len(missing) + sum(each.calls for each in calls),
        tilts=sum(each.pieces for each in calls),
        together=sum(each.calls for each in calls if each.function == SIMULATE),
    )


def estimate(recipe: Recipe, todo: Sequence[SampleSpec], budget: float) -> Costs:
    """Estimate the costs of samples by making a small one of each kind on this machine.

    Parameters
    ----------
    recipe
        Of the samples.
    todo
        The samples.
    budget
        Approximate seconds that it may take.
    """
    measured = cost_calibration.measure(recipe, todo, budget)
    seconds: dict[str, dict[str, float]] = {}
    n_bytes, factor = 0.0, 1.0
    for kind, number in Counter(like(spec) for spec in todo).items():
        one = measured[kind]
        tilts = sum(len(tilt_series(spec.acquisition)) for spec in todo if like(spec) == kind)
        seconds[kind] = {
            "pack": number * one.pack,
            "simulate": tilts * one.tilt,
            "finish": tilts * one.finish,
        }
        n_bytes += number * one.n_bytes
        factor = max(factor, one.factor)
    return Costs(seconds, n_bytes, factor)


def price_of(text: str) -> float:
    """Read a price such as ``0.05/core-hour``; the currency is up to the user.

    Raises
    ------
    InputError
        It is not one.
    """
    found = re.fullmatch(r"[^\d.+-]{0,3}(\d+(?:\.\d*)?|\.\d+)(?:/core-hour)?", text.strip())
    if not found:
        raise InputError(f"`price={text!r}` is not a price; give one such as 0.05/core-hour.")
    return float(found[1])


def workers_of(cluster: str) -> int | None:
    """Return the largest number of workers of a cluster; None if it is not known.

    Raises
    ------
    InputError
        As :func:`tlrun.cluster.cluster_file.read_cluster`.
    """
    pool = read_cluster(cluster)["simulate"]
    if isinstance(pool, Address):
        return None
    if isinstance(pool, Queue | Kubernetes):
        return pool.workers.max
    if isinstance(pool, Gpu):
        return len(launch.visible_gpus()[: pool.workers]) or None
    return pool.workers or launch.cores()


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run would do and cost; as a string, the sentences that ``tlgen plan`` shows.

    Attributes
    ----------
    recipe, url
        The recipe, and the corpus that it is for.
    counts
        What is to be done.
    costs
        What it would cost; None if there is nothing to do.
    price
        Of a core-hour, in any currency; None if none was given.
    workers
        Largest number of workers of the cluster; None if it is not known.
    """

    recipe: Recipe
    url: str
    counts: Counts
    costs: Costs | None = None
    price: float | None = None
    workers: int | None = None

    @property
    def money(self) -> float | None:
        """Price of all core-hours; None if there is no price or nothing to do."""
        return None if self.price is None or self.costs is None else self.price * self.costs.core_hours

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds with all workers; None if their number is not known or nothing is to do."""
        if not self.workers or self.costs is None:
            return None
        return 3600 * self.costs.core_hours / min(self.workers, max(1, self.counts.together))

    def __str__(self) -> str:
        return "\n".join([*_counted(self), *_estimated(self)])


def plan(
    recipe: Recipe,
    url: str,
    price: float | str | None = None,
    cluster: str = "local",
    budget: float = 20.0,
) -> Plan:
    """Find out what ``tlgen run`` would do and cost; log it while it becomes known; change nothing.

    Parameters
    ----------
    recipe
        Validated.
    url
        Of the corpus, which need not exist.
    price
        Of a core-hour: a number, or a text for :func:`price_of`.
    cluster
        As ``tlgen run`` takes it.
    budget
        Approximate seconds that the cost measurement may take.

    Raises
    ------
    InputError
        As ``tlgen run`` would refuse the recipe, or the price is not valid.
    """
    each = price_of(price) if isinstance(price, str) else price
    made = Plan(recipe, url, count(recipe, url), price=each, workers=workers_of(cluster))
    for line in _counted(made):
        _log.info(line)
    todo = made.counts.found.todo
    if not todo:
        return made
    recipe_checks.check_decorations(recipe, todo)
    prepare_structures.refuse_small_boxes(recipe)
    prepare_structures.refuse_targets_among_distractors(recipe)
    made = replace(made, costs=estimate(recipe, todo, budget))
    for line in _estimated(made):
        _log.info(line)
    return made


def _counted(plan: Plan) -> Iterator[str]:
    """Say what is to be done."""
    counts, found = plan.counts, plan.counts.found
    yield f"recipe {plan.recipe.name} to {plan.url}"
    for line in contents.lines(plan.recipe, counts.wanted):
        yield f"  {line}"
    yield f"  samples to do   {len(found.todo)}"
    yield f"  done            {len(found.done)}"
    remark = "  (the recipe no longer makes them; they stay)" if found.stale else ""
    yield f"  stale           {len(found.stale)}{remark}"
    groups = f" in {counts.together} groups" if counts.together != counts.tilts else ""
    yield (
        f"  tasks           {counts.tasks}  ({counted(len(counts.structures), 'structure')}, "
        f"{counted(len(found.todo), 'packing')}, {counted(counts.tilts, 'tilt')}{groups}, "
        f"{counted(len(found.todo), 'reconstruction')})"
    )
    if not found.todo:
        yield "nothing to do"


def _estimated(plan: Plan) -> Iterator[str]:
    """Say what it would cost."""
    costs = plan.costs
    if costs is None:
        return
    hours, off = costs.core_hours, costs.factor
    yield "estimated from one small sample of each kind, made on this machine now or within the last hours:"
    for kind, steps in costs.seconds.items():
        parts = ", ".join(f"{step} {duration(seconds)}" for step, seconds in steps.items())
        yield f"  {kind}: {parts}"
    yield f"  core-hours      {hours:.3g}  ({hours / off:.2g} to {hours * off:.2g})"
    yield "  GPU-hours       not estimated: the small samples were simulated on CPU cores"
    yield f"  bytes           {data_size(costs.n_bytes)}"
    if (money := plan.money) is not None:
        yield f"  money           {money:.3g}  ({money / off:.2g} to {money * off:.2g})"
    if plan.seconds is not None and plan.workers is not None:
        yield (
            f"  time            {duration(plan.seconds)} with {counted(plan.workers, 'worker')}, if their "
            "cores are as fast as this one"
        )
    if any(p.variants for p in plan.counts.structures):
        yield "  plus the flexible variants: minutes for each large structure, once per corpus"
