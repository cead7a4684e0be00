"""Finds the tomograms that a user names: files, globs, lists, tomograms.star, copick, corpora, URLs."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.particle_formats.star import read_blocks

#: Suffixes of text files with one tomogram per line.
LISTS = (".txt", ".lst", ".list")
_CORPUS, _RUNS = "corpus.json", "ExperimentRuns"
#: Files that mark a Zarr group or array, and suffixes of volumes in a folder.
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_VOLUMES = (".mrc", ".rec", ".zarr", ".hdf", ".tif", ".mrc.gz", ".map", ".h5", ".hdf5", ".tiff")
_SAMPLES = "samples"
_NAME = "rlnTomoName"
#: RELION 5's columns for reconstructed tomograms, by the type that a user asks for.
_COLUMNS = {"": "rlnTomoReconstructedTomogram", "denoised": "rlnTomoReconstructedTomogramDenoised"}


@dataclass(frozen=True)
class Tomogram:
    """A tomogram to be picked.

    Attributes
    ----------
    path
        Path or URL of the volume.
    name
        Name of its results; empty: the name of the volume.
    voxel_size
        Å, if a list states it; None: that of the volume.
    """

    path: str
    name: str = ""
    voxel_size: float | None = None


@dataclass(frozen=True)
class Selection:
    """What to take from a source with several tomograms.

    Attributes
    ----------
    kind
        Type of tomogram: its name in a copick project, or ``denoised`` for a tomograms.star.
    where
        Condition on the samples of a corpus.
    voxel_size
        Voxel size of the model, Å; from several resolutions in a copick project, the nearest is taken.
    """

    kind: str = ""
    where: str | None = None
    voxel_size: float = 10.0


def paths(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """List one path or several."""
    return [os.fspath(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)]


def expand(
    arguments: Sequence[str], selection: Selection
) -> tuple[list[Tomogram], list[tuple[str, InputError]]]:
    """List the tomograms that arguments name.

    Parameters
    ----------
    arguments
        Each is a volume (path or fsspec URL), a folder of volumes, a glob, a text file with one of these per
        line (.txt, .lst), a ``tomograms.star`` of RELION 5, a copick project (its folder or its
        configuration, .json), or a corpus.
    selection
        What to take from a source with several.

    Returns
    -------
    tuple
        The tomograms in order, each once; and the arguments without tomograms, with the reason.
    """
    found: dict[str, Tomogram] = {}
    wrong: list[tuple[str, InputError]] = []
    for argument in arguments:
        try:
            for tomogram in _of(argument, selection):
                found.setdefault(tomogram.path, tomogram)
        except InputError as error:
            wrong.append((argument, error))
    return list(found.values()), wrong


def _of(argument: str, selection: Selection, nested: bool = False) -> Iterator[Tomogram]:
    text = argument.rstrip("/") or argument
    suffix = Path(text).suffix.lower()
    local = "://" not in text
    if any(sign in text for sign in "*?[") and not (local and Path(text).exists()):
        matches = _matches(text)
        if not matches:
            raise InputError(f"nothing matches {argument}; check the pattern, and quote it for the shell")
        for match in matches:
            yield from _of(match, selection, nested)
    elif suffix == ".star":
        yield from _of_star(text, selection)
    elif suffix in LISTS and not nested:
        yield from _of_list(Path(text), selection)
    elif suffix == ".json" and local:
        for root in _copick_roots(Path(text)):
            yield from _of_copick(root, selection)
    elif not suffix and _holds(text, _CORPUS):
        yield from _of_corpus(text, selection)
    elif not suffix and _holds(text, _RUNS):
        yield from _of_copick(text, selection)
    elif local and Path(text).is_dir() and not any((Path(text) / name).exists() for name in _ZARR):
        yield from _of_folder(Path(text))
    elif f"/{_SAMPLES}/" in text and suffix == ".zarr":
        yield _of_sample(text)
    else:
        yield Tomogram(text)


def _matches(pattern: str) -> list[str]:
    if "://" not in pattern:
        return sorted(glob.glob(pattern, recursive=True))
    fs, path = _filesystem(pattern)
    return sorted(fs.unstrip_protocol(name) for name in fs.glob(path))


def _of_list(file: Path, selection: Selection) -> Iterator[Tomogram]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no list {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not a text file with one tomogram a line ({error})") from error
    entries = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not entries:
        raise InputError(f"{file} names no tomogram; write one path or URL a line")
    for entry in entries:
        beside = str(file.parent / entry)  # if it does not exist here
        there = "://" not in entry and not _matches(entry) and _matches(beside)
        yield from _of(beside if there else entry, selection, nested=True)


def _of_star(path: str, selection: Selection) -> Iterator[Tomogram]:
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no STAR file {file}")
    blocks = read_blocks(file)
    tables = [block for block in blocks.values() if _NAME in block]
    if not tables:
        raise InputError(f"{file} has no column {_NAME}; give RELION's tomograms.star")
    table: Any = tables[0]
    column = _COLUMNS.get(selection.kind)
    if column is None:
        raise InputError(
            f"`tomogram_type={selection.kind!r}`: of a tomograms.star only 'denoised' can be asked"
        )
    if column not in table:
        raise InputError(
            f"{file} has no column {column}; reconstruct the tomograms first, or name the volumes"
        )
    scale = ("rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning")
    for _, row in table.iterrows():
        stated = set(scale) <= set(table.columns)
        try:
            size = math.prod(float(row[name]) for name in scale) if stated else None
        except ValueError as error:
            raise InputError(f"{file} has a voxel size that is not a number ({error}); correct it") from error
        if size is not None and not 0 < size < math.inf:
            raise InputError(
                f"{file} states voxels of {size:g} Å for {row[_NAME]}, which is not a valid size; correct it"
            )
        yield Tomogram(_beside(str(row[column]), file), str(row[_NAME]), size)


def _beside(path: str, file: Path) -> str:
    """Find a path that is relative to a project's folder, which is above the list that names it."""
    if "://" in path or Path(path).is_absolute() or Path(path).exists():
        return path
    for folder in file.absolute().parents:
        if (folder / path).exists():
            return str(folder / path)
    return path


