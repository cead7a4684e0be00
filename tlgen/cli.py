"""The program ``tlgen``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalogs import console
from tlgen.cli_corpus import COMMANDS
from tlgen.cli_reconstruct import reconstruct

if TYPE_CHECKING:
    from tlgen.recipes.recipe import Recipe

tlgen = console.program(
    "tlgen",
    "Make a labelled corpus of simulated tomograms from structures.",
    {
        "Write a recipe": ["new", "recipes", "match", "structures", "fetch"],
        "Look before you run": ["plan", "pack", "view", "simulate", "variants"],
        "Make a corpus": ["run", "clusters"],
        "Use a corpus": ["ls", "browse", "export", "copy", "verify", "repair", "index"],
        "Other": ["reconstruct", "doctor"],
    },
)
for command in (*COMMANDS, reconstruct):
    tlgen.add_command(command)


def _take_folder(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Also look for structures in a folder while the command runs."""
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


#: Of a recipe that ``match`` writes without a tomogram, Å.
_VOXEL_SIZE = 10.0

_structures = click.option(
    "--structures",
    expose_value=False,
    callback=_take_folder,
    metavar="FOLDER",
    help="Folder with PDB entries, searched first; $TLGEN_STRUCTURES names others.",
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
    help="Where to run: local (one process per core), local:WORKERS, threads, gpu, slurm, pbs, sge, "
    "kubernetes, tcp://HOST:PORT of a Dask scheduler, or a cluster file (see tlgen clusters).",
)
@click.option(
    "--retries",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    help="How often a failed step is tried again.",
)
@click.option(
    "--time-limit",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="A step (packing, one tilt, ...) that takes longer is stopped and has failed.",
)
@click.option("--log-json", metavar="FILE", help="Append the progress to FILE as JSON, one object per line.")
@click.option("--yes", is_flag=True, help="Continue although values are unusual, such as voxels of 1 Å.")
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

    RECIPE is a YAML file or the name of a recipe that comes with the program, e.g. demo. Run it again after
    an interruption: finished samples are kept. Ctrl-C finishes the samples that have begun; a second Ctrl-C
    stops at once.
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
@click.option("--sample", metavar="NAME", help="E.g. train-003; by default the first sample of the recipe.")
@click.option(
    "--voxel-size",
    default=16.0,
    show_default=True,
    metavar="Å",
    help="Voxel size of the coarse density (density.mrc).",
)
def pack(recipe: str, folder: str, sample: str | None, voxel_size: float) -> None:
    """Pack the scene of one sample of RECIPE, to look at it before anything is simulated.

    Writes scene.json, the molecules, a particle table and a coarse density into FOLDER; `tlgen view` draws
    it.
    """
    from tlgen.commands.pack import pack as make

    make(_with_a_word(recipe), folder, sample, voxel_size)


@tlgen.command()
@click.argument("scene")
@click.argument("recipe")
@console.to_disk(
    "path", required=True, metavar="FILE", help="The stack, .mrc; the angles are written beside it."
)
@click.option(
    "--sample", metavar="NAME", help="Sample whose acquisition is used; by default the first of the recipe."
)
@click.option("--angle", "angles", type=float, multiple=True, metavar="°", help="Only these tilts of it.")
@click.option(
    "--noise/--no-noise", default=True, help="Images of counts, or of the mean intensity (vacuum is 1)."
)
def simulate(
    scene: str, recipe: str, path: str, sample: str | None, angles: tuple[float, ...], noise: bool
) -> None:
    """Simulate tilt images of SCENE, a folder that `tlgen pack` wrote, with the acquisition of RECIPE.

    You may edit the scene by hand; a molecule that overlaps another, or that is outside of the ice, is
    refused.
    """
    from tlgen.commands.simulate_scene import simulate_scene

    simulate_scene(scene, _with_a_word(recipe), path, sample=sample, angles=angles, noise=noise)


