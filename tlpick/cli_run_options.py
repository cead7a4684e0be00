"""Options of ``tlpick run`` for what is picked and how; quick to import."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from catalogs.amounts import read_data_size
from catalogs.console import Choice
from catalogs.errors import InputError
from tlpick.cli_options import localising_options

if TYPE_CHECKING:
    _Parameter = click.ParamType[Any]
else:
    _Parameter = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Memory(_Parameter):
    """A number of bytes such as 4GB, 4GiB or 800M."""

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
            self.fail(f"{value!r} is not a number of decoys; give one such as 2, or auto or off")
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
            self.fail(f"{value!r} is not a range of planes; give one such as 50:200")
        return int(found[1] or 0), int(found[2] or 2**31)


_OPTIONS = (
    click.option(
        "--cluster",
        metavar="WORD",
        help="Workers, each of which picks one tomogram at a time: local, local:WORKERS, or what "
        "tlgen run accepts. [default: this process]",
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
        help="Memory that a process may use, such as 4GB (4·10⁹ bytes) or 4GiB (4·2³⁰); more saves time.",
    ),
    click.option(
        "--tile",
        type=click.IntRange(8),
        metavar="VOXELS",
        help="Largest cross-section that the network processes at a time, as the edge of a square.",
    ),
    click.option(
        "--voxel-size",
        type=click.FloatRange(0, min_open=True),
        metavar="Å",
        help="Voxel size of the tomograms, instead of that in their headers.",
    ),
    click.option("--rescale", is_flag=True, help="Resample tomograms to the model's voxel size."),
    click.option(
        "--bin",
        "binning",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="First average boxes of this many voxels along each axis.",
    ),
    click.option("--crop", type=Planes(), help="Use only these planes along z."),
    click.option("--invert", is_flag=True, help="Turn dark into bright in the tomograms."),
    click.option(
        "--trust-contrast",
        is_flag=True,
        help="Do not check whether protein is dark or bright as in the model's training.",
    ),
    click.option(
        "--mask",
        metavar="MASK",
        help="Pick only where this volume is not 0, e.g. in a lamella; {name} in it stands for the "
        "tomogram's name. It may be binned.",
    ),
    click.option(
        "--slab",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Find the faces of the ice and pick only between them; --mask has priority.",
    ),
    click.option(
        "--beads",
        type=click.Choice(["auto", "off"]),
        default="auto",
        show_default=True,
        help="Leave out what is denser than protein, such as gold, from grey values and picks.",
    ),
    click.option(
        "--decoys",
        type=Decoys(),
        default="auto",
        show_default=True,
        help="Volumes of noise with the tomogram's power spectrum, to estimate the share of wrong picks: one "
        "for a large tomogram, up to four for a small one, or this number; off: none.",
    ),
    click.option(
        "--tta",
        default="1",
        show_default=True,
        type=Choice(["1", "4", "8"]),
        help="Average over this many orientations of the tomogram: 4 are half turns, 8 add mirror images.",
    ),
    click.option(
        "--keep-segmentation",
        type=Choice(["zarr", "mrc"]),
        help="Save the classes and probabilities of all voxels.",
    ),
    click.option(
        "--tomogram-type",
        default="",
        metavar="TYPE",
        help="Which tomograms of a copick project, e.g. wbp; denoised: those of a tomograms.star.",
    ),
    click.option("--yes", is_flag=True, help="Accept unusual values, such as resampling by a factor of 10."),
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
        If they exclude each other.
    """
    from tlpick.network.tomograms.intake import Preprocessing

    of_preprocessing = ("voxel_size", "rescale", "invert", "trust_contrast", "crop", "mask")
    found = {name: options.pop(name) == "auto" for name in ("slab", "beads")}
    given = {name: options.pop(name) for name in of_preprocessing}
    preprocessing = Preprocessing(bin=options.pop("binning"), yes=options.pop("yes"), **given, **found)
    if preprocessing.mask == "":
        raise InputError("--mask '' is empty; leave it out")
    same = ("max_memory", "tile", "keep_segmentation", "decoys")
    means = {name: options.pop(name) for name in same}
    tta = int(options.pop("tta"))
    return {**means, "preprocessing": preprocessing, "tta": tta, "localising": localising_options(**options)}
