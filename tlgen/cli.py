"""The program ``tlgen``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from catalogs import console

tlgen = console.program("tlgen", "Make a labelled corpus of simulated tomograms from structures.")


@tlgen.command()
@click.argument("recipe")
@click.option("--to", "url", required=True, metavar="URL", help="The corpus: a folder, or s3://..., gs://...")
@click.option(
    "--cluster",
    default="local",
    show_default=True,
    help="Where to run: local (one process a core), local:WORKERS, or tcp://HOST:PORT of a Dask scheduler.",
)
@click.option("--retries", default=2, show_default=True, help="How often a step that fails is tried again.")
def run(recipe: str, url: str, cluster: str, retries: int) -> None:
    """Make the samples of RECIPE that the corpus does not have yet.

    RECIPE is a YAML file or the name of a recipe that comes with the program, e.g. demo. Run it again
    after an interruption: finished samples are kept.
    """
    from tlgen.recipe_file import read_recipe
    from tlgen.run import run as make

    sys.exit(0 if make(read_recipe(recipe), url, cluster, retries) else 1)


@tlgen.command()
@click.argument("recipe")
@click.option("--to", "folder", required=True, metavar="FOLDER", help="Where to write the scene.")
@click.option("--sample", metavar="NAME", help="E.g. train-003; the recipe's first sample if left out.")
@click.option(
    "--voxel-size", default=16.0, show_default=True, metavar="Å", help="Of the coarse density (density.mrc)."
)
def pack(recipe: str, folder: str, sample: str | None, voxel_size: float) -> None:
    """Pack the scene of one sample of RECIPE, to look at before anything is simulated.

    FOLDER gets scene.json, the molecules, a particle table and a coarse density; `tlgen view` draws it.
    """
    from tlgen.pack import pack as make
    from tlgen.recipe_file import read_recipe

    make(read_recipe(recipe), folder, sample, voxel_size)


@tlgen.command()
@click.argument("scene")
@click.option("--to", "path", required=True, metavar="FILE", help="The picture: .png or .html.")
def view(scene: str, path: str) -> None:
    """Draw SCENE, a folder that `tlgen pack` wrote: three sections, gaps between molecules, counts."""
    from tlgen.scene_file import read_scene
    from tlgen.view import describe
    from tlgen.view import view as draw

    read, library = read_scene(scene)
    facts = draw(read, library, path, title=Path(scene).resolve().name)
    click.echo(f"{path}: " + "; ".join(describe(read, facts)))


@tlgen.command()
@click.argument("url")
@click.option("--where", metavar="QUERY", help="E.g. \"dose < 100 and defocus > 2 and split == 'test'\".")
@click.option("--paths", is_flag=True, help="Print only where the samples lie, one a line.")
def ls(url: str, where: str | None, paths: bool) -> None:
    """List the samples of the corpus at URL."""
    from tlgen.listing import listing

    for line in listing(url, where, paths):
        click.echo(line)


@tlgen.command()
@click.option("--schema", is_flag=True, help="Print the JSON schema of recipes instead.")
def recipes(schema: bool) -> None:
    """List the recipes that come with the program."""
    import json

    from tlgen.recipe_file import json_schema, read_recipe, shipped_recipes

    if schema:
        click.echo(json.dumps(json_schema(), indent=1))
        return
    for name in shipped_recipes():
        click.echo(f"{name:24} {read_recipe(name).description}")


@tlgen.command()
@click.option("--template", default="demo", show_default=True, help="A recipe that `tlgen recipes` lists.")
@click.argument("path", type=click.Path(path_type=Path))
def new(template: str, path: Path) -> None:
    """Write a commented recipe to PATH, to make your own of."""
    from tlgen.recipe_file import new_recipe

    name = new_recipe(template, path)
    click.echo(f"{path}: recipe {name}, as {template}; edit it, then: tlgen run {path} --to {name}/corpus")


@tlgen.command()
def structures() -> None:
    """List the structures that installed packages ship; a recipe may name any other PDB entry too."""
    from tlgen.structures import shipped

    for name, path in shipped().items():
        click.echo(f"{name:12} {path}")


def main() -> None:
    """Run the program."""
    console.run(tlgen)