@tlgen.command()
@click.argument("source")
@console.to_disk("path", required=True, metavar="FILE", help="The picture: .png or .html.")
@click.option("--sample", metavar="NAME", help="Sample of a corpus; by default the first by name.")
def view(source: str, path: str, sample: str | None) -> None:
    """Draw SOURCE: a scene, or a simulated tomogram with its labels.

    SOURCE is a folder that `tlgen pack` wrote, a corpus, or a sample of a corpus. The picture of a scene
    shows three sections, the gaps between molecules, and counts.
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
        raise InputError(f"--sample {sample}: {source} is not a corpus; a scene has only one sample")
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
@click.option("--to", "url", required=True, metavar="URL", help="The corpus; it need not exist yet.")
@click.option("--price", metavar="MONEY", help="Price per core-hour, e.g. 0.05/core-hour.")
@click.option(
    "--cluster", default="local", show_default=True, metavar="WORD|FILE", help="As tlgen run takes it."
)
@click.option(
    "--budget",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="About how long the cost measurement may take.",
)
def plan(recipe: str, url: str, price: str | None, cluster: str, budget: float) -> None:
    """Show what tlgen run would do with RECIPE and what it would cost; nothing is changed.

    Counts are exact. Costs are estimated from one small sample of each kind, which is made on this machine
    and thrown away. The measurement is remembered for some hours.
    """
    from tlgen import api

    api.plan(_with_a_word(recipe), url, cluster=cluster, price=price, budget=budget)


@tlgen.command()
@click.argument("name", required=False)
def clusters(name: str | None) -> None:
    """List the kinds of clusters, or print the commented cluster file NAME as a template.

    E.g. tlgen clusters slurm > cluster.yaml, then: tlgen run RECIPE --to URL --cluster cluster.yaml. If NAME
    is your own file, it is checked, and the job script that would be submitted is printed.
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
    """Write a commented recipe to PATH as a template for your own."""
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
    """Write the flexible variants of RECIPE's targets: mmCIF files with several models, and a table.

    These are the variants that `tlgen run` packs. ChimeraX opens the files and plays the models as a movie.
    """
    from tlgen.api import write_variants
    from tlgen.recipes.recipe_file import read_recipe

    write_variants(read_recipe(recipe), folder)


@tlgen.command()
@click.argument("acquisition")
@console.to_disk("path", metavar="FILE", help="The recipe, .yaml; if left out, it is printed.")
@click.option("--template", help="The recipe that a new one extends: a name or a path.  [default: demo]")
@click.option(
    "--voxel-size",
    type=float,
    metavar="Å",
    help="Bin your pixels to about this voxel size, by a whole number.  [default: 10]",
)
@click.option(
    "--tomogram",
    metavar="FILE",
    help="Set ranges by this tomogram of the series, until simulated power spectra enclose its own; minutes.",
)
def match(
    acquisition: str, path: str | None, template: str | None, voxel_size: float | None, tomogram: str | None
) -> None:
    """Write a recipe with tilt series like ACQUISITION: an .mdoc, STAR, .tomostar, ... file.

    Tilts, order and voltage are those of the file; dose and defocus are drawn from ranges around its values.
    Structures and counts of a new recipe come from the template; edit them. If the recipe exists, only its
    shape, acquisition and samples are changed. With --tomogram, ranges of contrast, dose, defocus and
    alignment errors, the thickness of the boxes and, where needed, packing, membranes and the filter are set
    by the tomogram; FILE.match.html shows its spectrum among the simulated ones.
    """
    from tlgen import api

    size = _VOXEL_SIZE if voxel_size is None else voxel_size
    made = api.match(acquisition, path, template, voxel_size=voxel_size, tomogram=tomogram, progress=True)
    if path is None:
        click.echo(made.text.rstrip())
        console.tell_unusual("voxel_size", size, "--voxel-size")
        return
    for line in (*made.found, *made.changes, made.remark):
        click.echo(line)
    _with_a_word(path)


@tlgen.command()
@click.argument("names", nargs=-1, metavar="[FILE|PDB-ID]...")
def structures(names: tuple[str, ...]) -> None:
    """List the structures that come with installed packages, or read structures and describe them.

    A recipe may also name any other PDB entry.
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
    help="Where to write them; by default the cache (~/.cache/template-learning/pdb).",
)
def fetch(recipe: str, folder: Path | None) -> None:
    """Fetch all structures of RECIPE from the PDB, for use on a machine without a network.

    On that machine, name the folder with --structures FOLDER or $TLGEN_STRUCTURES.
    """
    from tlgen.api import fetch_structures
    from tlgen.recipes.recipe_file import read_recipe

    fetch_structures(read_recipe(recipe), folder)


@tlgen.command()
def doctor() -> int:
    """Show what is installed and what works, and how to fix what does not."""
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
    """Read a recipe, and print what is unusual about it.

    For commands that take hours, ``yes`` says whether the user means the unusual values. None is for commands
    that take minutes; they always continue.
    """
    from tlgen.recipes.doubts import doubts, refuse_unusual
    from tlgen.recipes.recipe_file import read_recipe

    recipe = read_recipe(name)
    found = doubts(recipe)
    for words in (each for several in found.values() for each in several):
        click.echo(f"unusual: {words}", err=True)
    if found and yes is False:
        from tlgen.runs.recipe_checks import check_recipe

        check_recipe(recipe)  # impossible values are refused before the user is asked about unusual ones
        refuse_unusual(found, yes)
    return recipe


def main() -> None:
    """Run the program."""
    console.run(tlgen)