def _copick_roots(file: Path) -> list[str]:
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        roots = [str(stated[key]) for key in ("static_root", "overlay_root") if stated.get(key)]
        portal = stated.get("config_type") == "cryoet_data_portal"
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is not the configuration of a copick project ({error})") from error
    roots = [root.removeprefix("local://").removeprefix("file://").rstrip("/") for root in roots]
    # copick resolves a relative root from the working directory; here it is relative to the configuration
    beside = [str(file.parent / root) for root in roots if "://" not in root and not Path(root).is_absolute()]
    kept = [root for root in dict.fromkeys(roots + beside) if _holds(root, _RUNS)]
    if portal and not kept:
        raise InputError(
            f"{file} is of the CryoET Data Portal, whose tomograms are not on this machine; download them "
            "(cryoet-data-portal) and name the folder"
        )
    if not kept:
        raise InputError(f"{file} names no folder with {_RUNS}; give the configuration of a copick project")
    return kept


def _of_copick(root: str, selection: Selection) -> Iterator[Tomogram]:
    fs, base = _filesystem(root)
    pattern = f"{base}/{_RUNS}/*/VoxelSpacing*/{selection.kind or '*'}.zarr"
    volumes: dict[str, list[tuple[float, str, str]]] = {}
    for path in sorted(fs.glob(pattern)):
        run, spacing, name = path.rstrip("/").split("/")[-3:]
        kind = name.removesuffix(".zarr")
        if not kind.endswith("_features"):  # features computed from a tomogram
            place = fs.unstrip_protocol(path) if "://" in root else path
            volumes.setdefault(run, []).append((float(spacing.removeprefix("VoxelSpacing")), kind, place))
    if not volumes:
        what = f" {selection.kind!r}" if selection.kind else ""
        raise InputError(f"the copick project {root} has no tomograms{what}; name their `tomogram_type`")
    for run, entries in volumes.items():
        nearest = min((abs(math.log(size / selection.voxel_size)), size) for size, _, _ in entries)[1]
        fitting = [entry for entry in entries if entry[0] == nearest]
        if len(fitting) > 1:
            kinds = ", ".join(sorted(kind for _, kind, _ in fitting))
            raise InputError(
                f"the copick project {root} has several tomograms of {run} ({kinds}); "
                "choose by `tomogram_type`"
            )
        yield Tomogram(fitting[0][2], run, nearest)


