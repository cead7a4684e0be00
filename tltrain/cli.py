"""``tltrain``: learn to find molecules from a corpus."""

from __future__ import annotations

import click

from catalogs.console import program, run

tltrain = program("tltrain", "Learn to find molecules: train a network on a corpus of simulated tomograms.")


@tltrain.command()
@click.argument("url")
@click.option("--to", required=True, metavar="MODEL.tlm", help="The model file to write.")
@click.option(
    "--where",
    default="split == 'train'",
    show_default=True,
    metavar="CONDITION",
    help='Train on the samples for which this holds, such as "dose < 100 and defocus > 1"; those of the '
    "splits val and test are left out whatever it says.",
)
@click.option("--network", default="small", show_default=True, help="small (for CPUs) or deepfinder.")
@click.option("--steps", default=1000, show_default=True, help="Batches to learn from.")
@click.option("--patch", default=40, show_default=True, help="Edge of a patch in voxels.")
@click.option("--batch", default=8, show_default=True, help="Patches of a batch.")
@click.option("--learning-rate", type=float, help="The highest; by default what suits the network.")
@click.option("--seed", default=0, show_default=True, help="The same seed trains on the same patches.")
def fit(
    url: str,
    to: str,
    where: str,
    network: str,
    steps: int,
    patch: int,
    batch: int,
    learning_rate: float | None,
    seed: int,
) -> None:
    """Train on the corpus at URL (a path, s3://..., gs://...) and write a model file.

    Interrupted, it goes on where it was when the same command is given again; finished, it ends at once.
    """
    from tltrain.fit import fit as train
    from tltrain.settings import Settings

    settings = Settings(
        where=where,
        network=network,
        steps=steps,
        patch=patch,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
    )
    train(url, to, settings, say=click.echo)


def main() -> None:
    """Run the program."""
    run(tltrain)
