"""``tltrain``: learn to find molecules from a corpus."""

from __future__ import annotations

from typing import Any, Literal

import click

from catalogs.console import Choice, Renamed, model_argument, model_file, program, run, to_disk
from tltrain.finetune.command import finetune

tltrain = program(
    "tltrain",
    "Learn to find molecules: train a network on a corpus of simulated tomograms.",
    {"Train": ["fit", "finetune"], "Models": ["info", "import", "export"]},
)


@tltrain.command()
@click.argument("url")
@click.option("--to", required=True, metavar="MODEL.tlm", help="The model file to write.")
@click.option(
    "--where",
    default="split == 'train'",
    show_default=True,
    metavar="CONDITION",
    help='Train on the samples for which this holds, such as "dose < 100 and defocus > 1"; those of the '
    "splits val and test are always left out.",
)
@click.option(
    "--hold-out",
    metavar="CONDITION",
    help='Validate on the samples for which this holds, such as "defocus > 4", and train on none of them; by '
    "default those of the split val.",
)
@click.option(
    "--hold-out-by",
    metavar="COLUMN,...",
    help="Validate on a tenth of the sets of values of these parameters, such as defocus,dose.",
)
@click.option(
    "--network",
    default="small",
    show_default=True,
    help="small (for CPUs and laptops), deepfinder or residual-unet.",
)
@click.option(
    "--sampling",
    cls=Renamed,
    former=["--shares"],
    metavar="WHAT=SHARE,...",
    help="What patches are centred on; by default target=0.6,distractor=0.2,background=0.2.",
)
@click.option(
    "--augment",
    multiple=True,
    metavar="EFFECT=PROBABILITY[:STRENGTH]",
    help="Set an augmentation, such as noise=0.5:0.4; none switches all off. May be repeated.",
)
@click.option(
    "--max-damaged",
    cls=Renamed,
    former=["--tolerate"],
    default=0.01,
    show_default=True,
    help="Share of the corpus that may be damaged. Damage is listed and skipped; more than this stops the "
    "training.",
)
@click.option("--steps", default=1000, show_default=True, help="Largest number of batches.")
@click.option("--patch", default=40, show_default=True, help="Edge of a patch in voxels.")
@click.option("--batch", default=8, show_default=True, help="Patches of a batch.")
@click.option(
    "--learning-rate", type=float, help="The highest learning rate; the default depends on the network."
)
@click.option(
    "--loss",
    default="dice-cross-entropy",
    show_default=True,
    help="dice-cross-entropy, or DeepFinder's tversky.",
)
@click.option(
    "--class-weights",
    metavar="NAME=WEIGHT,...",
    help="Weights of classes in the loss, 1 unless named; use background for voxels of no class.",
)
@click.option(
    "--ema", default=0.0, help="Keep a moving average of the weights with this momentum, e.g. 0.999."
)
@click.option(
    "--dtype",
    "precision",
    cls=Renamed,
    former=["--precision"],
    default="float32",
    show_default=True,
    help="Precision of the layers: float32, bf16 or fp16 (on GPUs).",
)
@click.option("--xla/--no-xla", default=None, help="Compile steps with XLA; by default on GPUs and with JAX.")
@click.option("--devices", type=int, help="GPUs that share each batch; by default all.")
@click.option(
    "--validate-every",
    type=int,
    metavar="STEPS",
    help="Steps between validations; by default 20 validations in all.",
)
@click.option("--patience", type=int, metavar="N", help="Stop after N validations without a better score.")
@click.option(
    "--from", "start", callback=model_file, metavar="MODEL", help="Begin with the weights of this model."
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same patches.")
@click.option("--yes", is_flag=True, help="Continue although values are unusual, such as voxels of 1 Å.")
@click.option(
    "--overwrite", is_flag=True, help="Replace an existing model that was trained with other settings."
)
def fit(
    url: str,
    to: str,
    yes: bool,
    class_weights: str | None,
    hold_out_by: str | None,
    sampling: str | None,
    augment: tuple[str, ...],
    overwrite: bool,
    **options: Any,
) -> None:
    """Train on the corpus at URL (a path, s3://..., gs://...) and write a model file.

    If it is interrupted, give the same command again to continue; if the model is finished, it ends at once.
    The folder MODEL.training beside the model has a page of curves, a table and events for TensorBoard.
    """
    from tltrain.api import fit as train
    from tltrain.data.augment import augmentation_of
    from tltrain.training.settings import Settings, read_sampling, read_weights

    settings = Settings(
        class_weights=read_weights(class_weights),
        hold_out_by=() if hold_out_by is None else tuple(name.strip() for name in hold_out_by.split(",")),
        sampling=read_sampling(sampling),
        augmentation=augmentation_of(augment),
        **options,
    )
    train(url, to, settings=settings, overwrite=overwrite, yes=yes, progress=True)


@tltrain.command()
@model_argument()
@click.option("--json", "as_json", is_flag=True, help="Print the whole card as JSON.")
def info(model: str, as_json: bool) -> None:
    """Show what MODEL finds, in which tomograms, how well, and how it was made."""
    from catalogs.model_file import read_card
    from tltrain.reporting.info import lines

    card = read_card(model)
    click.echo(card.model_dump_json(indent=1) if as_json else "\n".join(lines(card)))


@tltrain.command("import")
@click.argument("weights", metavar="WEIGHTS.h5")
@click.option(
    "--classes",
    required=True,
    metavar="NAME:RADIUS,...",
    help="Classes in the order of the network's outputs after the background, with radii in Å.",
)
@click.option(
    "--voxel-size",
    required=True,
    type=float,
    help="Voxel size in Å of the tomograms on which it was trained.",
)
@click.option(
    "--contrast",
    type=Choice(["dark", "bright"]),
    default="dark",
    show_default=True,
    help="How protein looks in those tomograms.",
)
@to_disk(required=True, metavar="MODEL.tlm", help="The model file to write.")
@click.option("--yes", is_flag=True, help="Continue although sizes are unusual, such as voxels of 1 Å.")
def import_(weights: str, classes: str, voxel_size: float, contrast: str, to: str, yes: bool) -> None:
    """Make a model from weights that DeepFinder's training wrote."""
    from tltrain import api
    from tltrain.networks.deepfinder_weights import radii_of

    looks: Literal["dark", "bright"] = "bright" if contrast == "bright" else "dark"
    card = api.import_deepfinder(weights, to, radii_of(classes), voxel_size, contrast=looks, yes=yes).card
    click.echo(f"wrote {to}: {card.network} for {', '.join(info.name for info in card.classes)}")


@tltrain.command()
@model_argument()
@to_disk(required=True, metavar="WEIGHTS.h5", help="The file to write.")
def export(model: str, to: str) -> None:
    """Write the weights of MODEL, which must be a network deepfinder, for DeepFinder."""
    from tltrain.api import export_deepfinder

    export_deepfinder(model, to)
    click.echo(f"wrote {to}")


tltrain.add_command(finetune)


def main() -> None:
    """Run the program."""
    run(tltrain)
