"""The program ``tlgen``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogs import console
from tlgen.cli_corpus import COMMANDS

if TYPE_CHECKING:
    from tlgen.recipes.recipe import Recipe

tlgen = console.program(
    "tlgen",
    "Make a labelled corpus of simulated tomograms from structures.",
    {
        "Write a recipe": ["new", "recipes", "match", "structures", "fetch"],
        "Look before you run": ["plan", "pack", "view", "simulate", "variants"],
        "Make a corpus": ["run", "clusters"],
        "Use a corpus": ["ls", "export", "copy", "verify", "repair", "index"],
        "Other": ["reconstruct", "doctor"],
    },
)
for command in COMMANDS:
    tlgen.add_command(command)


def _take_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Look for structures in a folder too, as long as the command runs."""
    from catalogs.errors import InputError

    if value is not None:
        if not Path(value).expanduser().is_dir():
            raise InputError(f"--structures {value}: there is no such folder")
        before = os.environ.get("TLGEN_STRUCTURES")
        os.environ["TLGEN_STRUCTURES"] = os.pathsep.join([value, *([before] if before else [])])

        def back() -> None:
            os.environ.pop("TLGEN_STRUCTURES")
            if before is not None:
                os.environ["TLGEN_STRUCTURES"] = before

        context.call_on_close(back)
    return value


_structures = click.option(
    "--structures",
    expose_value=False,
    callback=_take_folder,
    metavar="FOLDER",
    help="Look for PDB entries there first, as in the folders that $TLGEN_STRUCTURES names.",
)


@tlgen.command()
@click.argument("recipe")
@_structures
@click.option("--to", "url", required=True, metavar="URL", help="The corpus: a folder, or s3://..., gs://...")
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    metavar="WORD|FILE",
    help="Where to run: local (one process a core), local:WORKERS, threads, gpu, slurm, pbs, sge, "
    "kubernetes, tcp://HOST:PORT of a Dask scheduler, or a file as tlgen clusters writes it.",
)
@click.option(
    "--retries",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    help="How often a step that fails is tried again.",
)
@click.option(
    "--time-limit",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="A step (packing, one tilt, ...) that takes longer is stopped and counts as failed.",
)
@click.option("--log-json", metavar="FILE", help="Append what happens to FILE as JSON, one object a line.")
@click.option("--yes", is_flag=True, help="Go on with values that are unusual, such as voxels of 1 Å.")
def run(
    recipe: str,
    url: str,
    cluster: str,
    retries: int,
    time_limit: float,
    log_json: str | None,
    yes: bool,
) -> None:
    """Make the samples of RECIPE that the corpus does not have yet.

    RECIPE is a YAML file or the name of a recipe that comes with the program, e.g. demo. Run it again
    after an interruption: finished samples are kept. Ctrl-C finishes what has begun; twice stops at once.
    """
    from catalogs.errors import IncompleteError
    from tlgen.api import make

    read = _with_a_word(recipe, yes)
    try:
        make(
            read,
            url,
            cluster=cluster,
            retries=retries,
            time_limit=60 * time_limit,
            log_json=log_json,
            yes=True,  # or it would have been refused by now
            progress=True,
        )
    except IncompleteError:  # what is missing, and why, was said at the end of the run
        sys.exit(1)


@tlgen.command()
@click.argument("recipe")
@_structures
@console.to_disk("folder", required=True, metavar="FOLDER", help="Where to write the scene.")
@click.option("--sample", metavar="NAME", help="E.g. train-003; the recipe's first sample if left out.")
@click.option(
    "--voxel-size", default=16.0, show_default=True, metavar="Å", help="Of the coarse density (density.mrc)."
)
def pack(recipe: str, folder: str, sample: str | None, voxel_size: float) -> None:
    """Pack the scene of one sample of RECIPE, to look at before anything is simulated.

    FOLDER gets scene.json, the molecules, a particle table and a coarse density; `tlgen view` draws it.
    """
    from tlgen.commands.pack import pack as make

    make(_with_a_word(recipe), folder, sample, voxel_size)


