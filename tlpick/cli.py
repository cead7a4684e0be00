"""``tlpick``: picks particles in tomograms with a trained model, and scores picks against truth."""

from __future__ import annotations

from typing import Any

import click

from catalogs import console
from tlpick.options import asked_cut, cutting, localising, localising_options, pairs, thresholding
from tlpick.output.convert import command as convert
from tlpick.run_options import running, settings

tlpick = console.program(
    "tlpick",
    "Pick particles in tomograms with a trained model, and score picks against truth.",
    {
        "Pick": ["run", "select", "convert", "mask", "report"],
        "Evaluate": ["check", "score", "calibrate"],
        "Other": ["cite"],
    },
)


@tlpick.command("run")
@click.argument("model")
@click.argument("tomograms", metavar="TOMOGRAM...", nargs=-1, required=True)
@console.to_disk("folder", required=True, metavar="FOLDER", help="Where the picks go.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Write the picks in this format, too, e.g. relion4, dynamo or copick; repeat it for several. "
    "`tlpick convert --formats` lists them.",
)
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Of the unbinned tilt series, for formats that count in its pixels.",
)
@click.option(
    "--tomograms-star", metavar="FILE", help="RELION 5's tomograms.star, which --format relion5-set names."
)
@running
@localising
@thresholding
def run_command(
    model: str,
    tomograms: tuple[str, ...],
    folder: str,
    cluster: str | None,
    workers: int,
    tomogram_type: str,
    where: str | None,
    precision: float | None,
    fdr: float | str | None,
    top: int | None,
    min_score: float | None,
    formats: tuple[str, ...],
    pixel_size: float | None,
    tomograms_star: str | None,
    **options: Any,
) -> int:
    """Pick the particles of every TOMOGRAM with MODEL.

    TOMOGRAM is a volume (MRC, OME-Zarr, HDF5, ...; a path or URL), a folder of them, a quoted glob such as
    'data/*.mrc', a text file with one of these a line (.txt), RELION's tomograms.star, a copick project, a
    corpus, or one of its samples. Those that FOLDER already holds picks of, by the same model and settings
    and from the same voxels, are skipped; what failed is tried again.
    """
    from tlpick.batch.results import Lists
    from tlpick.batch.run import run
    from tlpick.network.tomograms.inputs import Selection

    done = run(
        model,
        tomograms,
        folder,
        settings(options),
        cluster=cluster or (f"local:{workers}" if workers > 1 else None),
        selection=Selection(tomogram_type, where),
        precision=precision,
        cut=asked_cut(fdr, top, min_score, precision),
        lists=Lists(formats, pixel_size, tomograms_star),
        progress=True,
    )
    return 1 if done.failed else 0


@tlpick.command()
@click.argument("folder")
@console.to_disk("to", required=True, metavar="FILE", help="Where the list goes, e.g. strict.star.")
@cutting
def select(folder: str, to: str, fdr: float | str | None, top: int | None, min_score: float | None) -> None:
    """Write another choice of the picks of a run's FOLDER; nothing is picked anew."""
    from tlpick.batch.select import select_picks

    for line in select_picks(folder, to, asked_cut(fdr, top, min_score)):
        click.echo(line)


@tlpick.command()
@click.argument("folder")
@console.to_disk(
    "to", required=True, metavar="FOLDER", help="Where the masks go, NAME.mrc for each tomogram."
)
def mask(folder: str, to: str) -> None:
    """Write the masks that the run in FOLDER used: 1 where it looked, 0 outside of the ice and at beads."""
    from tlpick.batch.select import write_masks

    for line in write_masks(folder, to):
        click.echo(line)


