"""``tlpick convert``: the command; light to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from catalogs import console
from catalogs.errors import InputError


@click.command("convert")
@click.argument("source", metavar="A", required=False, type=click.Path(path_type=Path))
@click.argument("target", metavar="B", required=False, type=click.Path(path_type=Path))
@click.option(
    "--from", "source_format", metavar="NAME", help="Format of A; recognised from its content unless given."
)
@click.option(
    "--format",
    "target_format",
    cls=console.Renamed,
    former=["--to-format"],
    metavar="NAME",
    help="Format of B; by default from its suffix.",
)
@click.option(
    "--check", is_flag=True, help="Only describe A: its format, why, and the ranges of its particles."
)
@click.option("--formats", "listed", is_flag=True, help="List the formats.")
@click.option("--voxel-size", type=click.FloatRange(0, min_open=True), metavar="Å", help="Of the tomogram.")
@click.option("--shape", metavar="Z,Y,X", help="Voxels of the tomogram.")
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="FILE",
    help="A tomogram to take both from; repeat it for several.",
)
@click.option(
    "--pixel-size", type=click.FloatRange(0, min_open=True), metavar="Å", help="Of the unbinned tilt series."
)
@click.option(
    "--binning",
    type=click.FloatRange(min=1),
    metavar="N",
    help="Pixels per voxel, instead of the pixel size.",
)
@click.option(
    "--unbinned-shape",
    metavar="Z,Y,X",
    help="Size of the unbinned tomogram in pixels, for RELION 5's centre.",
)
@click.option(
    "--binning-kind",
    type=console.Choice(["fourier", "box"]),
    help="Cropped in Fourier space (RELION, Warp), or averaged in boxes (IMOD).  [default: fourier]",
)
@click.option(
    "--pixels",
    type=console.Choice(["a", "b", "both"]),
    help="The list counts unbinned pixels, where such lists usually count voxels.",
)
@click.option(
    "--unit",
    type=click.Choice(["voxels", "angstrom", "shares"]),
    help="What the coordinates of A are: voxels of the tomogram, Å, or shares of its edges, if not what such "
    "lists mostly hold.",
)
@click.option(
    "--from-pixel-size",
    "list_pixel",
    type=click.FloatRange(0, min_open=True),
    metavar="Å",
    help="Of the pixels that the coordinates of A count, if not the tomogram's voxels.",
)
@click.option(
    "--relion-centre",
    type=console.Choice(["extract", "picker"]),
    help="Centre of B in RELION 5: size/2 as it extracts, or size/2 - 1 as its picker writes.  "
    "[default: extract]",
)
@click.option(
    "--from-centre",
    type=console.Choice(["extract", "picker"]),
    help="Centre of A in RELION 5.  [default: as its comment says, else extract]",
)
@click.option(
    "--first-voxel",
    type=click.IntRange(0, 1),
    help="What Dynamo, TOM and STOPGAP lists count from.  [default: 1]",
)
@click.option(
    "--tomograms-star", metavar="FILE", help="RELION 5's tomograms.star: sizes, pixel size, optics."
)
@click.option("--tomogram", metavar="NAME", help="Of the tomogram of A, or the one of several to take.")
@click.option("--tomogram-list", metavar="FILE", help="Lines of a number and a tomogram, as Dynamo's .doc.")
@click.option(
    "--radius", "radii", multiple=True, metavar="CLASS=Å", help="Of a class, for boxes and spheres."
)
@click.option("--user", help="Of copick picks.  [default: tlpick]")
@click.option("--session", help="Of copick picks.  [default: 0]")
@click.option("--sidecar", is_flag=True, help="Write what B cannot hold to B.tl.csv.")
@click.option("--overwrite", is_flag=True, help="Replace B if it exists.")
def convert(source: Path | None, target: Path | None, check: bool, listed: bool, **options: Any) -> None:
    """Convert the particle list A (a file or a folder) to B.

    The format of A is recognised from its content, that of B from its suffix. Positions, orientations,
    classes and scores are converted: formats that count in voxels need --voxel-size, those that count from
    the centre also --shape.
    """
    if listed:
        from catalogs.particle_formats.registry import FORMATS

        for format in FORMATS.loadable():
            endings = " ".join(suffix or "folder" for suffix in format.suffixes)
            click.echo(f"{format.name:16} {endings:14} {format.title}")
        return
    if source is None or (target is None and not check):
        raise InputError(
            "give a list to read and one to write: tlpick convert A B (or --check A, or --formats)"
        )
    from tlpick import api

    pixels = options.pop("pixels")
    of_source = {"centre": options.pop("from_centre"), "in_pixels": pixels in ("a", "both")}
    of_target = {"centre": options.pop("relion_centre"), "in_pixels": pixels in ("b", "both")}
    for quantity in ("voxel_size", "pixel_size"):
        if options[quantity] is not None:
            console.tell_unusual(quantity, options[quantity], f"--{quantity.replace('_', '-')}")
    for name in ("shape", "unbinned_shape"):
        options[name] = _shape(options[name], f"--{name.replace('_', '-')}") if options[name] else None
    radii = _radii(options.pop("radii"))
    given = {name: value for name, value in options.items() if value is not None}
    target_format = given.pop("target_format", None)
    api.convert(
        source,
        None if check else target,
        format=target_format,
        radii=radii,
        of_source=of_source,
        of_target=of_target,
        **given,
    )


def _radii(given: Sequence[str]) -> dict[str, float]:
    """Read CLASS=Å, given several times."""
    radii = {}
    for text in given:
        name, _, radius = text.rpartition("=")
        try:
            radii[name] = float(radius)
        except ValueError:
            raise InputError(f"--radius {text!r} is not a class and its radius; write NAME=Å") from None
        console.tell_unusual("radius", radii[name], f"--radius {name}")
    return radii


def _shape(text: str, option: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in text.lower().replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{option} {text!r} is not a size: give three whole numbers, voxels along Z,Y,X")
    return shape