@tlgen.command()
@click.argument("scene")
@click.argument("recipe")
@console.to_disk("path", required=True, metavar="FILE", help="The stack: .mrc; angles go beside it.")
@click.option("--sample", metavar="NAME", help="Whose acquisition; the recipe's first sample if left out.")
@click.option("--angle", "angles", type=float, multiple=True, metavar="°", help="Only these tilts of it.")
@click.option("--noise/--no-noise", default=True, help="Counts, or the mean intensity (vacuum is 1).")
def simulate(
    scene: str, recipe: str, path: str, sample: str | None, angles: tuple[float, ...], noise: bool
) -> None:
    """Simulate tilt images of SCENE, a folder that `tlgen pack` wrote, as RECIPE says.

    The scene may be changed by hand: what stands in something else, or out of the ice, is refused.
    """
    from tlgen.commands.simulate_scene import simulate_scene

    simulate_scene(scene, _with_a_word(recipe), path, sample=sample, angles=angles, noise=noise)


@tlgen.command()
@click.argument("source")
@console.to_disk("path", required=True, metavar="FILE", help="The picture: .png or .html.")
@click.option("--sample", metavar="NAME", help="Of a corpus; the first one by name if left out.")
def view(source: str, path: str, sample: str | None) -> None:
    """Draw SOURCE: a scene, or a simulated tomogram with its labels.

    SOURCE is a folder that `tlgen pack` wrote, a corpus, or a sample of one. Of a scene three sections are
    drawn, the gaps between molecules, and counts.
    """
    from catalogs.errors import InputError
    from tlgen.api import open_scene
    from tlgen.scene.view import describe
    from tlgen.scene.view_sample import is_sample, view_sample

    if is_sample(source):
        name, lines = view_sample(source, sample, path)
        click.echo(f"{path}: {name}; {'; '.join(lines)}")
        return
    if sample is not None:
        raise InputError(f"--sample {sample}: {source} is no corpus; a scene is of one sample")
    packed = open_scene(source)
    facts = packed.draw(path)
    click.echo(f"{path}: " + "; ".join(describe(packed.scene, facts)))


@tlgen.command()
@click.option("--schema", is_flag=True, help="Print the JSON schema of recipes instead.")
def recipes(schema: bool) -> None:
    """List the recipes that come with the program."""
    import json

    from tlgen.recipes.recipe_file import json_schema, read_recipe, shipped_recipes

    if schema:
        click.echo(json.dumps(json_schema(), indent=1))
        return
    for name in shipped_recipes():
        click.echo(f"{name:24} {read_recipe(name).description}")


@tlgen.command()
@click.argument("recipe")
@_structures
@click.option("--to", "url", required=True, metavar="URL", help="The corpus, whether it is there or not.")
@click.option("--price", metavar="MONEY", help="Of a core for an hour, e.g. 0.05/core-hour.")
@click.option(
    "--cluster", default="local", show_default=True, metavar="WORD|FILE", help="As tlgen run takes it."
)
@click.option(
    "--budget",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="What the calibration may take, about.",
)
def plan(recipe: str, url: str, price: str | None, cluster: str, budget: float) -> None:
    """Say what tlgen run would do with RECIPE, and what that would cost; nothing is changed.

    Counts are exact. Costs come from one small sample of each kind, which is made on this machine and
    thrown away; what was measured is remembered for some hours.
    """
    from tlgen.runs.plan import plan as tell

    tell(_with_a_word(recipe), url, price, cluster, budget)


@tlgen.command()
@click.argument("name", required=False)
def clusters(name: str | None) -> None:
    """List where tlgen run can compute, or print the commented cluster file NAME to start from.

    E.g. tlgen clusters slurm > cluster.yaml, then: tlgen run RECIPE --to URL --cluster cluster.yaml.
    With a file of yours as NAME, it is checked, and what would be submitted is printed.
    """
    from tlrun.cluster.cluster_file import presets
    from tlrun.cluster.preview import listing, preview

    if name is None:
        click.echo("\n".join(listing()))
    elif name in presets():
        click.echo(presets()[name].read_text(), nl=False)
    else:
        click.echo(preview(name))


