"""What ``import tlgen`` offers: pack a scene, simulate it, make a corpus, reconstruct a tilt series.

The command line ``tlgen`` is a thin layer over these functions.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogs import seeds
from catalogs.corpus.catalog import Catalog
from catalogs.errors import IncompleteError, InputError
from catalogs.private_folders import scratch_folder
from catalogs.progress import Progress, progress_of
from tlgen.molecules.library import CorpusLibrary
from tlgen.molecules.molecule import Molecule
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.samples import SampleSpec, expand, sample_named
from tlgen.scene.packed_scene import PackedScene
from tlgen.scene.scene_file import read_scene
from tlgen.simulate.engine import engine, in_calls
from tlgen.tilts.misalignment import misaligned, seen
from tlgen.tilts.scheme import Tilt, tilt_series

if TYPE_CHECKING:
    import pandas as pd

    from tlgen.recipes.from_series import Matched
    from tlgen.runs.plan import Plan

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TiltImages:
    """Images of a scene.

    Attributes
    ----------
    images
        (tilts, y, x) counts, or mean intensities.
    tilts
        Of the images, by rising angle.
    pixel_size
        Å.
    engine, devices
        The engine that simulated them, with its version, and the devices that it ran on.
    """

    images: NDArray[np.float32]
    tilts: tuple[Tilt, ...]
    pixel_size: float
    engine: str
    devices: tuple[str, ...]

    @property
    def angles(self) -> NDArray[np.float64]:
        """(tilts,) nominal angles in degrees, without alignment errors."""
        return np.array([tilt.angle for tilt in self.tilts])


def pack(recipe: Recipe, sample: str | None = None, *, progress: bool | Progress = False) -> PackedScene:
    """Pack the scene of one sample of a recipe; it is the one that :func:`make` would simulate.

    Parameters
    ----------
    recipe
        From :func:`tlgen.load_recipe`, or made in Python.
    sample
        Name of the sample, such as ``train-000``; the first one of the recipe if left out.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    PackedScene

    Raises
    ------
    InputError
        If the recipe has no such sample or lacks a structure.
    """
    from tlgen.runs import make_sample, prepare_structures, recipe_checks
    from tlgen.runs.unplaced_molecules import refuse_nothing_placed

    recipe_checks.check_recipe(recipe)
    wanted = prepare_structures.preparations(recipe)
    spec = sample_named(expand(recipe, {p.key: p.count for p in wanted}), sample, recipe.name)
    prepare_structures.refuse_small_boxes(recipe)
    recipe_checks.check_decorations(recipe, [spec])
    prepare_structures.refuse_targets_among_distractors(recipe)
    with scratch_folder("tlgen-pack-") as temporary:
        infos = prepare_structures.class_infos(recipe)
        catalog = Catalog.create(
            str(temporary / "corpus"),
            classes=infos,
            recipe=recipe.model_dump(mode="json"),
            name=recipe.name,
        )
        prepared = []
        with progress_of(progress)("structures and their variants", len(wanted), "structures") as line:
            for preparation in wanted:
                prepared.append(prepare_structures.prepare(catalog.url, preparation))
                line.update(len(prepared))
        packed = make_sample.pack_scene(catalog.url, spec, prepared, tuple(info.name for info in infos))
        stored = CorpusLibrary(catalog.url)
        library: Mapping[str, Molecule] = {digest: stored[digest] for digest in packed.scene.digests}
    refuse_nothing_placed(packed.scene, library)
    return PackedScene(packed.scene, library, spec.name, packed.seconds, packed.occupancy, spec.packing)


def open_scene(folder: str | os.PathLike[str]) -> PackedScene:
    """Open the folder of a scene, which ``tlgen pack`` or :meth:`PackedScene.save` wrote.

    Raises
    ------
    InputError
        If there is no scene, or it was edited by hand and is not valid.
    """
    scene, library = read_scene(folder)
    return PackedScene(scene, library, Path(folder).resolve().name)


def simulate_tilts(
    scene: PackedScene,
    recipe: Recipe,
    sample: str | None = None,
    *,
    angles: Sequence[float] = (),
    noise: bool = True,
) -> TiltImages:
    """Simulate tilt images of a scene with the acquisition of one sample of a recipe.

    Ice, counts and alignment errors are random, but the same in every call.

    Parameters
    ----------
    scene
        From :func:`pack` or :func:`open_scene`.
    recipe
        Recipe with the acquisition.
    sample
        Name of the sample; the first one of the recipe if left out.
    angles
        Angles in degrees: only these tilts of the series. If empty, all of them.
    noise
        True gives counts; False gives mean intensities, where vacuum is 1.

    Returns
    -------
    TiltImages

    Raises
    ------
    InputError
        If the scene or the acquisition cannot be simulated, or the series has no such angle.
    """
    from tlgen.simulate import checks

    spec: SampleSpec = sample_named(expand(recipe, {}), sample, recipe.name)
    acq = spec.acquisition
    simulator = engine(acq.engine)
    simulator.check(acq)
    simulator.check_device(acq)
    simulator.check_scene(scene.scene, scene.library, acq)
    checks.check_overlaps(scene.scene, scene.library)
    seed, of_alignment = (
        seeds.seed(recipe.seed, recipe.name, spec.name, stage) for stage in ("simulate", "alignment")
    )
    tilts = _with_angles(misaligned(tilt_series(acq), acq, of_alignment), angles)
    images, devices = list[NDArray[np.float32]](), set[str]()
    for part in in_calls(simulator, acq, scene.scene.shape, tilts):
        started = time.process_time()
        views = [seen(scene.scene, tilt) for tilt in part]
        made, device = simulator.simulate_together(views, scene.library, acq, seed, noise=noise)
        each = (time.process_time() - started) / len(part)
        for tilt, image in zip(part, made, strict=True):
            _log.info(
                f"  {tilt.angle:6.1f}°  number {tilt.index + 1} in time, {tilt.dose_before:5.1f} e/Å² before"
                f" it, mean {image.mean():.4g}, standard deviation {image.std():.4g}, {each:.1f} CPU-s"
            )
        images += made
        devices.add(device)
    return TiltImages(
        np.stack(images), tuple(tilts), scene.scene.voxel_size, simulator.version(), tuple(sorted(devices))
    )


def plan(
    recipe: Recipe,
    to: str | os.PathLike[str],
    *,
    cluster: str = "local",
    price: float | str | None = None,
    budget: float = 20.0,
) -> Plan:
    """Find out what :func:`make` would do, and what it would cost; nothing is changed.

    Counts are exact. Costs are estimated from one small sample of each kind, which is made on this machine
    and thrown away. The measurement is remembered for some hours.

    Parameters
    ----------
    recipe
        From :func:`tlgen.load_recipe`, or made in Python.
    to
        Path or URL of the corpus; it need not exist.
    cluster
        As for :func:`make`.
    price
        Price of a core-hour, such as 0.05 or ``0.05/core-hour``.
    budget
        About how long the measurement may take, in seconds.

    Returns
    -------
    tlgen.runs.plan.Plan
        Its ``counts``, ``costs``, ``seconds`` and ``money``; ``print`` shows it as ``tlgen plan`` does.

    Raises
    ------
    InputError
        If :func:`make` would refuse the recipe, or the price is not valid.
    """
    from tlgen.runs.plan import plan as find_out

    return find_out(recipe, os.fspath(to), price, cluster, budget)


def make(
    recipe: Recipe,
    to: str | os.PathLike[str],
    *,
    cluster: str = "local",
    retries: int = 2,
    time_limit: float = 7200.0,
    log_json: str | None = None,
    yes: bool = False,
    progress: bool | Progress = False,
) -> Catalog:
    """Make the samples of a recipe that a corpus does not have yet.

    Call it again after an interruption: finished samples are kept.

    Parameters
    ----------
    recipe
        From :func:`tlgen.load_recipe`, or made in Python.
    to
        Path or URL of the corpus; it is created if it does not exist.
    cluster
        Where to run, in one word or as a file: ``local``, ``local:4``, ``slurm``, ``tcp://HOST:PORT``, ...;
        see :func:`tlrun.cluster.connect.open_pools`.
    retries
        How often a failed step is tried again.
    time_limit
        Seconds that one step may take.
    log_json
        File to which the progress of the run is written, as JSON lines.
    yes
        Go on with values that are unusual, such as voxels of 1 Å; False: refuse them.
    progress
        True shows the run as ``tlgen run`` does; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    catalogs.Catalog
        The corpus, with every sample of the recipe.

    Raises
    ------
    InputError
        A value is unusual, a structure is missing, an engine does not support a setting, or the corpus has
        other classes.
    IncompleteError
        Some samples could not be made; the others are in the corpus.
    """
    from tlgen.recipes.doubts import doubts, refuse_unusual
    from tlgen.runs.recipe_checks import check_recipe
    from tlgen.runs.run import run

    url, found = os.fspath(to), doubts(recipe)
    if found and not yes:
        check_recipe(recipe)  # impossible values are refused first
        refuse_unusual(found, yes, told=False)
    if not run(recipe, url, cluster, retries, time_limit, log_json, progress=progress):
        raise IncompleteError(
            f"not all samples of the recipe {recipe.name} are in {url}; the same call makes the missing ones"
        )
    return Catalog.open(url)


def reconstruct_series(
    series: str | os.PathLike[str],
    angles: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    progress: bool | Progress = False,
    **options: Any,
) -> tuple[tuple[int, int, int], float]:
    """Make a tomogram of a stack of aligned images by weighted back-projection.

    Parameters
    ----------
    series
        MRC stack; the tilt axis is y and goes through the middle of the images.
    angles
        ``.tlt``, ``.rawtlt``, ``.mdoc`` or a STAR file of RELION: one angle for each image.
    to
        The tomogram: ``.mrc``, ``.rec`` or ``.zarr``.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.
    options
        Fields of :class:`tlgen.reconstruct.from_file.Request`, such as ``voxel_size`` and ``thickness`` in Å.

    Returns
    -------
    shape, voxel_size
        Voxels along z, y, x, and Å.

    Raises
    ------
    InputError
        If angles and images do not match, or an option makes no sense.
    """
    from tlgen.reconstruct.from_file import Request, reconstruct_file

    request = Request(**options)
    return reconstruct_file(
        os.fspath(series), os.fspath(angles), os.fspath(to), request, progress=progress_of(progress)
    )


def match(
    acquisition: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    template: str | os.PathLike[str] | None = None,
    *,
    voxel_size: float | None = None,
    tomogram: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> Matched:
    """Make a recipe with tilt series like an acquisition.

    Tilts, their order and the voltage are those of the file; dose and defocus are drawn from ranges around
    its values. Structures and counts come from the template.

    Parameters
    ----------
    acquisition
        ``.mdoc``, STAR, ``.tomostar``, ... file of a tilt series.
    to
        File to write, ``.yaml``; None: no file. If it exists, only its shape, acquisition and samples change.
    template
        The recipe that a new one extends: a name or a path; None: ``demo``.
    voxel_size
        Å; the pixels are binned to about this voxel size, by a whole number. None: 10 Å.
    tomogram
        Tomogram of the series, whose power spectrum simulated boxes shall enclose: it also sets ranges of
        contrast, dose, defocus and alignment errors, the thickness of boxes and, where needed, packing,
        membranes and the filter. A page beside ``to`` shows both spectra. It needs ``to``, and takes minutes.
    progress
        With a tomogram: True shows the simulations; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    tlgen.recipes.from_series.Matched
        The ``recipe``, its ``text`` as YAML, the ``changes``, and with a tomogram what was ``found``.

    Raises
    ------
    InputError
        If a file cannot be read, ``to`` exists although a template is given, or the voxel size is impossible.
    """
    from tlgen.recipes.from_series import match as repeat

    target, below = (None if path is None else os.fspath(path) for path in (to, template))
    if tomogram is None:
        return repeat(os.fspath(acquisition), target, below, 10.0 if voxel_size is None else voxel_size)
    from tlgen.commands.match import match_tomogram

    if target is None:
        raise InputError("`tomogram` needs `to`: the recipe and a page are written")
    if voxel_size is not None:
        raise InputError("`tomogram` sets the voxel size; leave out `voxel_size`")
    return match_tomogram(os.fspath(acquisition), os.fspath(tomogram), target, below, progress=progress)


def write_variants(recipe: Recipe, to: str | os.PathLike[str]) -> pd.DataFrame:
    """Write the flexible variants of a recipe's targets into a folder, as :func:`make` packs them.

    Each structure becomes an mmCIF file; model 1 is the structure itself. ``variants.csv`` describes them.

    Returns
    -------
    pandas.DataFrame
        RMSD (Å), checks and mode amplitudes, one row per variant.

    Raises
    ------
    InputError
        If no target has variants, a structure is missing, or the folder cannot be written.
    """
    from tlgen.molecules.variant_files import write_variants as write

    return write(recipe, Path(to))


def fetch_structures(
    recipe: Recipe, to: str | os.PathLike[str] | None = None, *, progress: bool | Progress = False
) -> dict[str, Path]:
    """Fetch all structures of a recipe from the PDB, for use on a machine without a network.

    Parameters
    ----------
    recipe
        From :func:`tlgen.load_recipe`, or made in Python.
    to
        Folder to write to, made if it does not exist; None: the cache. On the other machine,
        ``$TLGEN_STRUCTURES`` names it.
    progress
        True shows a bar; or a :class:`catalogs.progress.Progress`.

    Returns
    -------
    dict of str to pathlib.Path
        Structure, as the recipe names it -> its file.

    Raises
    ------
    InputError
        If structures do not exist or could not be fetched; it names all of them.
    """
    from tlgen.runs.fetch_structures import fetch_structures as fetch

    return fetch(recipe, None if to is None else Path(to), progress_of(progress))


def _with_angles(tilts: list[Tilt], angles: Sequence[float]) -> list[Tilt]:
    """Select tilts by their angles, including repeated ones, and sort them by angle."""
    known = {tilt.angle for tilt in tilts}
    for angle in angles:
        if angle not in known:
            near = min(known, key=lambda each: abs(each - angle))
            raise InputError(f"`angles={angle:g}`: the series has no such tilt; the nearest is {near:g}°")
    picked = [tilt for tilt in tilts if tilt.angle in angles or not angles]
    return sorted(picked, key=lambda tilt: tilt.angle)
