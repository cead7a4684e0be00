"""Annotated tomograms as a source of patches: preprocessed once for the model, then read like a corpus.

Each tomogram is stored in the folder of the unfinished training as two plain arrays: targets, and grey values
that were read, checked and normalised by the picker's own function (:mod:`tlpick.network.tomograms.intake`).
The arrays are memory-mapped, so only the blocks from which patches are cut are in memory, however many
tomograms there are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from catalogs.atomic_write import reserve, write_text
from catalogs.errors import InputError
from catalogs.model_file import ModelCard
from catalogs.schema import Intensity
from catalogs.seeds import digest
from tlpick.network.tomograms.intake import Prepared, Preprocessing, prepare
from tlpick.network.tomograms.scratch import Scratch
from tltrain.data.sampling import Sites, Source
from tltrain.finetune.annotations import Place
from tltrain.finetune.targets import IGNORED, UNLABELLED

_SLAB = 64  # planes that are converted at once
_BLOCK = 32  # voxels; blocks that are read begin and end at multiples of it
#: The grey values are normalised already.
NORMALISED = Intensity(centre=0.0, spread=1.0)


@dataclass(frozen=True)
class PreprocessedTomogram:
    """A tomogram that is preprocessed for the model.

    Attributes
    ----------
    name
        Of the tomogram.
    path
        Its file or URL.
    shape
        Voxels along z, y, x on the model's grid.
    voxel_size
        Of that grid, Å.
    offset
        Position (x, y, z) of its voxel 0 in the tomogram's own frame, Å.
    content
        Hash of the grey values.
    grey, mask
        Files with the normalised grey values (float16) and, if one was given, the mask (bool).
    """

    name: str
    path: str
    shape: tuple[int, int, int]
    voxel_size: float
    offset: tuple[float, float, float]
    content: str
    grey: Path
    mask: Path | None = None

    def read(self) -> NDArray[np.float16]:
        """Map the grey values."""
        return np.load(self.grey, mmap_mode="r")

    def inside(self) -> NDArray[np.bool_] | None:
        """Map the mask; None: there is none."""
        return None if self.mask is None else np.load(self.mask, mmap_mode="r")


def prepare_tomograms(
    places: Sequence[Place],
    card: ModelCard,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    memory: float = 4e9,
    say: Callable[[str], None] = lambda _: None,
) -> list[PreprocessedTomogram]:
    """Preprocess tomograms for the model, or use those that an earlier call left in the folder.

    Parameters
    ----------
    places
        The tomograms.
    card
        Of the model.
    preprocessing
        How they may be preprocessed.
    folder
        Folder for the preprocessed tomograms; it is created.
    memory
        Bytes of memory that may be used.
    say
        Called with a sentence about each tomogram.

    Returns
    -------
    list of PreprocessedTomogram

    Raises
    ------
    InputError
        If one cannot be read, or does not fit the model and no option allows it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _standing(place, card, preprocessing, folder)
        or _make(place, card, preprocessing, folder, memory, say)
        for place in places
    ]


def _make(
    place: Place,
    card: ModelCard,
    preprocessing: Preprocessing,
    folder: Path,
    memory: float,
    say: Callable[[str], None],
) -> PreprocessedTomogram:
    name = place.tomogram.name
    stem = digest([place.tomogram.path, name])
    say(f"reading {name}")
    with Scratch(folder, memory / 2) as scratch:
        ready = prepare(place.tomogram, card, preprocessing, scratch, memory)
        content = _write(ready, folder / f"{stem}.grey.npy")
        mask = None
        if ready.mask is not None:
            mask = folder / f"{stem}.mask.npy"
            _save(mask, ready.mask)
        made = PreprocessedTomogram(
            name=name,
            path=place.tomogram.path,
            shape=ready.values.shape,
            voxel_size=ready.grid,
            offset=ready.offset,
            content=content,
            grey=folder / f"{stem}.grey.npy",
            mask=mask,
        )
    facts = {key: value for key, value in asdict(made).items() if key not in ("grey", "mask")}
    text = json.dumps({"terms": _identity(place, card, preprocessing), "masked": mask is not None, **facts})
    write_text(folder / f"{stem}.json", text)  # written last: without it, the other files do not count
    return made


def _standing(
    place: Place, card: ModelCard, preprocessing: Preprocessing, folder: Path
) -> PreprocessedTomogram | None:
    """Find the result of an earlier call for the same file and the same preprocessing."""
    stem = digest([place.tomogram.path, place.tomogram.name])
    try:
        facts = json.loads((folder / f"{stem}.json").read_text())
        if facts.pop("terms") != _identity(place, card, preprocessing):
            return None
        mask = folder / f"{stem}.mask.npy" if facts.pop("masked") else None
        shape, offset = tuple(facts.pop("shape")), tuple(facts.pop("offset"))
        found = PreprocessedTomogram(
            **facts, shape=shape, offset=offset, grey=folder / f"{stem}.grey.npy", mask=mask
        )
        return found if found.read().shape == shape else None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _identity(place: Place, card: ModelCard, preprocessing: Preprocessing) -> str:
    """Hash everything that determines the grey values, without reading them."""
    path = Path(place.tomogram.path)
    if "://" in place.tomogram.path or not path.exists():
        stamp: list[float] = []
    else:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime]
    means = {
        key: value for key, value in asdict(preprocessing).items() if key != "yes"
    }  # it does not change the values
    return digest(
        [
            place.tomogram.path,
            stamp,
            place.voxel_size,
            means,
            card.voxel_size,
            card.contrast,
            card.normalisation,
        ]
    )


