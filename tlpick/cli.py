"""``tlpick``: picks particles in tomograms with a trained model, and scores picks against truth."""

from __future__ import annotations

from typing import Any, Literal

import click

from catalogs import console
from tlpick.cli_convert import convert
from tlpick.cli_options import cutting, localising, localising_options, pairs, thresholding
from tlpick.cli_run_options import run_arguments, running

tlpick = console.program(
    "tlpick",
    "Pick particles in tomograms with a trained model, and score picks against truth.",
    {
        "Pick": ["run", "select", "convert", "mask", "report", "view"],
        "Evaluate": ["check", "score", "calibrate"],
        "Other": ["cite"],
    },
)


@tlpick.command("run")
@console.model_argument()
@click.argument("tomograms", metavar="TOMOGRAM...", nargs=-1, required=True)
@console.to_disk("folder", required=True, metavar="FOLDER", help="Folder for the picks.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Also write the picks in this format, e.g. relion4, dynamo or copick; repeat for several. "
    "`tlpick convert --formats` lists them.",
)
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Pixel size of the unbinned tilt series, for formats that count in its pixels.",
)
@click.option("--tomograms-star", metavar="FILE", help="RELION 5's tomograms.star, for --format relion5-set.")
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
    fdr: float | Literal["off"] | None,
    top: int | None,
    min_score: float | None,
    formats: tuple[str, ...],
    pixel_size: float | None,
    tomograms_star: str | None,
    **options: Any,
) -> int:
    """Pick the particles of every TOMOGRAM with MODEL.

    MODEL is a file, or a model that comes with the program: `tlpick models` lists them.

    TOMOGRAM is a volume (MRC, OME-Zarr, HDF5, ...; a path or URL), a folder of them, a quoted glob such as
    'data/*.mrc', a text file with one of these per line (.txt), RELION's tomograms.star, a copick project, a
    corpus, or one of its samples. Tomograms are skipped if FOLDER has their picks, made with the same model
    and settings from the same voxels; failed ones are tried again.
    """
    from tlpick.api import pick_many
    from tlpick.network.tomograms.inputs import Selection

    done = pick_many(
        model,
        tomograms,
        folder,
        cluster=cluster or (f"local:{workers}" if workers > 1 else None),
        selection=Selection(tomogram_type, where),
        precision=precision,
        fdr=fdr,
        top=top,
        min_score=min_score,
        formats=formats,
        pixel_size=pixel_size,
        tomograms_star=tomograms_star,
        progress=True,
        **run_arguments(options),
    )
    return 1 if done.failed else 0


@tlpick.command()
@click.argument("folder")
@console.to_disk("to", required=True, metavar="FILE", help="The list to write, e.g. strict.star.")
@cutting
def select(
    folder: str, to: str, fdr: float | Literal["off"] | None, top: int | None, min_score: float | None
) -> None:
    """Write another selection of the picks in a run's FOLDER, without picking again."""
    from tlpick import api

    api.select(folder, to, fdr=fdr, top=top, min_score=min_score)


@tlpick.command()
@click.argument("folder")
@console.to_disk(
    "to", required=True, metavar="FOLDER", help="Folder for the masks, NAME.mrc for each tomogram."
)
def mask(folder: str, to: str) -> None:
    """Write the masks of the run in FOLDER: 1 where it picked, 0 outside of the ice and at beads."""
    from tlpick import api

    api.mask(folder, to)


@tlpick.command()
@click.argument("arguments", metavar="MODEL... TOMOGRAM...", nargs=-1, required=True)
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Voxel size of the tomograms, instead of that in their headers.",
)
@click.option("--rescale", is_flag=True, help="Resample tomograms to the model's voxel size.")
@click.option("--invert", is_flag=True, help="Turn dark into bright in the tomograms.")
@click.option(
    "--trust-contrast", is_flag=True, help="Do not refuse tomograms whose protein seems to be bright."
)
@console.to_disk(
    "folder", metavar="FOLDER", help="With several models: keep their picks, which are not made again."
)
def check(
    arguments: tuple[str, ...],
    voxel_size: float | None,
    rescale: bool,
    invert: bool,
    trust_contrast: bool,
    folder: str | None,
) -> None:
    """Report how each TOMOGRAM differs from the training data of MODEL, and what to change.

    Power by frequency, the missing wedge, the first zero of the transfer function and the thickness are
    compared with those of the training data. Nothing is picked.

    With several models (files that end in .tlm, or names), all of them pick the tomograms, and are ranked by
    an estimate of how many picks are right, which needs no labels. That takes as long as picking.
    """
    from catalogs.errors import InputError
    from tlpick import api
    from tlpick.batch.check import split_arguments
    from tlpick.batch.rank_models import table_lines
    from tlpick.network.tomograms.intake import Preprocessing

    preprocessing = Preprocessing(
        voxel_size=voxel_size, rescale=rescale, invert=invert, trust_contrast=trust_contrast
    )
    models, tomograms = split_arguments(arguments)
    if len(models) == 1:
        if folder is not None:
            raise InputError("--to keeps the picks of several models; with one, nothing is picked")
        api.check(models[0], tomograms, preprocessing=preprocessing)
        return
    ranked = api.rank_models(models, tomograms, to=folder, preprocessing=preprocessing, progress=True)
    for line in table_lines(ranked):
        click.echo(line)


