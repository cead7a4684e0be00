"""Picks one tomogram, from the file to the particles.

Its folder in that of the run::

    particles.all.star   all picks, with the expected share of wrong ones down to each score
    decoys.star          the picks in its decoys
    particles.star       the picks that are kept
    segmentation.zarr    on request, OME-Zarr: image = target probability in 1/255, labels/classes = classes
    segmentation.mrc     or the classes as MRC, with probability.mrc
    done.json            written last; a tomogram without it is picked again
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from catalogs import particles
from catalogs.beads import count
from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.former_names import accepts_former, as_stored
from catalogs.model_archive import ModelRefused
from catalogs.particle_formats.star import refuse_name
from catalogs.seeds import digest
from catalogs.volumes.once import open_once
from tlpick.batch.files import (
    ALL,
    DECOYS,
    DONE,
    PARTICLES,
    RESERVED,
    absolute,
    read_json,
    work_folder,
    write_json,
)
from tlpick.batch.identity import checksum, stamp
from tlpick.batch.save_segmentation import SegmentationFormat, save_segmentation
from tlpick.evaluation.fit_check import check_fit
from tlpick.evaluation.pick_selection import Cut, decide
from tlpick.evaluation.wrong_share import add_wrong_share
from tlpick.network.geometry import Triple
from tlpick.network.localisation.localise import Options
from tlpick.network.memory import resident
from tlpick.network.model import IN_MEMORY, Model, load_model
from tlpick.network.tomograms import decoy as decoys
from tlpick.network.tomograms.inputs import Tomogram
from tlpick.network.tomograms.intake import Prepared, Preprocessing, prepare
from tlpick.network.tomograms.intake import check as check_tomogram
from tlpick.network.tomograms.masks import mask_path
from tlpick.network.tomograms.scratch import Scratch

#: Increased whenever the same model, tomogram and settings would give other picks.
PICKER_VERSION = 5


@accepts_former(terms="preprocessing", keep="keep_segmentation")
@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes
    ----------
    max_memory
        Bytes that a process may use.
    tile
        Largest cross-section of a column, as the edge of a square with as many voxels; None: as large as the
        memory allows.
    preprocessing
        How tomograms are preprocessed for the model.
    tta
        Number of orientations to average over: 1, 4 or 8.
    keep_segmentation
        ``zarr`` or ``mrc``: keep the segmentation in this format.
    localising
        How particles are found in the segmentation, and which of them count.
    decoys
        Number of decoys to pick as well; None: as many as are worth the time.
    """

    max_memory: float = 4e9
    tile: int | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    tta: int = 1
    keep_segmentation: SegmentationFormat | None = None
    localising: Options = field(default_factory=Options)
    decoys: int | None = None


@dataclass(frozen=True)
class Picked:
    """Result for one tomogram, as stored in its ``done.json``.

    Attributes
    ----------
    name, path
        Name and path of the tomogram.
    mask
        Path of its mask; empty if there is none.
    job
        Hash of the model, the settings and the picker, common to all tomograms of a run.
    content, stamp
        Hashes of the contents of the tomogram and its mask, and of their entries in the storage.
    shape, voxel_size
        Shape (voxels, z, y, x) and voxel size (Å) of the tomogram.
    grid
        Voxel size of the network's input, Å.
    counts
        Class -> number of picks.
    tile, n_tiles, planes, redundancy
        Voxels (z, y, x) of a column, number of columns, planes per step, and ratio of computed voxels to
        voxels of the tomogram.
    seconds, cpu_seconds
        Stage -> duration, and CPU time of all threads.
    ice
        Position of the ice, in words; empty if no face was found or searched for.
    beads
        Number of bodies that are denser than protein.
    decoys
        Number of decoys that were picked.
    stands_out
        Class -> whether its picks are better than those in the decoys; empty without decoys.
    hands
        Class -> how clearly its picks look like the particle and not like its mirror image; see
        :class:`tlpick.evaluation.wrong_share.Judgement`.
    differs
        What lies outside of what the model learned from, in words; None if the model's card does not say.
    unlike
        Whether the tomogram is so unlike them that no precision is promised.
    """

    name: str
    path: str
    mask: str
    job: str
    content: str
    stamp: str
    shape: Triple
    voxel_size: float
    grid: float
    counts: dict[str, int]
    tile: Triple
    n_tiles: int
    planes: int
    redundancy: float
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    ice: str = ""
    beads: int = 0
    decoys: int = 0
    stands_out: dict[str, bool] = field(default_factory=dict)
    hands: dict[str, float] = field(default_factory=dict)
    differs: list[str] | None = None
    unlike: bool = False