@tlgen.command()
@click.option("--template", default="demo", show_default=True, help="A recipe that `tlgen recipes` lists.")
@click.argument("path", type=click.Path(path_type=Path))
def new(template: str, path: Path) -> None:
    """Write a commented recipe to PATH, to make your own of."""
    from tlgen.commands.enough import lines
    from tlgen.recipes.recipe_file import new_recipe

    name = new_recipe(template, path)
    click.echo(f"{path}: recipe {name}, as {template}; edit it, then: tlgen plan {path} --to {name}/corpus")
    for line in lines():
        click.echo(line)


@tlgen.command()
@click.argument("recipe")
@_structures
@console.to_disk("folder", required=True, type=click.Path(path_type=Path), help="Where to write them.")
def variants(recipe: str, folder: Path) -> None:
    """Write the flexible variants of RECIPE's targets, as mmCIF files of several models and a table.

    They are those that `tlgen run` packs. ChimeraX opens the files and plays the models as a film.
    """
    from tlgen.molecules.variant_files import write_variants
    from tlgen.recipes.recipe_file import read_recipe

    write_variants(read_recipe(recipe), folder)


@tlgen.command()
@click.argument("series")
@click.option(
    "--angles", required=True, metavar="FILE", help=".tlt, .mdoc, STAR, .tomostar, Warp's .xml, .aln."
)
@click.option("--to", "path", required=True, metavar="FILE", help="The tomogram: .mrc, .rec or .zarr.")
@click.option("--pixel-size", type=float, metavar="Å", help="Of the images, where no file states it.")
@click.option("--bin", "times", type=int, metavar="N", help="Pixels along a voxel's edge.")
@click.option("--voxel-size", type=float, metavar="Å", help="Bin to about this, instead of --bin.")
@click.option(
    "--binning",
    type=console.Choice(["fourier", "average"]),
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
    help="From the images' y, anticlockwise; leave it at 0 for aligned images.",
)
@click.option("--negate-angles", is_flag=True, help="Tilts count the other way round: mirrors along z.")
@click.option(
    "--align", metavar="FILE", help="Move the images of a raw stack as an IMOD .xf or an AreTomo .aln says."
)
@click.option("--leave-out", metavar="N,N,...", default="", help="Images to leave out, counted from 0.")
@click.option(
    "--filter", "kind", type=console.Choice(["ramp", "exact", "sirt"]), default="ramp", show_default=True
)
@click.option("--iterations", default=10, show_default=True, help="Of the SIRT that --filter sirt is like.")
@click.option(
    "--rolloff",
    type=console.Choice(["hann", "gaussian", "none"]),
    default="hann",
    show_default=True,
    help="What ends the filter: a Hann window at Nyquist, or a Gaussian.",
)
@click.option("--cutoff", default=0.35, show_default=True, help="Where the Gaussian begins, cycles a pixel.")
@click.option("--falloff", default=0.035, show_default=True, help="The Gaussian's sigma, cycles a pixel.")
@click.option(
    "--dose-weighting",
    is_flag=True,
    help="Fade out what the dose has destroyed; needs doses and their order.",
)
@click.option(
    "--order",
    metavar="WORD|FILE",
    help="When images were taken, where no file tells it: stack, dose_symmetric:negative, "
    "dose_symmetric:positive, or a file with a number for each.",
)
@click.option("--dose-per-tilt", type=float, metavar="e/Å²", help="Of each image, where no file tells it.")
@click.option(
    "--ctf",
    type=console.Choice(["none", "phase_flip", "wiener"]),
    default="none",
    show_default=True,
    help="Correct the contrast transfer, slab by slab.",
)
@click.option(
    "--ctf-slab", default=150.0, show_default=True, metavar="Å", help="Of equal defocus along the beam."
)
@click.option(
    "--wiener-snr", default=1.0, show_default=True, help="Signal to noise that --ctf wiener expects."
)
@click.option("--defocus", type=float, metavar="µm", help="Under focus, where the angles' file has none.")
@click.option("--voltage", type=float, metavar="kV", help="Where no file states it; else 300.")
@click.option(
    "--cs", type=float, metavar="mm", help="Spherical aberration, where no file states it; else 2.7."
)
@click.option("--amplitude-contrast", default=0.07, show_default=True, help="Share of the contrast.")
@click.option("--phase-shift", default=0.0, show_default=True, metavar="DEGREES", help="By a phase plate.")
@click.option(
    "--defocus-handedness",
    type=console.Choice(["1", "-1"]),
    help="-1 if what is higher in the tomogram is less under focus; else as rlnTomoHand says, or 1.",
)
@click.option("--threads", type=int, help="To compute with; all of the machine's if left out.")
@click.option(
    "--device",
    type=console.Choice(["cpu", "gpu", "auto"]),
    default="cpu",
    show_default=True,
    help="Where images are filtered and back-projected; auto: on a GPU where there is one.",
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
        raise InputError(f"--leave-out {given['leave_out']}: give numbers of images, such as 0,17") from None
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


@tlgen.command()
@click.argument("acquisition")
@console.to_disk("path", metavar="FILE", help="The recipe, .yaml; it is printed if left out.")
@click.option("--template", help="The recipe that a new one extends: a name or a path.  [default: demo]")
@click.option(
    "--voxel-size",
    default=10.0,
    show_default=True,
    metavar="Å",
    help="Bin your pixels to about this, by a whole number.",
)
def match(acquisition: str, path: str | None, template: str | None, voxel_size: float) -> None:
    """Write a recipe whose tilt series are taken as ACQUISITION was: an .mdoc, STAR, .tomostar, ...

    Tilts, order and voltage are those of the file, dose and defocus are drawn from around its own. Structures
    and counts of a new recipe come from the template; edit them. In a recipe that is there, only shape,
    acquisition and samples are changed.
    """
    from tlgen.recipes.from_series import write_recipe

    for line in write_recipe(acquisition, path, template, voxel_size):
        click.echo(line)
    if path is not None:
        _with_a_word(path)
    else:
        console.tell_unusual("voxel_size", voxel_size, "--voxel-size")


@tlgen.command()
@click.argument("names", nargs=-1, metavar="[FILE|PDB-ID]...")
def structures(names: tuple[str, ...]) -> None:
    """List the structures that installed packages ship, or read structures and say what each is.

    A recipe may name any other PDB entry too.
    """
    from tlgen.commands.structure_list import described_lines, shipped_lines

    for line in described_lines(names) if names else shipped_lines():
        click.echo(line)


@tlgen.command()
@click.argument("recipe")
@console.to_disk(
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where they go; the cache (~/.cache/template-learning/pdb) if left out.",
)
def fetch(recipe: str, folder: Path | None) -> None:
    """Fetch all structures of RECIPE from the PDB, for a machine that has no network.

    There, --structures FOLDER or $TLGEN_STRUCTURES finds them.
    """
    from tlgen.commands.structure_list import fetch_all
    from tlgen.recipes.recipe_file import read_recipe

    for line in fetch_all(read_recipe(recipe), folder):
        click.echo(line)


@tlgen.command()
def doctor() -> int:
    """Show what is installed and what works here, with the command that mends what does not."""
    from tlgen.commands.doctor import examine

    lines = examine()
    width = max(len(line.what) for line in lines)
    for line in lines:
        mark = "MISSING" if line.needed else "note" if line.mend else "ok"
        click.echo(f"{mark:<8}{line.what:<{width}}  {line.state}")
        if line.mend:
            click.echo(f"{'':{width + 8}}  -> {line.mend}")
    return int(any(line.needed for line in lines))


def _with_a_word(name: str, yes: bool | None = None) -> Recipe:
    """Read a recipe, and say what is unusual about it.

    ``yes`` says of something that takes hours whether the user means what is unusual; None stands for
    something that takes minutes, which goes on anyway.
    """
    from tlgen.recipes.doubts import doubts, refuse_unusual
    from tlgen.recipes.recipe_file import read_recipe

    recipe = read_recipe(name)
    found = doubts(recipe)
    for words in (each for several in found.values() for each in several):
        click.echo(f"unusual: {words}", err=True)
    if found and yes is False:
        from tlgen.runs.recipe_checks import check_recipe

        check_recipe(recipe)  # the impossible is refused before the unusual is asked about
        refuse_unusual(found, yes)
    return recipe


def main() -> None:
    """Run the program."""
    console.run(tlgen)
