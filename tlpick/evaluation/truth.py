"""Reads the truth: from a corpus or a sample of it, a particle list, or a label volume."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs import particles
from catalogs.console import nearest
from catalogs.corpus.catalog import Catalog, read_particles_of, sample_record_of
from catalogs.corpus.sample_names import names_for_people
from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.particles import DISTRACTOR
from catalogs.schema import ClassInfo
from catalogs.storage.store import open_store
from catalogs.volumes import Volume, open_volume
from tlpick.network.tomograms.masks import Region

if TYPE_CHECKING:
    from catalogs.particle_formats.base import Context

Ints = NDArray[np.int64]

_VOLUMES = (".mrc", ".rec", ".map", ".st", ".h5", ".hdf", ".tif", ".tiff")
_PERHAPS_VOLUMES = (".em", ".zip", ".ozx")
_MASKS = (*_VOLUMES, ".zarr", ".ome.zarr", ".mrc.gz", ".em", ".zarr.zip")


@dataclass(frozen=True, eq=False)
class Truth:
    """The true particles.

    Attributes
    ----------
    source
        Path that the user gave.
    table
        Particle table without distractors.
    tomograms
        Names of its tomograms.
    radii
        Class -> radius in Å, if known.
    titles
        Tomogram -> a name for people, if it has one.
    volumes
        Tomogram -> path of its volume, if known.
    instances
        Tomogram -> function that reads its instance volume, if there is one.
    notes
        Notes for the user, in sentences.
    """

    source: str
    table: pd.DataFrame
    tomograms: list[str]
    radii: dict[str, float]
    titles: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    instances: dict[str, Callable[[], NDArray[Any]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_truth(
    path: str, run: Mapping[str, Any], names: Sequence[str], join: Mapping[str, str] | None = None
) -> Truth:
    """Read the truth, with its tomograms named as in the picks.

    Parameters
    ----------
    path
        Path of a corpus, a sample's Zarr group, a particle list of any known format, or a volume with the
        labels of the model's classes.
    run
        Content of the picks' ``run.json``: sizes of the tomograms and classes, if the truth lacks them.
    names
        Names of the picked tomograms.
    join
        Name of a picked tomogram -> its name in the truth, if these differ. A single tomogram and the truth
        of a single one are always joined.

    Raises
    ------
    InputError
        If it is none of these, or a tomogram in ``join`` does not exist.
    """
    truth = _read(path, run, names, join or {})
    return _joined(truth, names, join or {})


def _read(path: str, run: Mapping[str, Any], names: Sequence[str], join: Mapping[str, str]) -> Truth:
    if "://" not in path and not Path(path).exists():
        raise InputError(f"{path} does not exist; give a corpus, a sample, a particle list or a label volume")
    plain = path.lower().removesuffix(".gz").removesuffix(".bz2")
    # particle lists may be .em files too, which are single images as volumes
    if plain.endswith(_VOLUMES) or (plain.endswith(_PERHAPS_VOLUMES) and _is_volume(path)):
        return _from_labels(path, run, names, join)
    if "://" not in path and Path(path).is_file():
        return _from_list(path, run, join)
    if Catalog.exists(path):
        return _from_corpus(path, names, join)
    try:
        return _from_sample(path, names)
    except InputError as no_sample:
        if _is_volume(path):
            return _from_labels(path, run, names, join)
        try:
            return _from_list(path, run, join)
        except InputError:
            raise InputError(
                f"{path} is not a sample of a corpus, nor a corpus, a particle list or a label volume; give "
                "one of these as the truth"
            ) from no_sample


def hits(truth: Truth) -> Callable[[pd.DataFrame, pd.DataFrame], Ints] | None:
    """Make the function that finds the particle whose volume contains a pick, as in SHREC'21.

    A volume of instances is needed, which samples of a corpus have; it is grown by one voxel to each side.
    None where there is none for every tomogram.
    """
    if not truth.instances or set(truth.instances) != set(truth.tomograms):
        return None

    @functools.lru_cache(maxsize=1)
    def grown(name: str) -> NDArray[Any]:
        from scipy.ndimage import generate_binary_structure, grey_dilation

        return np.asarray(grey_dilation(truth.instances[name](), footprint=generate_binary_structure(3, 1)))

    sizes: dict[str, float | None] = {
        name: open_volume(truth.volumes[name]).voxel_size for name in truth.volumes
    }

    def inside(picks: pd.DataFrame, there: pd.DataFrame) -> Ints:
        rows = picks if len(picks) else there
        if not len(rows):
            return np.empty(0, np.int64)
        name = str(rows["tomogram"].iloc[0])
        volume = grown(name)
        index = np.rint(picks[["z", "y", "x"]].to_numpy(np.float64) / (sizes[name] or 1.0)).astype(np.int64)
        index = np.clip(index, 0, np.array(volume.shape) - 1)
        row_of = {int(instance): row for row, instance in enumerate(there["instance"]) if instance > 0}
        return np.array([row_of.get(int(k), -1) for k in volume[tuple(index.T)]], np.int64)

    return inside


def reviewed_region(path: str, names: Sequence[str]) -> Callable[[pd.DataFrame], NDArray[np.bool_]]:
    """Make the function that finds the rows of a particle table in the reviewed region.

    Parameters
    ----------
    path
        Path of a volume that is not 0 in the reviewed region, for a single tomogram; or of a folder with one
        volume for each, named as the tomogram.
    names
        Names of the tomograms.

    Raises
    ------
    InputError
        If a tomogram has no mask, or a mask does not state its voxel size.
    """
    masks: dict[str, Volume] = {}
    for name in names:
        file = path
        if "://" not in path and Path(path).is_dir() and not _is_volume(path):
            found = [Path(path) / f"{file_name(name)}{end}" for end in _MASKS]
            there = [each for each in found if each.exists()]
            if not there:
                raise InputError(f"the folder {path} has no mask for the tomogram {name}: no {found[0].name}")
            file = str(there[0])
        elif len(names) > 1:
            raise InputError(
                f"{path} is one mask for {len(names)} tomograms; give a folder with a mask for each"
            )
        masks[name] = open_volume(file)
        if masks[name].voxel_size is None:
            raise InputError(f"the mask {file} does not state its voxel size; write it into its header")

    @functools.cache
    def read(name: str) -> NDArray[np.bool_]:
        return masks[name].read() != 0

    def inside(table: pd.DataFrame) -> NDArray[np.bool_]:
        out = np.zeros(len(table), bool)
        for name in names:
            rows = np.flatnonzero(table["tomogram"] == name)
            mask = read(name)
            xyz = table[["z", "y", "x"]].to_numpy(np.float64)[rows]
            index = np.rint(xyz / masks[name].voxel_size).astype(np.int64)
            within = ((index >= 0) & (index < mask.shape)).all(axis=1)
            out[rows[within]] = mask[tuple(index[within].T)]
        return out

    return inside


def picked_region(run: Mapping[str, Any]) -> Callable[[pd.DataFrame], NDArray[np.bool_]] | None:
    """Make the function that finds the rows of a particle table in the region of a run.

    Parameters
    ----------
    run
        What its ``run.json`` says: the mask of each tomogram, and the planes that it was cropped to.

    Returns
    -------
    callable or None
        None if the run used the whole of every tomogram.

    Raises
    ------
    InputError
        If a mask no longer exists.
    """
    crop = run.get("settings", {}).get("terms", {}).get("crop")
    tomograms = {str(each["name"]): each for each in run.get("tomograms", ())}
    regions = {
        name: Region(each["mask"], tuple(each["shape"]), float(each["voxel_size"]))
        for name, each in tomograms.items()
        if each.get("mask")
    }
    if crop is None and not regions:
        return None

    def inside(table: pd.DataFrame) -> NDArray[np.bool_]:
        out = np.ones(len(table), bool)
        for name, each in tomograms.items():
            rows = np.flatnonzero(table["tomogram"] == name)
            xyz = table[["x", "y", "z"]].to_numpy(np.float64)[rows]
            if name in regions:
                out[rows] &= regions[name].holds(xyz)
            if crop is not None:
                plane = np.rint(xyz[:, 2] / float(each["voxel_size"]))
                out[rows] &= (plane >= crop[0]) & (plane < crop[1])
        return out

    return inside


def stated_radii(file: Path) -> dict[str, float]:
    """Read the radii that this program writes into STAR files; other files have none."""
    if file.suffix.lower() != ".star":
        return {}
    from catalogs.particle_formats.relion import read_classes

    return {info.name: info.radius for info in read_classes(file)}


def unique(names: pd.Series[Any]) -> list[str]:
    """List the distinct names in order of appearance."""
    return list(dict.fromkeys(str(name) for name in names))


def _is_volume(path: str) -> bool:
    try:
        open_volume(path)
    except InputError:
        return False
    return True


def _from_list(path: str, run: Mapping[str, Any], join: Mapping[str, str]) -> Truth:
    context = _context(run, join)
    try:
        return _of_particles(path, particles.read(path, context=context))
    except InputError:
        if context.tomogram is not None:
            # a list of other tomograms: which, is said where names are compared
            with contextlib.suppress(InputError):
                return _of_particles(path, particles.read(path, context=replace(context, tomogram=None)))
        raise


def _of_particles(path: str, table: pd.DataFrame) -> Truth:
    table = table[(table["class_name"] != DISTRACTOR) & (table["label"] != 0)]
    return Truth(path, table, unique(table["tomogram"]), stated_radii(Path(path)))


def _context(run: Mapping[str, Any], join: Mapping[str, str]) -> Context:
    """Make the context of a list from the run: sizes, the name of a single tomogram, classes."""
    from catalogs.particle_formats.base import Context

    tomograms = run.get("tomograms", [])
    if not tomograms:
        return Context()
    names = [str(each["name"]) for each in tomograms]
    sizes = [float(each["voxel_size"]) for each in tomograms]
    return Context(
        voxel_size=sizes[0] if len(names) == 1 else dict(zip(names, sizes, strict=True)),
        shape=(
            tuple(tomograms[0]["shape"])
            if len(names) == 1
            else {name: tuple(each["shape"]) for name, each in zip(names, tomograms, strict=True)}
        ),
        tomogram=join.get(names[0], names[0]) if len(names) == 1 else None,
        classes=tuple(_classes(run)),
    )


def _classes(run: Mapping[str, Any]) -> list[ClassInfo]:
    known = set(ClassInfo.model_fields)
    return [
        ClassInfo(**{key: value for key, value in info.items() if key in known})
        for info in run["model"]["classes"]
    ]


def _from_sample(path: str, names: Sequence[str]) -> Truth:
    table = read_particles_of(path)
    name = open_volume(path).name
    title = next(iter(table["tomogram"]), name)
    radii: dict[str, float] = {}
    read: Callable[[], NDArray[Any]] | None = None
    if (record := sample_record_of(path)) is not None:
        corpus = Catalog.open(open_store(path).url.rpartition("/samples/")[0])
        radii = {info.name: info.radius for info in corpus.classes}
        title = names_for_people(corpus.records())[record.sample_id]
        read = functools.partial(_instances, corpus, record.sample_id)
    # picks of it are filed under its name, older ones under its id
    called = name if name in names else str(title)
    table = table[table["label"] != 0].assign(tomogram=called)
    return Truth(
        path, table, [called], radii, {called: str(title)}, {called: path}, {called: read} if read else {}
    )


def _from_corpus(path: str, names: Sequence[str], join: Mapping[str, str]) -> Truth:
    """Read the samples that were picked, under whatever they are called: their ids, or their names."""
    corpus = Catalog.open(path)
    records = corpus.records()
    called = {name: sample_id for sample_id, name in names_for_people(records).items()}
    called |= {record.sample_id: record.sample_id for record in records}
    wanted = {name: called[join.get(name, name)] for name in names if join.get(name, name) in called}
    if not wanted and len(records) == 1:
        wanted = {records[0].name: records[0].sample_id}
    titles = names_for_people(records)
    tables = [corpus.particles(own).assign(tomogram=name) for name, own in wanted.items()]
    table = pd.concat(tables, ignore_index=True) if tables else particles.empty()
    return Truth(
        source=path,
        table=table[table["label"] != 0],
        tomograms=list(wanted) or sorted(titles.values()),
        radii={info.name: info.radius for info in corpus.classes},
        titles={name: titles[own] for name, own in wanted.items()},
        volumes={name: corpus.sample_url(own) for name, own in wanted.items()},
        instances={name: functools.partial(_instances, corpus, own) for name, own in wanted.items()},
    )


def _joined(truth: Truth, names: Sequence[str], join: Mapping[str, str]) -> Truth:
    """Name the tomograms of the truth as in the picks."""
    called = {their: ours for ours, their in join.items()}
    for ours, their in join.items():
        if ours not in names:
            raise InputError(f"`join={ours}={their}`: no tomogram {ours} was picked{nearest(ours, names)}")
        if their not in truth.tomograms and ours not in truth.tomograms:
            known = nearest(their, truth.tomograms)
            raise InputError(f"`join={ours}={their}`: {truth.source} has no tomogram {their}{known}")
    notes: tuple[str, ...] = ()
    if len(names) == len(truth.tomograms) == 1 and not join:
        [theirs], [ours] = truth.tomograms, names
        called = {theirs: ours}
        notes = (f"the truth of {theirs} is used as that of {ours}: each is the only one",)
    if not any(their != ours for their, ours in called.items()):
        return truth
    return replace(
        truth,
        table=truth.table.assign(tomogram=truth.table["tomogram"].astype(str).replace(called)),
        tomograms=[called.get(name, name) for name in truth.tomograms],
        titles={called.get(name, name): title for name, title in truth.titles.items()},
        volumes={called.get(name, name): place for name, place in truth.volumes.items()},
        instances={called.get(name, name): read for name, read in truth.instances.items()},
        notes=notes,
    )


def _instances(corpus: Catalog, sample_id: str) -> NDArray[Any]:
    return np.asarray(corpus.arrays(sample_id)["instances"][:])


def _from_labels(path: str, run: Mapping[str, Any], names: Sequence[str], join: Mapping[str, str]) -> Truth:
    """Find the particles in a label volume: connected components, with touching ones split."""
    from tlpick.network.localisation.localise import Options, localise
    from tlpick.network.picks import as_table

    if not run:
        raise InputError(
            f"{path} holds labels, whose classes are only in the folder of a run; score the folder that "
            "tlpick run wrote"
        )
    volume = open_volume(path)
    called = {their: ours for ours, their in join.items()}
    name = called.get(volume.name, volume.name)
    name = name if name in names else names[0] if len(names) == 1 else ""
    if not name:
        raise InputError(
            f"the label volume {path} is named like none of the {len(names)} tomograms that were picked; "
            f"name it as its tomogram, or say which it is by `join=TOMOGRAM={volume.name}`"
        )
    tomogram = next(each for each in run["tomograms"] if each["name"] == name)
    size = volume.voxel_size or float(tomogram["voxel_size"])
    values = volume.read()
    classes = _classes(run)
    strange = set(np.unique(values).tolist()) - {0.0, *(float(info.label) for info in classes)}
    if strange:
        known = ", ".join(f"{info.label} {info.name}" for info in classes)
        raise InputError(
            f"{path} has the value {min(strange):g}, no label of the model ({known}; 0 is background)"
        )
    labels = values.astype(np.uint8)
    picks = localise(labels, np.where(labels, 255, 0).astype(np.uint8), classes, size, Options("components"))
    table = as_table(name, picks, classes).assign(score=math.nan)
    return Truth(path, table, [name], {info.name: info.radius for info in classes})