@dataclass(frozen=True)
class Failed:
    """A tomogram that could not be picked: its path, the reason in one line, and the traceback.

    ``refused``: the tomogram is the cause, not the program; ``model``: the model is the cause.
    """

    path: str
    error: str
    refused: bool
    details: str
    model: bool = False


@dataclass(frozen=True)
class TomogramResult:
    """Result of one attempt; ``fresh`` if the tomogram was not picked before."""

    result: Picked | Failed
    fresh: bool = True


def pick_tomogram(
    model: str,
    tomogram: Tomogram,
    folder: str,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TomogramResult:
    """Segment a tomogram, localise its particles and write both, unless this has been done before.

    Parameters
    ----------
    model
        Path of the model file.
    tomogram
        The tomogram; its name becomes the name of its folder in the folder of the run.
    folder
        Folder of the run.
    settings
        Settings of the run.
    progress
        Called with (planes done, all planes).

    Returns
    -------
    TomogramResult

    Raises
    ------
    InputError
        If the model or the tomogram cannot be read or do not fit.
    """
    loaded = load_model(model)
    card, job = loaded.card, job_of(model, settings)
    # first, because it has better messages for missing files
    volume = open_once(tomogram.path, voxel_size=settings.preprocessing.voxel_size)
    name = tomogram.name or volume.name
    refuse_name(name)  # the name in the list, which would be written last
    target = Path(folder) / file_name(name, RESERVED)
    mask = "" if settings.preprocessing.mask is None else mask_path(settings.preprocessing.mask, name)
    sources = [tomogram.path, mask] if mask else [tomogram.path]
    check_tomogram(tomogram, card, settings.preprocessing, volume)
    seen = _stated(tomogram, [stamp(source) for source in sources])
    done = read_done(target)
    if done is not None and (done.job, done.stamp) == (job, seen):
        return TomogramResult(done, fresh=False)
    content = _stated(tomogram, [checksum(source) for source in sources])
    if done is not None and (done.job, done.content) == (
        job,
        content,
    ):  # copied or touched, but with the same content
        same = Picked(**{**asdict(done), "stamp": seen, "path": absolute(tomogram.path)})
        write_json(target / DONE, asdict(same))
        return TomogramResult(same, fresh=False)
    (target / DONE).unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)

    clock = _Clock()
    _ = loaded.network  # loading is a separate stage
    clock.lap("load model")
    with (
        work_folder(target) as work,
        Scratch(work, IN_MEMORY * settings.max_memory) as scratch,
        Scratch(work, 0.0) as shelf,
    ):
        left = settings.max_memory - resident()
        prepared = prepare(tomogram, card, settings.preprocessing, scratch, left, volume)
        clock.lap("read")
        measured = prepared.values.size if prepared.sample is None else int(prepared.sample.sum())
        n_decoys = decoys.how_many(measured) if settings.decoys is None else settings.decoys
        part = _Part(progress, 1 + n_decoys)
        segmentation = loaded.segment_prepared(
            prepared,
            max_memory=settings.max_memory,
            tile=settings.tile,
            tta=settings.tta,
            scratch=scratch,
            progress=part.show,
        )
        clock.lap("segment")
        scratch.release()
        table = loaded.localise(
            prepared,
            segmentation,
            settings.localising,
            name,
            beads=settings.preprocessing.beads,
            max_memory=settings.max_memory,
        )
        clock.lap("localise")
        scratch.release()
        save_segmentation(
            settings.keep_segmentation,
            work,
            target,
            segmentation,
            prepared.grid,
            prepared.offset,
            card.classes,
        )
        clock.lap("write")
        tiling = segmentation.tiling
        chance = particles.empty()
        if n_decoys:
            noise = decoys.learn(prepared.values, prepared.grid, prepared.sample)
            # decoys take the place of the tomogram and its segmentation in memory
            del segmentation
            prepared = replace(prepared, values=shelf.copied(prepared.values, scratch))
            chance = _in_decoys(name, loaded, noise, prepared, settings, n_decoys, work, content, part)
            clock.lap("decoys")
        differences = check_fit(prepared, card)
        judgement = add_wrong_share(table, chance, card, n_decoys, prepared)
        clock.lap("judge")
        names = [info.name for info in card.classes if info.is_particle]
        kept = table[decide(table, names, judgement.stands_out, Cut()).rows]
        for file, rows in ((ALL, table), (PARTICLES, kept), *([(DECOYS, chance)] if n_decoys else [])):
            particles.write(
                rows.reset_index(drop=True),
                target / file,
                voxel_size=prepared.voxel_size,
                shape=prepared.shape,
                classes=card.classes,
            )
        if not n_decoys:
            (target / DECOYS).unlink(missing_ok=True)

    picked = Picked(
        name=name,
        path=absolute(tomogram.path),
        mask=absolute(mask) if mask else "",
        job=job,
        content=content,
        stamp=seen,
        shape=prepared.shape,
        voxel_size=prepared.voxel_size,
        grid=prepared.grid,
        counts={info.name: int((table["class_name"] == info.name).sum()) for info in card.classes},
        tile=tiling.tile,
        n_tiles=len(tiling),
        planes=tiling.planes,
        redundancy=round(tiling.redundancy, 3),
        seconds=clock.laps,
        cpu_seconds=clock.cpu,
        ice="" if prepared.slab is None else prepared.slab.words(),
        beads=count(prepared.beads),
        decoys=n_decoys,
        stands_out=judgement.stands_out,
        hands=judgement.hands,
        differs=None if differences is None else [each.words for each in differences],
        unlike=any(each.strong for each in differences or ()),
    )
    write_json(target / DONE, asdict(picked))
    return TomogramResult(picked)


