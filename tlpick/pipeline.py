"""One tomogram from file to particles, and a run over many of them.

A run's folder::

    TOMOGRAM/segmentation.zarr    OME-Zarr: image = target probability in 1/255, labels/classes = classes
    TOMOGRAM/particles.star       its picks
    TOMOGRAM/done.json            written last; a tomogram without it is picked again
    particles.star                all picks
    run.json                      the model's card, the tomograms, the settings
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs import particles
from catalogs.calibration import Expectation
from catalogs.console import DISTRIBUTION
from catalogs.errors import InputError
from catalogs.intensity import NORMALISATION, measure, normalise
from catalogs.model_file import ModelCard, fingerprint, read_card
from catalogs.schema import ClassInfo
from catalogs.seeds import digest
from catalogs.volumes import Volume, open_volume
from tlpick.files import DONE, PARTICLES, RUN, SEGMENTATION, write_json
from tlpick.localise import Options, localise
from tlpick.picks import above, as_table, particle_volumes
from tlpick.segment import Segmentation, load_network, segment
from tlpick.tiles import plan

#: Changes whenever the same model, tomogram and settings would give other picks.
PICKER_VERSION = 2

#: A voxel size may differ from the model's by this share; the network does not notice.
VOXEL_SIZE_TOLERANCE = 0.02

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Settings:
    """What a user may choose for a run.

    Attributes
    ----------
    tile
        A tile holds at most as many voxels as a cube with this edge.
    voxel_size
        Å; of the tomograms, whatever their headers say. None: believe the headers.
    rescale
        Resample tomograms of another voxel size than the model's; otherwise they are refused.
    localising
        How particles are found in the segmentation, and which of them count.
    """

    tile: int = 192
    voxel_size: float | None = None
    rescale: bool = False
    localising: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Picked:
    """What became of one tomogram; also what stands in its ``done.json``.

    Attributes
    ----------
    name, path
        Of the tomogram.
    job
        Hash of the model, the settings and the picker: what all tomograms of a run share.
    tomogram
        Hash of the tomogram's files: their names, sizes and dates.
    shape, voxel_size
        Of the tomogram, voxels (z, y, x) and Å.
    counts
        Class -> number of picks.
    tile, n_tiles, redundancy
        Voxels (z, y, x) of a tile, number of tiles, computed voxels over the voxels of the tomogram.
    seconds
        Stage -> duration.
    """

    name: str
    path: str
    job: str
    tomogram: str
    shape: Shape
    voxel_size: float
    counts: dict[str, int]
    tile: Shape
    n_tiles: int
    redundancy: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A tomogram that could not be picked: its path, the reason in one line, and where it happened.

    ``refused`` says that the tomogram, not the program, is at fault.
    """

    path: str
    error: str
    refused: bool
    details: str


def pick_tomogram(
    model: str,
    tomogram: str,
    folder: str,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picked:
    """Segment a tomogram, localise its particles and write both; what is already done is not repeated.

    Parameters
    ----------
    model
        Path of the model file.
    tomogram
        Path or URL of the volume.
    folder
        Of the run; the results go to a folder in it that is named as the tomogram.
    settings
        Of the run.
    progress
        Called with (tiles done, all tiles).

    Returns
    -------
    Picked

    Raises
    ------
    InputError
        If the model or the tomogram cannot be read or do not fit.
    """
    card = read_card(model)
    volume = open_volume(tomogram)
    voxel_size, rescale = _voxel_size(volume, tomogram, card, settings)
    job, identity = job_of(model, settings), _identity(tomogram)
    target = Path(folder) / volume.name
    done = read_done(target)
    if done is not None and (done.job, done.tomogram) == (job, identity):
        return done
    (target / DONE).unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)

    clock = _Clock()
    network = load_network(model)
    clock.lap("load model")
    values, grid = volume.read(), voxel_size
    if rescale:
        values, grid = resample(values, voxel_size, card.voxel_size), card.voxel_size
    try:
        values = normalise(values, measure(values))
    except InputError as error:
        raise InputError(f"{tomogram}: {error}") from error
    clock.lap("read")
    tiling = plan(_shape(values), settings.tile, card.halo, card.pooling)
    segmentation = segment(
        values, network, tiling, card.classes, card.thresholds, lambda n: progress(n, len(tiling))
    )
    clock.lap("segment")
    picks = localise(
        segmentation.labels,
        segmentation.score,
        card.classes,
        grid,
        settings.localising,
        volumes=particle_volumes(card),
    )
    clock.lap("localise")
    write_segmentation(target / SEGMENTATION, segmentation, grid, card.classes)
    table = as_table(volume.name, picks, card.classes, card.calibration)
    particles.write(
        table, target / PARTICLES, voxel_size=voxel_size, shape=volume.shape, classes=card.classes
    )
    clock.lap("write")

    picked = Picked(
        name=volume.name,
        path=_absolute(tomogram),
        job=job,
        tomogram=identity,
        shape=volume.shape,
        voxel_size=voxel_size,
        counts={info.name: len(found.centres) for info, found in zip(card.classes, picks, strict=True)},
        tile=tiling.tile,
        n_tiles=len(tiling),
        redundancy=round(tiling.redundancy, 3),
        seconds=clock.laps,
    )
    write_json(target / DONE, asdict(picked))
    return picked


