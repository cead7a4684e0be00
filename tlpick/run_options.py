"""The options of ``tlpick run`` that say what is picked, and with which means; light to import."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from catalogs.amounts import read_data_size
from catalogs.console import Choice
from catalogs.errors import InputError
from tlpick.options import localising_options

if TYPE_CHECKING:
    _Parameter = click.ParamType[Any]
else:
    _Parameter = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Memory(_Parameter):
    """A number of bytes such as 4GB or 800M."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        try:
            return float(read_data_size(value))
        except ValueError as error:
            self.fail(str(error))


class Decoys(_Parameter):
    """A number of decoys, ``auto`` or ``off``."""

    name = "N|auto|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read it; None is auto."""
        if value is None or isinstance(value, int):
            return value
        words = {"auto": None, "off": 0}
        if value not in words and not re.fullmatch(r"\d{1,3}", str(value)):
            self.fail(f"{value!r} is no number of decoys; give one such as 2, or auto or off")
        return words[value] if value in words else int(value)


class Planes(_Parameter):
    """A range of planes such as 50:200; either end may be left out."""

    name = "Z0:Z1"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read it."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d*):(\d*)", str(value))
        if not found:
            self.fail(f"{value!r} is no range of planes; give one such as 50:200")
        return int(found[1] or 0), int(found[2] or 2**31)


_OPTIONS = (
    click.option(
        "--cluster",
        metavar="WORD",
        help="Workers that pick one tomogram each at a time: local, local:WORKERS, or whatever else "
        "tlgen run takes. [default: this process]",
    ),
    click.option(
        "--workers",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="The same as --cluster local:WORKERS.",
    ),
    click.option(
        "--max-memory",
        default="4GB",
        show_default=True,
        type=Memory(),
        help="What a process may use; more of it saves time, and changes nothing else.",
    ),
    click.option(
        "--tile",
        type=click.IntRange(8),
        metavar="VOXELS",
        help="Let the network see at most a square of this edge times the length of the volume at a time.",
    ),
    click.option(
        "--voxel-size",
        type=click.FloatRange(0, min_open=True),
        metavar="Å",
        help="Of the tomograms, whatever their headers say.",
    ),
    click.option("--rescale", is_flag=True, help="Resample tomograms whose voxel size is not the model's."),
    click.option(
        "--bin",
        "binning",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Average boxes of so many voxels along each axis first.",
    ),
    click.option("--crop", type=Planes(), help="Look at these planes along z only."),
    click.option("--invert", is_flag=True, help="Turn dark into bright in the tomograms."),
    click.option(
        "--trust-contrast",
        is_flag=True,
        help="Do not refuse tomograms whose protein seems to be bright where the model knows it dark.",
    ),
    click.option(
        "--mask",
        metavar="MASK",
        help="Look only where this volume is not 0, e.g. in a lamella; {name} in it stands for the "
        "tomogram's name. It may be binned.",
    ),
    click.option(
        "--slab",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Find the faces of the ice, and look only between them; with --mask the mask says where.",
    ),
    click.option(
        "--beads",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Leave out what is denser than protein, such as gold: of the grey values, and of the picks.",
    ),
    click.option(
        "--decoys",
        type=Decoys(),
        default="auto",
        show_default=True,
        help="Noise with the tomogram's own power that is picked, too, to tell how many picks are wrong: one "
        "of a large tomogram, up to four of a small one, or so many; off: none.",
    ),
    click.option(
        "--tta",
        default="1",
        show_default=True,
        type=Choice(["1", "4", "8"]),
        help="Average over so many orientations of the tomogram: 4 are half turns, 8 have mirror images too.",
    ),
    click.option(
        "--keep-segmentation",
        type=Choice(["zarr", "mrc"]),
        help="Keep the classes and probabilities of all voxels.",
    ),
    click.option(
        "--tomogram-type",
        default="",
        metavar="TYPE",
        help="Which tomograms of a copick project, e.g. wbp; denoised: those of a tomograms.star.",
    ),
    click.option(
        "--yes", is_flag=True, help="Go on with what is unusual, such as resampling by a factor of 10."
    ),
    click.option(
        "--where", metavar="EXPRESSION", help="Which samples of a corpus, e.g. \"split == 'test'\"."
    ),
)


def running(command: _Command) -> _Command:
    """Add the options to a command; :func:`run_arguments` reads most of their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the values of the options, those of localising among them, into what ``tlpick.pick_many`` takes.

    Raises
    ------
    InputError
        If they do not go together.
    """
    from tlpick.network.tomograms.intake import Preprocessing

    of_preprocessing = ("voxel_size", "rescale", "invert", "trust_contrast", "crop", "mask")
    found = {name: options.pop(name) == "auto" for name in ("slab", "beads")}
    given = {name: options.pop(name) for name in of_preprocessing}
    preprocessing = Preprocessing(bin=options.pop("binning"), yes=options.pop("yes"), **given, **found)
    if preprocessing.mask == "":
        raise InputError("--mask '' names no mask; leave it out")
    same = ("max_memory", "tile", "keep_segmentation", "decoys")
    means = {name: options.pop(name) for name in same}
    tta = int(options.pop("tta"))
    return {**means, "preprocessing": preprocessing, "tta": tta, "localising": localising_options(**options)}
