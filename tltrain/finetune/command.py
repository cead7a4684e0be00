"""``tltrain finetune``: the command; light to import."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogs.console import Renamed, in_flags, model_argument
from catalogs.errors import InputError

#: Exit status if the training was stopped because it forgot too much; a model is written nevertheless.
FORGOT = 3


class Counts(click.ParamType if not TYPE_CHECKING else click.ParamType[Any]):  # type: ignore[misc]
    """Numbers of annotations such as 0,25,50,150."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read them."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(,\d+)*", str(value).replace(" ", "")):
            self.fail(f"{value!r} is not a list of numbers; give one such as 0,25,50,150")
        return tuple(sorted({int(part) for part in str(value).split(",")}))


@click.command()
@model_argument()
@click.option(
    "--tomograms",
    "-t",
    required=True,
    multiple=True,
    metavar="FILE",
    help="A tomogram, as for tlpick run: MRC, Zarr, HDF5, TIFF, 'data/*.mrc', list.txt, tomograms.star, a "
    "copick project. May be repeated.",
)
@click.option(
    "--picks",
    "-p",
    required=True,
    multiple=True,
    metavar="LIST",
    help="Annotated particles in any format of tlpick convert: one list that names its tomograms, or one for "
    "each tomogram, named as it.",
)
@click.option(
    "--to",
    metavar="TUNED.tlm",
    help="The model file to write; with --learning-curve, the folder. [default: MODEL-tuned.tlm, or "
    "MODEL-curve]",
)
@click.option("--from", "format", metavar="FORMAT", help="Format of the lists. [default: detected]")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="THEIRS=OURS",
    help="Translate a class of the lists to a class of the model; --class THEIRS= leaves it out.",
)
@click.option(
    "--held-out",
    multiple=True,
    metavar="NAME",
    help="A tomogram that is not used for training but to choose the best network; none: no tomogram. "
    "[default: of three or more tomograms the one with the fewest annotations]",
)
@click.option(
    "--targets",
    metavar="KIND",
    help="How an annotation becomes voxels: shape (average over all orientations), oriented (rotated as "
    "annotated) or sphere. [default: shape, if there is a corpus]",
)
@click.option(
    "--unlabelled",
    default="ignore",
    show_default=True,
    metavar="KIND",
    help="Meaning of voxels far from all annotations: ignore, background (everything is annotated) or "
    "positive-unlabelled.",
)
@click.option(
    "--background-shell",
    cls=Renamed,
    former=["--shell"],
    default=0.5,
    show_default=True,
    help="Width of the background around an annotated particle, in radii of its class.",
)
@click.option(
    "--background-below",
    type=float,
    metavar="P",
    help="Voxels far from all annotations that the model gives less than this probability of a target are "
    "background. [default: 0, or 0.1 if the model's corpus is not there]",
)
@click.option(
    "--prior",
    type=float,
    help="For positive-unlabelled: share of the unlabelled voxels that are targets. [default: as in the "
    "corpus, minus the annotated ones]",
)
@click.option(
    "--simulated-share",
    cls=Renamed,
    former=["--mix"],
    type=float,
    help="Share of simulated patches in every batch; they keep the model from forgetting. [default: 0.5, or "
    "0 if the model's corpus is not there]",
)
@click.option(
    "--corpus", metavar="URL", help="Corpus of the simulated patches. [default: the corpus of the model]"
)
@click.option(
    "--max-forgetting",
    default=0.05,
    show_default=True,
    help="Largest loss of F1 on simulated tomograms; beyond it the training stops.",
)
@click.option(
    "--annotations", type=click.IntRange(1), help="Use this many annotations, drawn at random. [default: all]"
)
@click.option(
    "--learning-curve",
    type=Counts(),
    metavar="N,N,...",
    help="Fine-tune with each of these numbers of annotations, such as 0,25,50,150, and compare.",
)
@click.option(
    "--from-scratch",
    is_flag=True,
    help="Begin with fresh weights and use only the annotations; with --learning-curve: also do this, for "
    "comparison.",
)
@click.option("--steps", default=400, show_default=True, help="Batches to learn from.")
@click.option("--batch", default=8, show_default=True, help="Patches of a batch.")
@click.option(
    "--patch", type=click.IntRange(1), help="Edge of a patch in voxels. [default: that of the model]"
)
@click.option(
    "--learning-rate",
    type=float,
    help="The highest learning rate. [default: half of the network's usual one]",
)
@click.option(
    "--dtype",
    "precision",
    cls=Renamed,
    former=["--precision"],
    default="float32",
    show_default=True,
    help="Precision of the layers: float32, bf16 or fp16.",
)
@click.option("--validate-every", type=click.IntRange(1), metavar="STEPS", help="[default: a tenth of all]")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same patches.")
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Voxel size of the tomograms; overrides their headers.",
)
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Pixel size of the unbinned tilt series, for lists that count in its pixels.",
)
@click.option("--yes", is_flag=True, help="Continue although values are unusual, such as resampling by 10.")
@click.option("--rescale", is_flag=True, help="Resample tomograms whose voxel size is not the model's.")
@click.option(
    "--bin",
    "binning",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="First average boxes of this many voxels along each axis.",
)
@click.option("--invert", is_flag=True, help="Invert the contrast of the tomograms.")
@click.option("--trust-contrast", is_flag=True, help="Do not refuse tomograms whose contrast seems wrong.")
@click.option(
    "--mask",
    metavar="MASK",
    help="Train only where this volume is not 0; {name} in it stands for the tomogram's name.",
)
@click.option("--tomogram-type", default="", metavar="TYPE", help="Which tomograms of a copick project.")
@click.option(
    "--overwrite", is_flag=True, help="Replace an existing model that was trained with other settings."
)
def finetune(
    model: str,
    tomograms: tuple[str, ...],
    picks: tuple[str, ...],
    to: str | None,
    learning_curve: tuple[int, ...] | None,
    held_out: tuple[str, ...],
    overwrite: bool,
    **options: Any,
) -> int:
    """Fine-tune MODEL on annotated tomograms.

    If it is interrupted, give the same command again to continue. A folder beside the model has a page of
    curves, a table and events for TensorBoard. Exit status 0: done; 2: bad input, nothing written; 3: stopped
    because it forgot too much of the simulated tomograms; the best network before that was written.
    """
    from catalogs.model_sources import is_own
    from tlpick.network.tomograms.intake import Preprocessing
    from tltrain import api
    from tltrain.finetune.settings import FineTuning

    of_preprocessing = ("voxel_size", "rescale", "invert", "trust_contrast", "mask")
    given = {name: options.pop(name) for name in of_preprocessing}
    same: dict[str, Any] = {name: options.pop(name) for name in ("format", "pixel_size", "tomogram_type")}
    same["preprocessing"] = Preprocessing(bin=options.pop("binning"), yes=options.pop("yes"), **given)
    same["classes"] = _renamed(options.pop("classes"))
    same["settings"] = FineTuning(**options)
    # a model that comes with the program is not the user's folder to write to
    beside = Path(model).with_name(Path(model).stem) if is_own(model) else Path(Path(model).stem)
    if learning_curve is not None:
        where = to or f"{beside}-curve"
        api.learning_curve(
            model, tomograms, picks, where, learning_curve, held_out=held_out, progress=True, **same
        )
        return 0
    target = to or f"{beside}-tuned.tlm"
    tuned = api.fine_tune(
        model, tomograms, picks, target, held_out=held_out, overwrite=overwrite, progress=True, **same
    )
    if forgot := tuned.card.training["fine_tuning"].get("stopped"):
        text = f"tltrain: stopped: {forgot}; the best network before that is kept"
        click.echo(in_flags(text, click.get_current_context().command), err=True)
        return FORGOT
    return 0


def _renamed(words: Sequence[str]) -> dict[str, str]:
    """Read THEIRS=OURS, given several times."""
    classes = {}
    for word in words:
        theirs, sign, ours = word.partition("=")
        if not sign or not theirs:
            raise InputError(f"--class {word} is not THEIRS=OURS; give one such as --class 80S=ribosome")
        classes[theirs] = ours
    return classes
