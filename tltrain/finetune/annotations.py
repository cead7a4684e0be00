"""The annotations of a user: positions of particles in tomograms, with the classes of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs import particles
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.model_file import ModelCard
from catalogs.particle_formats.base import Context, has_orientations, stem
from catalogs.particle_table import ACCEPTED, REJECTED
from catalogs.particles import DISTRACTOR
from catalogs.volumes.once import open_once
from tlpick.network.tomograms.inputs import Tomogram

#: With fewer particles of a class, the result is not reliable.
FEWEST = 10
#: Class names in lists without classes; they stand for the only class of a model.
_NAMELESS = ("particle", "class0", "class1", "pick", "picks")


@dataclass(frozen=True)
class Place:
    """A tomogram as it is in its file, with the sizes that are needed to read a list of positions.

    ``shape`` is in voxels (z, y, x), ``voxel_size`` in Å.
    """

    tomogram: Tomogram
    shape: tuple[int, int, int]
    voxel_size: float


@dataclass(frozen=True, eq=False)
class Annotations:
    """Particles in tomograms.

    Attributes
    ----------
    places
        The tomograms, each with particles in it.
    table
        Particle table: Å in the tomogram as it is in its file; names of classes and labels of the model.
    oriented
        Whether the particles have orientations.
    notes
        Sentences for the user.
    rejected
        Picks that a person looked at and rejected, in the same form; the class is what they were picked as.
        None: nobody said so of any.
    """

    places: Sequence[Place]
    table: pd.DataFrame
    oriented: bool
    notes: tuple[str, ...] = ()
    rejected: pd.DataFrame | None = None

    def of(self, name: str) -> pd.DataFrame:
        """Return the rows of one tomogram."""
        return self.table[self.table["tomogram"] == name].reset_index(drop=True)

    def rejected_in(self, name: str) -> pd.DataFrame:
        """Return the rejected picks of one tomogram; no rows if there are none."""
        table = self.table[:0] if self.rejected is None else self.rejected
        return table[table["tomogram"] == name].reset_index(drop=True)

    @property
    def counts(self) -> dict[str, int]:
        """Particles of each class that is annotated."""
        return {str(name): int(n) for name, n in self.table["class_name"].value_counts().sort_index().items()}


def read_sizes(tomograms: Sequence[Tomogram], voxel_size: float | None = None) -> list[Place]:
    """Open tomograms to find their sizes.

    Parameters
    ----------
    tomograms
        With names.
    voxel_size
        Of all of them, Å; None: as stated in lists and files.

    Raises
    ------
    InputError
        If one cannot be opened or does not state its voxel size.
    """
    places = []
    for tomogram in tomograms:
        volume = open_once(tomogram.path, voxel_size=voxel_size)
        size = voxel_size or tomogram.voxel_size or volume.voxel_size
        if size is None:
            raise InputError(
                f"{tomogram.path} does not state its voxel size; give it with `voxel_size`, in Å"
            )
        places.append(Place(tomogram, volume.shape, size))
    return places


def read_annotations(
    lists: Sequence[str],
    places: Sequence[Place],
    card: ModelCard,
    *,
    classes: Mapping[str, str] | None = None,
    format: str | None = None,
    pixel_size: float | None = None,
    fewest: int = FEWEST,
) -> Annotations:
    """Read particle lists of any format and find their tomograms and classes.

    Parameters
    ----------
    lists
        Paths: one list that names its tomograms, or a list (or a folder of lists) for each tomogram.
    places
        The tomograms, named.
    card
        Card of the model, whose classes are used.
    classes
        Name of a class in the lists -> its name in the model, or empty to leave it out.
    format
        Of the lists; recognised unless given.
    pixel_size
        Å of the pixels of the unbinned tilt series, for lists that count in them.
    fewest
        Particles that each annotated class must have.

    Returns
    -------
    Annotations

    Raises
    ------
    InputError
        If a list cannot be read, names no known tomogram or class, or has particles outside of its tomogram;
        if a tomogram has no particles; or if there are too few.
    """
    notes: list[str] = []
    source = ", ".join(lists)
    context = _context(places, card, pixel_size)
    only = places[0].tomogram.name if len(places) == len(lists) == 1 else None
    table = pd.concat([_read(path, format, context, only) for path in lists], ignore_index=True)
    table = _in_tomograms(table, places, source, notes)
    table = _in_classes(table, card, classes or {}, source, notes)
    _refuse_outside(table, places, source)
    table, rejected = _by_verdict(table, source, notes)
    for place in places:
        if not (table["tomogram"] == place.tomogram.name).any():
            raise InputError(
                f"{source} has no particles in the tomogram {place.tomogram.name!r}; annotate some, or leave "
                "the tomogram out"
            )
    found = Annotations(places, table, has_orientations(table), tuple(notes), rejected)
    for name, n in found.counts.items():
        if n < fewest:
            raise InputError(
                f"{source} has {n} particle{'' if n == 1 else 's'} of the class {name!r} in these tomograms, "
                f"too few to learn from; annotate at least {fewest}"
            )
    return found


class _ByName(dict[str, Any]):
    """Values by the names of tomograms, with any ending.

    A list may name tomograms that were not given; their particles are left out later, so any value will do to
    read them.
    """

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        return super().get(stem(name), next(iter(self.values())))

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def _context(places: Sequence[Place], card: ModelCard, pixel_size: float | None) -> Context:
    """Return the context for reading lists: sizes and names of the tomograms."""
    names = [each.tomogram.name for each in places]
    ends = [re.search(r"(\d{1,6})$", name) for name in names]
    numbers = [int(end.group(1)) for end in ends if end is not None]
    clear = len(set(numbers)) == len(names)
    return Context(
        voxel_size=_ByName(
            {key(each.tomogram.name): each.voxel_size for key in (stem, str) for each in places}
        ),
        shape=_ByName({key(each.tomogram.name): each.shape for key in (stem, str) for each in places}),
        pixel_size=pixel_size,
        in_pixels=pixel_size is not None,
        tomograms=dict(zip(numbers, names, strict=True)) if clear else {},  # TS_03 is number 3
        classes=tuple(card.classes),
    )


def _read(path: str, format: str | None, context: Context, only: str | None) -> pd.DataFrame:
    """Read a list; if it names no tomogram, it is of the only one."""
    loaded = particles.load(path, format, context)
    known = loaded.format
    names = set(loaded.table["tomogram"])
    nameless = known.one_tomogram or known.numbers_tomograms or names == {Path(path).stem}
    if only is not None and nameless and len(names) == 1:
        return loaded.table.assign(tomogram=only)
    return loaded.table


def _in_tomograms(
    table: pd.DataFrame, places: Sequence[Place], source: str, notes: list[str]
) -> pd.DataFrame:
    """Keep the particles of the given tomograms, and use the names of these."""
    if table.empty:
        raise InputError(f"{source} has no particles; annotate some")
    known = [each.tomogram.name for each in places]
    # ignore endings and folders of a name, unless two tomograms differ only in them
    stems = Counter(stem(name) for name in known)
    ours = {stem(name): name for name in known if stems[stem(name)] == 1} | {name: name for name in known}
    names = table["tomogram"].map(lambda name: ours.get(str(name), ours.get(stem(str(name)), "")))
    kept = table.assign(tomogram=names)[names != ""]
    others = sorted(set(table["tomogram"][names == ""]))
    if kept.empty:
        raise InputError(
            f"{source} has particles in {_listed(others)}, but the tomograms are "
            f"{_listed(sorted(known))}; rename the files or the list, or give "
            "RELION's tomograms.star as `tomograms`"
        )
    if others:
        notes.append(
            f"{int((names == '').sum())} particles are in other tomograms ({_listed(others)}) and are left "
            "out"
        )
    return kept.reset_index(drop=True)


def _in_classes(
    table: pd.DataFrame, card: ModelCard, given: Mapping[str, str], source: str, notes: list[str]
) -> pd.DataFrame:
    """Give the particles the classes of the model."""
    targets = {info.name: info for info in card.classes}
    known = ", ".join(targets)
    for theirs, ours in given.items():
        if ours and ours not in targets:
            raise InputError(
                f"`classes={theirs}={ours}`: the model {card.name!r} has no class {ours!r}, only {known}"
                f"{nearest(ours, targets)}"
            )
        if theirs not in set(table["class_name"]):
            raise InputError(
                f"`classes={theirs}={ours}`: {source} has no class {theirs!r}, only "
                f"{_listed(sorted(set(table['class_name'])))}"
            )
    mapped: dict[str, str] = {}
    for name in sorted({str(each) for each in table["class_name"]}):
        if name in given:
            mapped[name] = given[name]
        elif name in targets:
            mapped[name] = name
        elif name == DISTRACTOR:
            mapped[name] = ""
        elif name in _NAMELESS and len(targets) == 1:
            mapped[name] = next(iter(targets))
            notes.append(f"the particles of {source} have no class and are taken as {mapped[name]}")
        else:
            raise InputError(
                f"{source} has the class {name!r}, the model {card.name!r} knows {known}"
                f"{nearest(name, targets)}; give `classes={name}=NAME`, or `classes={name}=` to leave it out"
            )
    names = table["class_name"].map(mapped)
    kept = table.assign(class_name=names, label=names.map(lambda n: targets[n].label if n else 0))[
        names != ""
    ]
    if kept.empty:
        raise InputError(f"{source} has no particles of the classes of the model {card.name!r} ({known})")
    return kept.reset_index(drop=True)


def _by_verdict(
    table: pd.DataFrame, source: str, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Divide picks that a person went through into the accepted and the rejected ones.

    Where a list has no verdicts, all of it is annotated; where it has some, picks without one say nothing.
    """
    if "verdict" not in table:
        return table, None
    verdict = table["verdict"].fillna("").astype(str).str.strip()
    if wrong := sorted(set(verdict) - {ACCEPTED, REJECTED, ""}):
        raise InputError(
            f"{source} has the verdict {wrong[0]!r}; write {ACCEPTED}, {REJECTED}, or nothing where nobody "
            "looked"
        )
    if not (verdict != "").any():
        return table, None
    if open_ := int((verdict == "").sum()):
        notes.append(f"{open_} picks without a verdict are left out")
    accepted, rejected = (table[verdict == word].reset_index(drop=True) for word in (ACCEPTED, REJECTED))
    if len(rejected):
        notes.append(f"{len(rejected)} rejected picks are learned from as what is no particle")
    return accepted, rejected if len(rejected) else None


def _refuse_outside(table: pd.DataFrame, places: Sequence[Place], source: str) -> None:
    """Refuse a list with positions in other units or in another tomogram."""
    for place in places:
        name = place.tomogram.name
        rows = table[table["tomogram"] == name]
        index = rows[["x", "y", "z"]].to_numpy(np.float64) / place.voxel_size
        outside = ((index < -0.5) | (index > np.array(place.shape[::-1]) - 0.5)).any(axis=1)
        if outside.any():
            x, y, z = index[outside][0]
            edges = " x ".join(str(n) for n in place.shape[::-1])
            raise InputError(
                f"{source}: {outside.sum()} of {len(rows)} particles lie outside of the tomogram {name!r} "
                f"({edges} voxels of {place.voxel_size:g} Å), such as at voxel ({x:.0f}, {y:.0f}, {z:.0f}); "
                "correct the list, or give `pixel_size` if it counts in pixels of the tilt series"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