def _write(ready: Prepared, file: Path) -> str:
    """Write grey values in half precision, which is far finer than their noise; returns their hash."""
    out = _mapped(file, np.float16, ready.values.shape)
    seen = hashlib.blake2b(digest_size=8)
    for z in range(0, len(out), _SLAB):
        part = np.ascontiguousarray(ready.values[z : z + _SLAB], np.float16)
        out[z : z + _SLAB] = part
        seen.update(part.data)
    out.flush()
    return seen.hexdigest()


def _mapped(file: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create a file of an array and map it (OSError if the disk is full)."""
    out: np.memmap[Any, Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with open(file, "rb+") as raw:
        reserve(raw.fileno(), os.path.getsize(file))
    return out


def _save(file: Path, array: NDArray[Any]) -> None:
    with open(file, "wb") as raw:
        np.save(raw, array)


class AnnotatedTomograms:
    """Annotated tomograms to cut patches from (:class:`tltrain.data.patch_sources.TrainingTomograms`).

    Parameters
    ----------
    tomograms
        The tomograms.
    targets
        For each the file with its targets, from :func:`write_targets`.
    tables
        For each its particle table, Å in the tomogram's own frame.
    channels
        Class -> index of the network's output, which is its number in the targets.
    unlabelled
        Label of a voxel of unknown class: :data:`tltrain.finetune.targets.UNLABELLED`,
        :data:`tltrain.finetune.targets.IGNORED`, or 0 for background.
    """

    def __init__(
        self,
        tomograms: Sequence[PreprocessedTomogram],
        targets: Sequence[Path],
        tables: Sequence[pd.DataFrame],
        channels: Mapping[str, int],
        unlabelled: int,
    ) -> None:
        # once, and not by the threads that read blocks: Python parses the files' heads, which not every
        # version of it can do in two threads at a time
        self._volumes = [
            (tomogram.read(), np.load(file, mmap_mode="r"))
            for tomogram, file in zip(tomograms, targets, strict=True)
        ]
        self._sites = [
            Sites(
                label=np.array([channels[name] for name in table["class_name"]], np.int64),
                centre=on_grid(table, tomogram),
            )
            for tomogram, table in zip(tomograms, tables, strict=True)
        ]
        self.outputs = {UNLABELLED: unlabelled, IGNORED: IGNORED, 0: 0} | {k: k for k in channels.values()}
        self.sources = [
            Source(
                name=tomogram.name,
                shape=tomogram.shape,
                chunk=(_BLOCK,) * 3,
                intensity=NORMALISED,
                counts={
                    int(k): int(n) for k, n in zip(*np.unique(sites.label, return_counts=True), strict=True)
                },
            )
            for tomogram, sites in zip(tomograms, self._sites, strict=True)
        ]

    def sites(self, k: int) -> Sites:
        """Return the annotations in tomogram ``k``."""
        return self._sites[k]

    def volumes(self, k: int) -> tuple[Any, Any]:
        """Return grey values and targets of tomogram ``k``, mapped."""
        return self._volumes[k]


def on_grid(table: pd.DataFrame, tomogram: PreprocessedTomogram) -> NDArray[np.float64]:
    """Convert positions into voxels (n, 3), z, y, x, of the network's grid."""
    xyz = table[["x", "y", "z"]].to_numpy(np.float64) - np.array(tomogram.offset)
    return xyz[:, ::-1] / tomogram.voxel_size


def in_frame(table: pd.DataFrame, tomogram: PreprocessedTomogram) -> pd.DataFrame:
    """Move positions into the frame whose zero is the centre of the grid's first voxel, Å."""
    moved = on_grid(table, tomogram) * tomogram.voxel_size
    return table.assign(**dict(zip("zyx", moved.T, strict=True)))


def write_targets(
    tomogram: PreprocessedTomogram, file: Path, write: Callable[[NDArray[np.uint8]], None]
) -> Path:
    """Create the file of a tomogram's targets; ``write`` fills them in."""
    file.unlink(missing_ok=True)  # processes that have mapped the old file keep it
    out = _mapped(file, np.uint8, tomogram.shape)
    write(out)
    inside = tomogram.inside()
    if inside is not None:
        out[~inside] = IGNORED
    out.flush()
    return file
