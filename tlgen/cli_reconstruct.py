"""``tlgen reconstruct``: a user's own tilt series -> tomogram; light to import."""

from __future__ import annotations

import os
from typing import Any

import click

from catalogs.console import Choice


@click.command()
@click.argument("series")
@click.option(
    "--angles", required=True, metavar="FILE", help=".tlt, .mdoc, STAR, .tomostar, Warp's .xml, .aln."
)
@click.option("--to", "path", required=True, metavar="FILE", help="The tomogram: .mrc, .rec or .zarr.")
@click.option("--pixel-size", type=float, metavar="Å", help="Pixel size of the images, if no file states it.")
@click.option("--bin", "times", type=int, metavar="N", help="Pixels along a voxel's edge.")
@click.option("--voxel-size", type=float, metavar="Å", help="Bin to about this voxel size, instead of --bin.")
@click.option(
    "--binning",
    type=Choice(["fourier", "average"]),
    default="fourier",
    show_default=True,
    help="How images are binned.",
)
@click.option("--thickness", default=3000.0, show_default=True, metavar="Å", help="Of the tomogram.")
@click.option(
    "--tilt-axis",
    default=0.0,
    show_default=True,
    metavar="DEGREES",
    help="Angle from the images' y axis, anticlockwise; 0 for aligned images.",
)
@click.option(
    "--negate-angles",
    is_flag=True,
    help="Invert the sign of the tilt angles, which mirrors the tomogram along z.",
)
@click.option(
    "--align",
    metavar="FILE",
    help="Align the images of a raw stack with an IMOD .xf or an AreTomo .aln file.",
)
@click.option("--leave-out", metavar="N,N,...", default="", help="Images to leave out, counted from 0.")
@click.option("--filter", "kind", type=Choice(["ramp", "exact", "sirt"]), default="ramp", show_default=True)
@click.option(
    "--iterations", default=10, show_default=True, help="Iterations of the SIRT that --filter sirt imitates."
)
@click.option(
    "--rolloff",
    type=Choice(["hann", "gaussian", "none"]),
    default="hann",
    show_default=True,
    help="Fall-off of the filter: a Hann window up to Nyquist, or a Gaussian.",
)
@click.option(
    "--cutoff", default=0.35, show_default=True, help="Where the Gaussian begins, cycles per pixel."
)
@click.option("--falloff", default=0.035, show_default=True, help="Sigma of the Gaussian, cycles per pixel.")
@click.option(
    "--dose-weighting",
    is_flag=True,
    help="Reduce high frequencies according to the dose; needs doses and their order.",
)
@click.option(
    "--order",
    metavar="WORD|FILE",
    help="Order of acquisition, if no file states it: stack, dose_symmetric:negative, "
    "dose_symmetric:positive, or a file with a number for each image.",
)
@click.option("--dose-per-tilt", type=float, metavar="e/Å²", help="Dose of each image, if no file states it.")
@click.option(
    "--ctf",
    type=Choice(["none", "phase_flip", "wiener"]),
    default="none",
    show_default=True,
    help="Correct the contrast transfer, slab by slab.",
)
@click.option(
    "--ctf-slab",
    default=150.0,
    show_default=True,
    metavar="Å",
    help="Thickness of slabs of equal defocus along the beam.",
)
@click.option("--wiener-snr", default=1.0, show_default=True, help="Signal-to-noise ratio for --ctf wiener.")
@click.option("--defocus", type=float, metavar="µm", help="Underfocus, if the angles' file has none.")
@click.option("--voltage", type=float, metavar="kV", help="Voltage, if no file states it; otherwise 300.")
@click.option(
    "--cs", type=float, metavar="mm", help="Spherical aberration, if no file states it; otherwise 2.7."
)
@click.option("--amplitude-contrast", default=0.07, show_default=True, help="Share of the contrast.")
@click.option("--phase-shift", default=0.0, show_default=True, metavar="DEGREES", help="By a phase plate.")
@click.option(
    "--defocus-handedness",
    type=Choice(["1", "-1"]),
    help="-1 if higher parts of the tomogram are less under focus; by default rlnTomoHand, or 1.",
)
@click.option("--threads", type=int, help="Number of threads; by default all cores.")
@click.option(
    "--device",
    type=Choice(["cpu", "gpu", "auto"]),
    default="cpu",
    show_default=True,
    help="Device for filtering and back-projection; auto: a GPU if there is one.",
)
@click.option("--yes", is_flag=True, help="Go on with values that are unusual, such as a thickness of 30 Å.")
def reconstruct(series: str, angles: str, path: str, **given: Any) -> None:
    """Make a tomogram of SERIES, a stack of aligned images (MRC), by weighted back-projection.

    The tilt axis is y and goes through the middle of the images, as in IMOD's .ali.
    """
    from catalogs.errors import InputError
    from tlgen.api import reconstruct_series
    from tlgen.reconstruct.from_file import settings_of

    try:
        left_out = tuple(int(word) for word in given["leave_out"].replace(",", " ").split())
    except ValueError:
        raise InputError(f"--leave-out {given['leave_out']}: give image numbers, such as 0,17") from None
    names = (
        "iterations", "rolloff", "cutoff", "falloff", "dose_weighting", "ctf", "ctf_slab", "wiener_snr",
    )  # fmt: skip
    settings = settings_of({"filter": given["kind"], **{name: given[name] for name in names}})
    same = (
        "pixel_size", "voxel_size", "binning", "thickness", "tilt_axis", "negate_angles", "defocus",
        "voltage", "amplitude_contrast", "phase_shift", "device", "align", "order", "dose_per_tilt", "yes",
    )  # fmt: skip
    (z, y, x), voxel_size = reconstruct_series(
        series, angles, path, progress=True,
        bin=given["times"], leave_out=left_out, spherical_aberration=given["cs"],
        handedness=int(given["defocus_handedness"] or 0) or None, settings=settings,
        threads=given["threads"] if given["threads"] is not None else os.cpu_count() or 1,
        **{name: given[name] for name in same},
    )  # fmt: skip
    click.echo(f"{path}: {x} x {y} x {z} voxels of {voxel_size:g} Å")
