"""``tlgen run``: expands a recipe, makes what the corpus does not have yet, and says what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from catalogs.catalog import Catalog
from catalogs.schema import SampleRecord
from tlgen import pipeline
from tlgen.recipe import Recipe
from tlgen.samples import SampleSpec, expand
from tlgen.simulate.base import engine
from tlgen.tilts import tilt_series
from tlrun.clusters import n_workers, open_cluster, parse
from tlrun.fan_out import Call, Job, Steps, Summary, fan_out
from tlrun.progress import ProgressLine

if TYPE_CHECKING:
    from distributed import Client


def run(recipe: Recipe, url: str, cluster: str, retries: int) -> bool:
    """Make the samples of a recipe that the corpus at ``url`` lacks.

    Parameters
    ----------
    recipe
        Validated.
    url
        Of the corpus; made if it is not there.
    cluster
        One word, as :func:`tlrun.clusters.open_cluster` takes it.
    retries
        Of each call that raises.

    Returns
    -------
    bool
        Whether the corpus now has every sample of the recipe.

    Raises
    ------
    InputError
        A structure is missing, an engine cannot honour a setting, or the corpus has other classes.
    """
    parse(cluster)
    started = time.monotonic()
    wanted = pipeline.preparations(recipe)
    specs = expand(recipe, {p.key: p.count for p in wanted})
    for spec in specs:
        engine(spec.acquisition.engine).check(spec.acquisition)
    done = set(Catalog.open(url).sample_ids()) if Catalog.exists(url) else set()
    todo = [spec for spec in specs if spec.sample_id not in done]
    click.echo(
        f"recipe {recipe.name}: {len(specs)} samples, {len(specs) - len(todo)} of them in {url} already"
    )
    if not todo:
        return True

    pipeline.refuse_targets_among_distractors(recipe)
    catalog = Catalog.create(
        url,
        classes=pipeline.class_infos(recipe),
        recipe=recipe.model_dump(mode="json", exclude_defaults=True),
        name=recipe.name,
    )
    with open_cluster(cluster) as client:
        where = f", dashboard at {client.dashboard_link}" if client.dashboard_link else ""
        click.echo(f"  {n_workers(client)} worker processes{where}")
        prepared, failed = _prepare(catalog, wanted, client, retries)
        if failed.failures:
            return _report(failed, "structures", started)
        summary = _make(catalog, todo, prepared, recipe, client, retries)
    catalog.compact()
    return _report(summary, "samples", started)


def _prepare(
    catalog: Catalog, wanted: list[pipeline.Preparation], client: Client, retries: int
) -> tuple[list[pipeline.Prepared], Summary]:
    """Make the structures' variants, those that an earlier run has not made."""
    found = {p.key: pipeline.already_prepared(catalog, p) for p in wanted}
    missing = [p for p in wanted if found[p.key] is None]

    def job(preparation: pipeline.Preparation) -> Job:
        def steps() -> Steps:
            return (yield [Call(pipeline.prepare, catalog.url, preparation)])[0]

        return Job(f"{preparation.name}-{preparation.key}", steps)

    # the largest first: its normal modes take longest
    missing.sort(key=lambda p: (p.variants is None, p.name))
    with ProgressLine("structures and their variants", len(missing), "structures") as line:
        summary = fan_out(
            [job(p) for p in missing],
            client,
            retries=retries,
            on_progress=lambda p: line.update(p.items_done),
        )
    found |= {prepared.key: prepared for prepared in summary.results.values()}
    return [p for p in found.values() if p is not None], summary


def _make(
    catalog: Catalog,
    todo: list[SampleSpec],
    prepared: list[pipeline.Prepared],
    recipe: Recipe,
    client: Client,
    retries: int,
) -> Summary:
    """Make the samples and say a line for each as it is committed."""
    names = tuple(info.name for info in catalog.classes)
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    tilts = sum(len(tilt_series(spec.acquisition)) for spec in todo)

    def tell(_: str, record: SampleRecord) -> None:
        acquisition, seconds = record.acquisition, sum(record.seconds.values())
        click.echo(
            f"  {record.name:14} {acquisition.engine:10} dose {acquisition.dose:5.1f} e/Å²  "
            f"defocus {acquisition.defocus:4.2f} µm  {record.n_tilts} tilts  "
            f"{record.n_particles} targets + {record.n_distractors} distractors, "
            f"{100 * record.occupancy:.0f} % full  {seconds:.0f} CPU-s"
        )

    with ProgressLine("simulating", tilts + 2 * len(todo), "steps") as line:
        return fan_out(
            (pipeline.sample_job(catalog.url, spec, prepared, names, content) for spec in todo),
            client,
            retries=retries,
            on_progress=lambda p: line.update(
                sum(p.calls_done.values()),
                f"{p.items_done} of {len(todo)} samples"
                + (f", {p.items_failed} failed" if p.items_failed else ""),
            ),
            on_result=tell,
        )


def _report(summary: Summary, what: str, started: float) -> bool:
    """Say what was made and what failed, with the reason of each failure."""
    click.echo(f"{len(summary.results)} {what} made in {time.monotonic() - started:.0f} s")
    for failure in summary.failures:
        click.echo(f"  {failure.name} failed: {failure.error}", err=True)
    if summary.failures:
        click.echo(
            f"{len(summary.failures)} {what} failed; the rest is kept, and the same command tries only these",
            err=True,
        )
    return not summary.failures
