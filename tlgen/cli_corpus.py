"""The commands of ``tlgen`` that list, check, mend and copy a corpus that is there."""

from __future__ import annotations

import sys

import click

from catalogs import console


@click.command()
@click.argument("url")
@click.option("--where", metavar="QUERY", help="E.g. \"dose < 100 and defocus > 2 and split == 'test'\".")
@click.option("--columns", metavar="A,B,...", help="Show these columns, or all.")
@click.option("--sort", default="name", show_default=True, metavar="A,-B,...", help="-B: downwards.")
@click.option("--csv", "form", flag_value="csv", help="All columns, or those chosen, as CSV.")
@click.option("--json", "form", flag_value="json", help="The same as JSON, one object a line.")
@click.option("--paths", is_flag=True, help="Print only where the samples lie, one a line.")
@click.option(
    "--failed", is_flag=True, help="List instead what could not be made, and why; --json: all of it."
)
def ls(
    url: str, where: str | None, columns: str | None, sort: str, form: str | None, paths: bool, failed: bool
) -> None:
    """List the samples of the corpus at URL."""
    from tlgen.commands.listing import failed_items, listing

    if failed:
        for line in failed_items(url, as_json=form == "json"):
            click.echo(line)
        return

    for line in listing(url, where, paths, columns=columns, sort=sort, form=form or "table"):
        click.echo(line)


@click.command()
@click.argument("url")
@click.option("--port", type=click.IntRange(1, 65535), help="Of this machine; any that is free if left out.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def browse(url: str, port: int | None, no_browser: bool) -> None:
    """Show the corpus at URL as a page in the browser: samples, parameters, sections, labels, tilts.

    The page is served to this machine only, to whoever has its address, and nothing is changed. Ctrl-C
    ends it.
    """
    from tlgen.commands.browse import browse as show

    show(url, port, not no_browser)


@click.command()
@click.argument("url")
@click.option("--quick", is_flag=True, help="Compare names and sizes only; read no volumes.")
def verify(url: str, quick: bool) -> None:
    """Compare every object of the corpus at URL with its checksum, and the index with the samples.

    Prints what is wrong, one a line, and ends with status 1 if anything is.
    """
    from tlgen.commands.maintenance import verify as check

    sys.exit(0 if check(url, quick) else 1)


@click.command()
@click.argument("url")
@click.option("--yes", is_flag=True, help="Do it; without it, only say what would be done.")
@click.option("--grace", default=24.0, show_default=True, metavar="HOURS", help="Leave what is younger.")
@click.option("--quick", is_flag=True, help="Compare names and sizes only; read no volumes.")
def repair(url: str, yes: bool, grace: float, quick: bool) -> None:
    """Take out of the corpus at URL what is damaged or given up, and write its index anew.

    Says what it would do; with --yes it does it. Damaged samples are listed: tlgen run makes them again.
    Ends with status 1 if something is left to do.
    """
    from tlgen.commands.maintenance import repair as mend

    sys.exit(0 if mend(url, yes, grace, quick) else 1)


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--where", metavar="QUERY", help="Copy only these samples, e.g. \"split == 'test'\".")
def copy(source: str, target: str, where: str | None) -> None:
    """Copy the samples of the corpus SOURCE to TARGET, a folder, s3://... or gs://...

    Every object is compared with its checksum. Run it again after an interruption: what is there already is
    not copied again.
    """
    from tlgen.commands.maintenance import copy as make_copy

    sys.exit(0 if make_copy(source, target, where) else 1)


@click.command()
@click.argument("url")
@click.option("--to", "folder", required=True, metavar="FOLDER", help="A new folder, s3://... or gs://...")
@click.option(
    "--format",
    "layout",
    cls=console.Renamed,
    former=["--as"],
    required=True,
    type=console.Choice(["mrc", "deepfinder", "copick", "original"]),
    help="MRC with STAR, DeepFinder's training set, a copick project, the original scripts' results.",
)
@click.option("--where", metavar="QUERY", help="Export only these samples, e.g. \"split == 'test'\".")
@click.option("--copy", "copies", is_flag=True, help="copick: copy volumes instead of hard links to them.")
def export(url: str, folder: str, layout: str, where: str | None, copies: bool) -> None:
    """Export the samples of the corpus at URL for other programs.

    Run it again after an interruption or when the corpus has grown: files that are there are kept.
    """
    from tlgen.commands.maintenance import export as make_export

    sys.exit(0 if make_export(url, folder, layout, where, copies) else 1)


@click.command()
@click.argument("url")
def index(url: str) -> None:
    """Write a new index of the corpus at URL, so that it opens quickly."""
    from tlgen.commands.maintenance import index as write_index

    write_index(url)


#: All of them, for the program.
COMMANDS = (ls, browse, verify, repair, copy, export, index)