def _of_corpus(root: str, selection: Selection) -> Iterator[Tomogram]:
    from catalogs.corpus.catalog import Catalog
    from catalogs.corpus.sample_names import names_for_people

    catalog = Catalog.open(root)
    ids = list(catalog.query(selection.where).index)
    if not ids:
        raise InputError(f"no sample of the corpus {root} is selected; change `where`")
    names = names_for_people(catalog.records())
    for sample in ids:
        yield Tomogram(catalog.sample_url(sample), names[sample])


def _of_sample(path: str) -> Tomogram:
    """Return the corpus's name of a sample; empty for other volumes."""
    from catalogs.corpus.catalog import Catalog, sample_record_of
    from catalogs.corpus.sample_names import names_for_people

    record = sample_record_of(path)
    if record is None:
        return Tomogram(path)
    corpus = Catalog.open(path.rpartition(f"/{_SAMPLES}/")[0])
    return Tomogram(path, names_for_people(corpus.records())[record.sample_id])


def _of_folder(folder: Path) -> Iterator[Tomogram]:
    """Take all volumes in a folder, by suffix."""
    found = sorted(
        path for path in folder.iterdir() if path.name.lower().endswith(_VOLUMES) and path.name[0] != "."
    )
    if not found:
        deeper = next((path for end in _VOLUMES for path in sorted(folder.glob(f"*/*{end}"))), None)
        hint = f"'{folder}/*/*{deeper.suffix}' takes those one folder below" if deeper else "name the volumes"
        raise InputError(
            f"the folder {folder} holds no tomogram (no {', '.join(_VOLUMES[:5])}, ...), is no OME-Zarr, "
            f"corpus or copick project; {hint}"
        )
    for path in found:
        yield Tomogram(str(path))


def _holds(root: str, name: str) -> bool:
    """Return whether a folder contains this name."""
    if "://" not in root:
        return (Path(root) / name).exists()
    fs, base = _filesystem(root)
    try:
        return bool(fs.exists(f"{base}/{name}"))
    except Exception as error:  # each storage has its own errors for "no such bucket" or "no permission"
        raise InputError(f"{root} cannot be read ({error})") from error


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url} is not a path or URL that can be opened ({error})") from error
    return fs, path.rstrip("/")


def named(tomograms: Sequence[Tomogram], voxel_size: float | None = None) -> list[Tomogram]:
    """Give every tomogram the name of its results.

    Parameters
    ----------
    tomograms
        Those without a name get that of their volume, whose header is read.
    voxel_size
        Å, instead of those in the headers.

    Raises
    ------
    InputError
        If two have the same name, or their results would have the same file name.
    """
    from catalogs.volumes.once import open_once

    seen: dict[str, str] = {}
    out = []
    for tomogram in tomograms:
        name = tomogram.name
        if not name:
            try:
                name = open_once(tomogram.path, voxel_size=voxel_size).name
            except InputError:  # errors are reported when the tomogram is picked
                name = Path(tomogram.path.rstrip("/")).stem
        file = file_name(name)
        if file in seen:
            raise InputError(
                f"{seen[file]} and {tomogram.path} are both named {name!r}, and so would be their results; "
                "rename one or pick them into two folders"
            )
        seen[file] = tomogram.path
        out.append(replace(tomogram, name=name))
    return out