def attempt(
    model: str,
    tomogram: str,
    folder: str,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Picked | Failed:
    """Do as :func:`pick_tomogram`, but return what went wrong: one bad tomogram stops no other."""
    try:
        return pick_tomogram(model, tomogram, folder, settings, progress)
    except Exception as error:
        refused = isinstance(error, InputError)
        text = str(error) if refused else f"{tomogram}: {type(error).__name__}: {error}"
        return Failed(tomogram, text, refused, traceback.format_exc())


def check_names(tomograms: Sequence[str]) -> None:
    """Refuse two tomograms whose results would go to the same folder.

    Raises
    ------
    InputError
        It names both.
    """
    seen: dict[str, str] = {}
    for path in tomograms:
        try:
            name = open_volume(path).name
        except InputError:
            continue  # it will be reported when it is its turn
        if name in seen:
            raise InputError(
                f"{seen[name]} and {path} are both named {name!r}, and so would be their results; "
                "rename one or pick them into two folders"
            )
        seen[name] = path


def collect(
    model: str,
    folder: str,
    settings: Settings,
    failed: Sequence[Failed],
    least: Mapping[str, Expectation] | None = None,
) -> tuple[list[Picked], dict[str, int]]:
    """Write the run's own files from what is finished in its folder.

    Tomograms that an earlier call with the same model and settings picked into the folder belong to
    the run as well; what another model left there does not.

    Parameters
    ----------
    model, folder, settings
        Of the run.
    failed
        Tomograms that could not be picked.
    least
        Class -> the score that its picks must reach to be in the run's list; those of the tomograms keep
        all, so that another threshold needs no picking.

    Returns
    -------
    list of Picked, dict
        The tomograms of the run, by name; and class -> number of picks in the run's list.
    """
    card, job, least = read_card(model), job_of(model, settings), least or {}
    found = (read_done(path.parent) for path in sorted(Path(folder).glob(f"*/{DONE}")))
    run = [picked for picked in found if picked is not None and picked.job == job]
    tables = [particles.read(Path(folder) / picked.name / PARTICLES) for picked in run]
    table = above(pd.concat(tables, ignore_index=True) if tables else particles.empty(), least)
    particles.write(
        table,
        Path(folder) / PARTICLES,
        voxel_size={picked.name: picked.voxel_size for picked in run},
        shape={picked.name: picked.shape for picked in run},
        classes=card.classes,
    )
    write_json(
        Path(folder) / RUN,
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {"path": _absolute(model), "fingerprint": fingerprint(model), **card.model_dump()},
            "radii": {info.name: info.radius for info in card.classes},
            "settings": asdict(settings),
            "thresholds": {
                name: {**point.model_dump(), "interval": point.interval} for name, point in least.items()
            },
            "software": {name: version(name) for name in (DISTRIBUTION, "keras", "numpy", "scipy")},
            "tomograms": [asdict(picked) for picked in run],
            "failed": [{"path": failure.path, "error": failure.error} for failure in failed],
        },
    )
    return run, {info.name: int((table["class_name"] == info.name).sum()) for info in card.classes}


