"""The commands of ``tlgen`` that list, check, repair and copy a corpus."""

from __future__ import annotations

import sys

import click

from catalogs import console


@click.command()
@click.argument("url")
@click.option("--where", metavar="QUERY", help="E.g. \"dose < 100 and defocus > 2 and split == 'test'\".")
@click.option("--columns", metavar="A,B,...", help="Show these columns, or all.")
@click.option("--sort", default="name", show_default=True, metavar="A,-B,...", help="-B: downwards.")
@click.option("--csv", "form", flag_value="csv", help="Print all columns, or the chosen ones, as CSV.")
@click.option("--json", "form", flag_value="json", help="Print the same as JSON, one object per line.")
@click.option("--paths", is_flag=True, help="Print only the paths of the samples, one per line.")
@click.option(
    "--failed",
    is_flag=True,
    help="List the samples that could not be made, and why; with --json, all details.",
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
@click.option("--port", type=click.IntRange(1, 65535), help="Port of this machine; by default any free one.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def browse(url: str, port: int | None, no_browser: bool) -> None:
    """Show the corpus at URL as a page in the browser: samples, parameters, sections, labels, tilts.

    The page can be opened on this machine only, with the address that is printed. Nothing is changed. Ctrl-C
    stops it.
    """
    from tlgen.commands.browse import browse as show

    show(url, port, not no_browser)


@click.command()
@click.argument("url")
@click.option("--quick", is_flag=True, help="Compare names and sizes only; read no volumes.")
def verify(url: str, quick: bool) -> None:
    """Compare every object of the corpus at URL with its checksum, and the index with the samples.

    Prints each problem on a line, and ends with status 1 if there is any.
    """
    from tlgen.commands.maintenance import verify as check

    sys.exit(0 if check(url, quick) else 1)


@click.command()
@click.argument("url")
@click.option("--yes", is_flag=True, help="Repair; without it, only print what would be done.")
@click.option("--grace", default=24.0, show_default=True, metavar="HOURS", help="Leave what is younger.")
@click.option("--quick", is_flag=True, help="Compare names and sizes only; read no volumes.")
def repair(url: str, yes: bool, grace: float, quick: bool) -> None:
    """Remove damaged and abandoned data from the corpus at URL, and write a new index.

    Prints what it would do; with --yes it does it. Damaged samples are listed: tlgen run makes them again.
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

    Every object is compared with its checksum. Run it again after an interruption: existing samples are not
    copied again.
    """
    from tlgen.commands.maintenance import copy as make_copy

    sys.exit(0 if make_copy(source, target, where) else 1)


@click.command()
@click.argument("url")
@click.option("--to", "folder", metavar="FOLDER", help="A new folder, s3://... or gs://...")
@click.option(
    "--format",
    "layout",
    cls=console.Renamed,
    former=["--as"],
    type=console.Choice(["mrc", "deepfinder", "copick", "original"]),
    help="MRC with STAR, DeepFinder's training set, a copick project, the original scripts' results.",
)
@click.option("--where", metavar="QUERY", help="Export only these samples, e.g. \"split == 'test'\".")
@click.option("--copy", "copies", is_flag=True, help="copick: copy volumes instead of making hard links.")
@click.option(
    "--croissant",
    is_flag=True,
    help="To publish it: write croissant.json, README.md and samples.parquet into the corpus, or to --to.",
)
@click.option("--licence", metavar="NAME|URL", help="With --croissant: such as CC-BY-4.0.")
@click.option("--creator", "creators", multiple=True, metavar="NAME", help="With --croissant; repeat it.")
@click.option("--home", metavar="URL", help="With --croissant: where the corpus will be found.")
def export(
    url: str,
    folder: str | None,
    layout: str | None,
    where: str | None,
    copies: bool,
    croissant: bool,
    licence: str | None,
    creators: tuple[str, ...],
    home: str | None,
) -> None:
    """Export the samples of the corpus at URL for other programs, or describe it to publish it.

    Run it again after an interruption or when the corpus has grown: existing files are kept.
    """
    from catalogs.errors import InputError
    from tlgen.commands import maintenance

    if croissant:
        for given, name in ((layout, "--format"), (where, "--where"), (copies, "--copy")):
            if given:
                raise InputError(
                    f"--croissant describes the corpus as it is, and takes no {name}; "
                    "tlgen copy --where makes a smaller one"
                )
        if licence is None:
            raise InputError("--croissant needs --licence, such as CC-BY-4.0: only you can give one")
        maintenance.publish(url, folder, licence, creators, home)
        return
    for given, name in ((licence, "--licence"), (creators != (), "--creator"), (home, "--home")):
        if given:
            raise InputError(f"{name} is for --croissant")
    if folder is None or layout is None:
        missing = "--to" if folder is None else "--format"
        raise InputError(f"{missing} is missing: give --to FOLDER and --format, or --croissant to publish")
    sys.exit(0 if maintenance.export(url, folder, layout, where, copies) else 1)


@click.command()
@click.argument("url")
def index(url: str) -> None:
    """Write a new index of the corpus at URL, so that it opens quickly."""
    from tlgen.commands.maintenance import index as write_index

    write_index(url)


#: All of them, for the program.
COMMANDS = (ls, browse, verify, repair, copy, export, index)