@tlpick.command()
@click.argument("picks")
@click.argument("truth")
@click.option(
    "--radius",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Largest distance of a right pick from its particle; by default half of the particle's diameter.",
)
@click.option(
    "--reviewed",
    metavar="MASK",
    help="Where the truth is complete: a volume that is not 0 there, or a folder with one named as each "
    "tomogram. Picks outside count neither as right nor as wrong.",
)
@click.option(
    "--join",
    multiple=True,
    metavar="PICKED=TRUTH",
    help="A tomogram of the picks and its name in the truth, if these differ; repeat for "
    "several. Not needed for a single tomogram.",
)
def score(picks: str, truth: str, radius: float | None, reviewed: str | None, join: tuple[str, ...]) -> None:
    """Compare PICKS (folder of a run, or a particle list) with TRUTH.

    TRUTH is a corpus or a sample of it, a particle list, or a label volume. Picks and particles of a class
    are matched one to one. score.json and report.html are written beside the picks, and also contain the
    metrics of SHREC'21, CZII, DeePiCt, octopi, DeepFinder and TomoTwin.
    """
    from tlpick.api import score as compare
    from tlpick.evaluation.score import sentences

    if radius is not None:
        console.tell_unusual("radius", radius, "--radius")
    joined = pairs("--join", join)
    result = compare(picks, truth, radius=radius, report=True, reviewed=reviewed, join=joined).result
    assert result is not None
    for line in result.notes:
        click.echo(line, err=True)
    for line in sentences(result):
        click.echo(line)
    click.echo(f"report: {result.report}")


tlpick.add_command(convert)


@tlpick.command()
@click.argument("folder")
def report(folder: str) -> None:
    """Write report.html and curate.html of a run's FOLDER again, from the picks in it."""
    from tlpick import api

    api.report(folder)


@tlpick.command()
@click.argument("tomogram")
@click.argument("picks")
@click.option("--napari", is_flag=True, default=True, help="In napari, the only viewer so far.")
@console.to_disk(
    metavar="FILE", help="The list to write. [default: TOMOGRAM.curated.csv in PICKS, or beside the list]"
)
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Of the tomogram, if not stated.",
)
def view(tomogram: str, picks: str, napari: bool, to: str | None, voxel_size: float | None) -> None:
    """Look at TOMOGRAM with its PICKS in a window, and accept, reject, move, add and delete picks there.

    PICKS is the folder of a run, whose segmentation is shown too if it was kept, or a particle list. TOMOGRAM
    is a volume, or the name of a tomogram of the run. The picks are saved as a list with verdicts when the
    window is closed.
    """
    from tlpick.output.in_napari import view as look

    look(tomogram, picks, to, voxel_size=voxel_size, say=click.echo)


@tlpick.command()
@console.model_argument()
@click.argument("corpus")
@click.option(
    "--where",
    default="split == 'val'",
    show_default=True,
    help="Which samples to use; those that the model was trained on are left out.",
)
@console.to_disk(metavar="MODEL", help="The calibrated model to write; by default it replaces MODEL.")
@localising
def calibrate(model: str, corpus: str, where: str, to: str | None, **how: Any) -> None:
    """Calibrate the scores of MODEL's picks on held-out samples of CORPUS, and store this in MODEL.

    Afterwards, tlpick run accepts --precision or --fdr, and every pick has a probability of being right.
    """
    from tlpick.api import calibrate as learn

    learn(model, corpus, where=where, to=to, localising=localising_options(**how))


@tlpick.command()
@click.argument("name", required=False)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="List the models of this folder or URL only; $TLPICK_MODELS names sources for all commands.",
)
@click.option("--index", metavar="FOLDER", help="Make FOLDER a source of models: write its models.json.")
def models(name: str | None, sources: tuple[str, ...], index: str | None) -> None:
    """List the models that can be used by name, or describe the one called NAME."""
    from tlpick.output.model_list import described, indexed, lines

    if index is not None:
        made = indexed(index, name, sources)
    else:
        made = lines(sources or None) if name is None else described(name, sources or None)
    for line in made:
        click.echo(line)


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