def attempt(
    model: str,
    tomogram: Tomogram,
    folder: str,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> TomogramResult:
    """Do as :func:`pick_tomogram`, but return errors, so that one bad tomogram does not stop others."""
    try:
        return pick_tomogram(model, tomogram, folder, settings, progress)
    except Exception as error:
        refused = isinstance(error, InputError)
        text = str(error) if refused else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"the disk of {folder} is full; free some space and run the same command again"
        model_is = isinstance(error, ModelRefused)
        text = text if model_is or tomogram.path in text else f"{tomogram.path}: {text}"
        told = " ".join(text.split())
        return TomogramResult(Failed(tomogram.path, told, refused, traceback.format_exc(), model_is))


def job_of(model: str, settings: Settings) -> str:
    """Hash everything that determines the results besides the tomogram; memory limits do not."""
    chosen = {key: value for key, value in as_stored(settings).items() if key not in ("max_memory", "tile")}
    chosen["terms"].pop("mask")  # the mask's content counts, with the tomogram's
    chosen["terms"].pop("unusual")  # a permission, which changes nothing
    return digest({"model": load_model(model).fingerprint, "settings": chosen, "picker": PICKER_VERSION})


def read_done(target: Path) -> Picked | None:
    """Read the result in a finished tomogram's folder; None if it is not finished."""
    try:
        stored = read_json(target / DONE)
        stored["shape"], stored["tile"] = tuple(stored["shape"]), tuple(stored["tile"])
        return Picked(**stored)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _stated(tomogram: Tomogram, hashes: list[str]) -> str:
    """Hash the files and the voxel size in the list that names them."""
    return digest([*hashes, tomogram.voxel_size])


def _in_decoys(
    name: str,
    loaded: Model,
    noise: decoys.Model,
    prepared: Prepared,
    settings: Settings,
    n_decoys: int,
    work: Path,
    content: str,
    part: _Part,
) -> pd.DataFrame:
    """Pick in decoys of a tomogram as in the tomogram itself; returns the picks of all of them."""
    tables = []
    for number in range(n_decoys):
        part.next()
        with Scratch(work, IN_MEMORY * settings.max_memory) as scratch:
            left = settings.max_memory - resident() - loaded.aside
            with Scratch(work, 0.0) as aside:
                values = noise.make(number, scratch, seed=content, memory=left, aside=aside)
            segmentation = loaded.segment_prepared(
                replace(prepared, values=values),
                max_memory=settings.max_memory,
                tile=settings.tile,
                tta=settings.tta,
                scratch=scratch,
                progress=part.show,
            )
            scratch.release()
            table = loaded.localise(
                prepared,
                segmentation,
                settings.localising,
                name,
                beads=settings.preprocessing.beads,
                max_memory=settings.max_memory,
            )
            tables.append(table.assign(instance=number + 1))
    return pd.concat(tables, ignore_index=True)


class _Part:
    """Progress of a few sweeps, one after the other."""

    def __init__(self, tell: Callable[[int, int], None], n: int) -> None:
        self._tell, self._n, self._done = tell, n, 0

    def next(self) -> None:
        self._done += 1

    def show(self, done: int, total: int) -> None:
        self._tell(self._done * total + done, self._n * total)


class _Clock:
    """Wall time and CPU time of the stages."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._last, self._busy = time.perf_counter(), time.process_time()

    def lap(self, stage: str) -> None:
        now, busy = time.perf_counter(), time.process_time()
        self.laps[stage], self.cpu[stage] = round(now - self._last, 3), round(busy - self._busy, 3)
        self._last, self._busy = now, busy