@tlpick.command()
@click.argument("model")
@click.argument("tomograms", metavar="TOMOGRAM...", nargs=-1, required=True)
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Of the tomograms, whatever their headers say.",
)
@click.option("--rescale", is_flag=True, help="Resample tomograms whose voxel size is not the model's.")
@click.option("--invert", is_flag=True, help="Turn dark into bright in the tomograms.")
@click.option(
    "--trust-contrast", is_flag=True, help="Do not refuse tomograms whose protein seems to be bright."
)
def check(
    model: str,
    tomograms: tuple[str, ...],
    voxel_size: float | None,
    rescale: bool,
    invert: bool,
    trust_contrast: bool,
) -> None:
    """Say in which way every TOMOGRAM is unlike what MODEL learned from, and what to change.

    Power by frequency, the missing wedge, the first zero of the transfer function and the thickness are
    compared with those of the training data. Nothing is picked.
    """
    from tlpick.batch.check import check_tomograms
    from tlpick.network.tomograms.intake import Preprocessing

    preprocessing = Preprocessing(
        voxel_size=voxel_size, rescale=rescale, invert=invert, trust_contrast=trust_contrast
    )
    for line in check_tomograms(model, tomograms, preprocessing):
        click.echo(line)


@tlpick.command()
@click.argument("picks")
@click.argument("truth")
@click.option(
    "--radius",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="How far a pick may be off; half of a particle's diameter unless given.",
)
@click.option(
    "--reviewed",
    metavar="MASK",
    help="Where the truth is complete: a volume that is not 0 there, or a folder with one named as each "
    "tomogram. What lies outside counts neither as right nor as wrong.",
)
@click.option(
    "--join",
    multiple=True,
    metavar="PICKED=TRUTH",
    help="A tomogram of the picks and what the truth calls it, where that is another name; repeat it for "
    "several. One tomogram and the truth of one need it not.",
)
def score(picks: str, truth: str, radius: float | None, reviewed: str | None, join: tuple[str, ...]) -> None:
    """Compare PICKS (folder of a run, or a particle list) with TRUTH.

    TRUTH is a corpus or a sample of it, a particle list, or a volume with the classes' labels. Picks and
    particles of a class are joined one to one; score.json and report.html go beside the picks, with the
    metrics of SHREC'21, CZII, DeePiCt, octopi, DeepFinder and TomoTwin besides.
    """
    from tlpick.evaluation.score import score_files, sentences

    if radius is not None:
        console.tell_unusual("radius", radius, "--radius")
    result = score_files(picks, truth, radius, reviewed, pairs("--join", join))
    for line in result.notes:
        click.echo(line, err=True)
    for line in sentences(result):
        click.echo(line)
    click.echo(f"report: {result.report}")


tlpick.add_command(convert)


@tlpick.command()
@click.argument("folder")
def report(folder: str) -> None:
    """Write the report of a run's FOLDER again, from the picks that lie in it."""
    from tlpick.output.report import write_report

    click.echo(f"report: {write_report(folder)}")


@tlpick.command()
@click.argument("model")
@click.argument("corpus")
@click.option(
    "--where",
    default="split == 'val'",
    show_default=True,
    help="Which samples; never those that the model was trained on.",
)
@console.to_disk(metavar="MODEL", help="Where the calibrated model goes; it replaces MODEL unless given.")
@localising
def calibrate(model: str, corpus: str, where: str, to: str | None, **how: Any) -> None:
    """Learn from held-out samples of CORPUS what the scores of MODEL's picks mean, and keep it in MODEL.

    After it, tlpick run takes --precision or --fdr, and every pick has the probability that it is right.
    """
    from tlpick.evaluation.calibrate import calibrate as learn

    learn(model, corpus, where, to, localising_options(**how))


@tlpick.command()
@click.option(
    "--format",
    "form",
    type=console.Choice(["text", "bibtex", "cff"]),
    default="text",
    show_default=True,
    help="A line of text, BibTeX, or the Citation File Format.",
)
def cite(form: str) -> None:
    """Print how to cite the method."""
    from catalogs import citation

    click.echo(citation.cite(form))


def main() -> None:
    """Run ``tlpick``."""
    console.run(tlpick)