def job_of(model: str, settings: Settings) -> str:
    """Hash what decides over the picks besides the tomogram; the tile size does not."""
    chosen = {key: value for key, value in asdict(settings).items() if key != "tile"}
    return digest({"model": fingerprint(model), "settings": chosen, "picker": PICKER_VERSION})


def read_done(target: Path) -> Picked | None:
    """Read what a finished tomogram's folder says; None if it is not finished."""
    try:
        stored = json.loads((target / DONE).read_text())
        stored["shape"], stored["tile"] = tuple(stored["shape"]), tuple(stored["tile"])
        return Picked(**stored)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def resample(values: NDArray[np.float32], voxel_size: float, wanted: float) -> NDArray[np.float32]:
    """Bring a volume to another voxel size; voxel 0 keeps its centre, so positions in Å stay the same.

    Cubic splines. Before voxels grow, a Gaussian takes away what they could not hold: half a voxel of
    blur before becomes half a voxel of blur after.

    Parameters
    ----------
    values
        (z, y, x).
    voxel_size, wanted
        Å.

    Returns
    -------
    ndarray of float32
        (z, y, x), as many voxels as have their centres inside.
    """
    from scipy.ndimage import affine_transform, gaussian_filter

    factor = wanted / voxel_size
    shape = tuple(math.floor((n - 1) / factor + 1e-6) + 1 for n in values.shape)
    if factor > 1:
        values = gaussian_filter(values, 0.5 * math.sqrt(factor**2 - 1))
    out: NDArray[np.float32] = affine_transform(
        values, np.full(3, factor), output_shape=shape, output=np.float32, order=3, mode="mirror"
    )
    return out


def write_segmentation(
    path: Path, segmentation: Segmentation, voxel_size: float, classes: Sequence[ClassInfo]
) -> None:
    """Write a segmentation as an OME-Zarr 0.5 image with a label image."""
    import zarr
    from zarr.codecs import ZstdCodec

    from catalogs import ome

    codec = ZstdCodec(level=3)
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs["ome"] = ome.describe("target probability, in 1/255", voxel_size)
    ome.write_volume(root, "0", segmentation.score, codec)
    root.create_group("labels").attrs["ome"] = {"version": "0.5", "labels": ["classes"]}
    labels = root.create_group("labels/classes")
    named: list[Any] = [{"label-value": info.label, "class": info.name} for info in classes]
    labels.attrs["ome"] = {
        **ome.describe("classes", voxel_size),
        "image-label": {"source": {"image": "../../"}, "properties": named},
    }
    ome.write_volume(labels, "0", segmentation.labels, codec)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 3)
        self._last = now


def _voxel_size(volume: Volume, path: str, card: ModelCard, settings: Settings) -> tuple[float, bool]:
    """Tell the tomogram's voxel size in Å, and whether it must be brought to the model's."""
    if card.normalisation != NORMALISATION:
        raise InputError(
            f"the model {card.name!r} wants grey values normalised by {card.normalisation!r}, "
            f"this program does {NORMALISATION!r}; use the version that trained it"
        )
    size = settings.voxel_size or volume.voxel_size
    if size is None:
        raise InputError(f"{path} does not say its voxel size; give it with --voxel-size, in Å")
    fits = abs(size / card.voxel_size - 1) <= VOXEL_SIZE_TOLERANCE
    if not fits and not settings.rescale:
        raise InputError(
            f"{path} has voxels of {size:.5g} Å, the model {card.name!r} was trained at "
            f"{card.voxel_size:.5g} Å; add --rescale to resample the tomogram"
        )
    return size, not fits


def _identity(tomogram: str) -> str:
    """Hash the names, sizes and dates of a tomogram's files, without reading them."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(tomogram)
    files = fs.find(root, detail=True)
    dated = ("mtime", "LastModified", "last_modified", "updated", "ETag", "created")
    return digest(
        sorted(
            [
                name.removeprefix(root),
                info["size"],
                next((str(info[key]) for key in dated if key in info), ""),
            ]
            for name, info in files.items()
        )
    )


def _shape(values: NDArray[Any]) -> Shape:
    z, y, x = values.shape
    return (z, y, x)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
