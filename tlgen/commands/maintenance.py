"""``tlgen verify``, ``repair``, ``copy``, ``export`` and ``index``: commands for a whole corpus."""

from __future__ import annotations

from collections.abc import Sequence

import click

from catalogs.amounts import data_size
from catalogs.corpus.catalog import Catalog
from catalogs.progress import ProgressLine

_SHOWN = 20  # problems of each kind that a repair lists


def verify(url: str, quick: bool) -> bool:
    """Check the corpus at ``url``, print each problem as it is found, and return whether there are none.

    Raises
    ------
    InputError
        If there is no corpus.
    """
    catalog = Catalog.open(url)
    found = 0
    samples = checked = 0
    with ProgressLine("checking", 1, "samples") as line:

        def tell(done: int, total: int, n_bytes: int) -> None:
            nonlocal samples, checked
            samples, checked = done, n_bytes
            line.update(done, "" if quick else data_size(n_bytes), total=total)

        for problem in catalog.problems(deep=not quick, on_progress=tell):
            found += 1
            click.echo(problem.text)
    read = "names and sizes compared" if quick else f"{data_size(checked)} compared with their checksums"
    if not found:
        click.echo(f"{url} is complete: {_n(samples, 'sample')}, {read}")
    else:
        said = f"{_n(found, 'problem')} in {_n(samples, 'sample')} ({read})"
        click.echo(f"{said}; tlgen repair {url} repairs what can be repaired", err=True)
    return not found


def repair(url: str, really: bool, grace_hours: float, quick: bool) -> bool:
    """Print what is wrong and, if ``really``, repair it; returns whether nothing is left to do.

    Raises
    ------
    InputError
        If there is no corpus.
    """
    catalog = Catalog.open(url)
    with ProgressLine("checking", 1, "samples") as line:
        todo = catalog.plan_repair(
            grace=grace_hours * 3600,
            deep=not quick,
            on_progress=lambda done, total, _: line.update(done, total=total),
        )
    _tell("damaged, to be removed; tlgen run makes them again", [
        f"{name or '?'} ({sample_id})" for sample_id, name in todo.remake.items()
    ])  # fmt: skip
    _tell("unfinished or abandoned, to be removed", list(todo.groups))
    _tell("damaged objects, or objects of no sample, to be removed", list(todo.objects))
    _tell(
        f"without a record, but younger than {grace_hours:g} h: another run may be writing them", todo.young
    )
    _tell("of a newer format version; they stay; update this program", todo.newer)
    _tell("not made by this program, or behind a symbolic link; they stay", todo.foreign)
    stale = sum(problem.kind == "index" for problem in todo.problems)
    if stale:
        click.echo(f"the index differs from the records in {_n(stale, 'place')}; a new one is to be written")
    if not (todo.remake or todo.groups or todo.objects or stale):
        click.echo(f"nothing to repair in {url}")
        return not (todo.young or todo.newer)
    if not really:
        click.echo("nothing has been changed; give --yes to do this")
        return False
    catalog.repair(todo)
    click.echo(f"repaired; {_n(len(todo.remake), 'sample')} to make again")
    return True


def copy(source: str, target: str, where: str | None) -> bool:
    """Copy samples to another corpus and print the result; returns whether all of them are there.

    Raises
    ------
    InputError
        If there is no corpus, the query is wrong, or the target cannot be written.
    """
    catalog = Catalog.open(source)
    with ProgressLine("copying", 1, "samples") as line:
        done = catalog.copy_to(
            target,
            where,
            on_progress=lambda n, total, n_bytes: line.update(n, data_size(n_bytes), total=total),
        )
    for sample_id, reason in done.failed.items():
        click.echo(f"{sample_id} is damaged and was not copied: {reason}", err=True)
    were = "was" if len(done.present) == 1 else "were"
    there = f", {len(done.present)} {were} there already" if done.present else ""
    click.echo(f"{_n(len(done.copied), 'sample')} copied ({data_size(done.n_bytes)}){there}")
    return not done.failed


def export(url: str, folder: str, layout: str, where: str | None, copies: bool) -> bool:
    """Export samples and print the result; returns whether all of them are there.

    Raises
    ------
    InputError
        If there is no corpus, the query is wrong, or the folder contains other files.
    """
    from catalogs.export import LAYOUTS
    from catalogs.export import export as write

    with ProgressLine("exporting", 1, "samples") as line:
        done = write(
            url,
            folder,
            layout,
            where=where,
            copies=copies,
            on_progress=lambda n, total: line.update(n, total=total),
        )
    for name, reason in done.failed.items():
        click.echo(f"{name} was not exported: {reason}", err=True)
    there = f", {len(done.present)} were there already" if done.present else ""
    click.echo(f"{folder}: {LAYOUTS[layout].title}; {_n(len(done.written), 'sample')} exported{there}")
    for remark in done.remarks:
        click.echo(f"  {remark}")
    return not done.failed


def publish(url: str, folder: str | None, licence: str, creators: Sequence[str], home: str | None) -> None:
    """Describe a corpus for those who will find it, and say what was written.

    Raises
    ------
    InputError
        If there is no corpus, or the place cannot be written.
    """
    from catalogs.export.published import Owner
    from catalogs.export.published import publish as write

    for path in write(url, Owner(licence, tuple(creators), home or ""), folder):
        click.echo(path)


def index(url: str) -> None:
    """Write a new index of the corpus at ``url`` and print how many samples it has.

    Raises
    ------
    InputError
        If there is no corpus.
    """
    click.echo(f"{_n(Catalog.open(url).compact(), 'sample')} in the index of {url}")


def _n(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _tell(what: str, things: list[str] | tuple[str, ...]) -> None:
    if things:
        click.echo(f"{len(things)} {what}:")
        for thing in things[:_SHOWN]:
            click.echo(f"  {thing}")
        if len(things) > _SHOWN:
            click.echo(f"  and {len(things) - _SHOWN} more")
