"""``tlpick``: picks particles in tomograms with a trained model, and scores picks against truth."""

from __future__ import annotations

import click

from catalogs import console
from tlpick.convert import command as convert

tlpick = console.program(
    "tlpick", "Pick particles in tomograms with a trained model, and score picks against truth."
)


@tlpick.command("run")
@click.argument("model")
@click.argument("tomograms", metavar="TOMOGRAM...", nargs=-1, required=True)
@click.option("--to", "folder", required=True, metavar="FOLDER", help="Where the picks go.")
@click.option(
    "--tile",
    default=192,
    show_default=True,
    type=click.IntRange(8),
    help="Segment in tiles of as many voxels as a cube with this edge; smaller needs less memory.",
)
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Of the tomograms, whatever their headers say.",
)
@click.option("--rescale", is_flag=True, help="Resample tomograms whose voxel size is not the model's.")
@click.option(
    "--min-size",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0),
    help="Drop what is smaller than this share of a particle's volume.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Tomograms at a time.")
def run_command(
    model: str,
    tomograms: tuple[str, ...],
    folder: str,
    tile: int,
    voxel_size: float | None,
    rescale: bool,
    min_size: float,
    workers: int,
) -> int:
    """Pick the particles of every TOMOGRAM (MRC file, OME-Zarr, sample of a corpus) with MODEL.

    Tomograms that FOLDER already holds picks of, by the same model and settings, are skipped.
    """
    from tlpick.pipeline import Settings
    from tlpick.run import run

    return 0 if run(model, tomograms, folder, Settings(tile, voxel_size, rescale, min_size), workers) else 1


@tlpick.command()
@click.argument("picks")
@click.argument("truth")
@click.option(
    "--radius",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="How far a pick may be off; half of a particle's diameter unless given.",
)
def score(picks: str, truth: str, radius: float | None) -> None:
    """Compare PICKS (folder of a run, or .star, .csv) with TRUTH (sample of a corpus, or .star, .csv).

    Picks and particles of a class are joined one to one; score.json and report.html go beside the picks.
    """
    from tlpick.score import score_files, sentence

    result = score_files(picks, truth, radius)
    for line in result.notes:
        click.echo(line, err=True)
    for each in result.evaluation.scores:
        click.echo(sentence(each))
    click.echo(f"report: {result.report}")


tlpick.add_command(convert)


def main() -> None:
    """Run ``tlpick``."""
    console.run(tlpick)
