"""The formats of particle lists, and the recognition of a file's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.particle_formats import (
    chimerax,
    columns,
    copick,
    cryolo,
    deepfinder,
    deepfinder_excel,
    dynamo,
    eman2,
    imod,
    m,
    peet,
    portal,
    pytom,
    relion,
    relion_project,
    table,
    text,
    tom,
)
from catalogs.particle_formats.base import Format
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.plugins import Known

_OURS: dict[str, Format] = {
    format.name: format
    for format in (
        table.CSV,
        relion.RELION5,
        relion_project.RELION5_SET,
        relion.RELION4,
        relion.RELION3,
        m.M,
        dynamo.DYNAMO,
        tom.EM,
        tom.STOPGAP,
        imod.MOD,
        imod.TEXT,
        peet.PEET,
        chimerax.CMM,
        copick.COPICK,
        portal.PORTAL,
        deepfinder.XML,
        deepfinder.TEXT,
        deepfinder_excel.EXCEL,
        pytom.PYTOM,
        cryolo.CBOX,
        cryolo.COORDS,
        columns.DEEPETPICKER,
        columns.SCORED,
        cryolo.TLOC,
        eman2.EMAN2,
        columns.BOX,
        text.NAPARI,
        text.SHREC,
        text.CZII,
    )
}
#: Name -> format, including those of other packages, whose entry points name a ``Format``.
FORMATS: Known[Format] = Known(
    "particle_formats",
    "format",
    {name: partial(_OURS.__getitem__, name) for name in _OURS},
    "format",
)


@dataclass(frozen=True)
class Detected:
    """A file's format and the reason."""

    format: Format
    why: str


def named(name: str) -> Format:
    """Find a format by its name.

    Raises
    ------
    InputError
        If there is none; the message names the nearest one.
    """
    if name not in FORMATS:
        raise InputError(
            f"there is no format {name!r}{nearest(name, FORMATS)} (there are {', '.join(FORMATS)})"
        )
    return FORMATS[name]


def detect(path: Path) -> Detected:
    """Recognise the format of a file or folder from its content.

    Raises
    ------
    InputError
        If it does not exist, has no known format, or may have several, which the message names.
    """
    if not path.exists():
        raise InputError(f"there is no particle list {path}")
    sniffed = SniffedFile(path)
    found = [
        Detected(format, why) for format in FORMATS.loadable() if (why := format.detect(sniffed)) is not None
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        kinds = [
            format for format in FORMATS.loadable() if sniffed.suffix and sniffed.suffix in format.suffixes
        ]
        like = f"; files {sniffed.suffix} are {_either(kinds)}" if kinds else ""
        what = "folder" if sniffed.is_folder else "file"
        raise InputError(
            f"{path} is not a {what} of particles that this program knows{like}; say which it is (`format`)"
        )
    reasons = "; ".join(f"{item.format.name} ({item.why})" for item in found)
    raise InputError(
        f"{path} may be {reasons}; say which by `format={_either([item.format for item in found])}`"
    )


def target(path: Path) -> Format:
    """Find the format for writing from the suffix of a path.

    Raises
    ------
    InputError
        If the suffix belongs to no format, or to several.
    """
    suffix = path.suffix.lower()
    if path.name.lower().endswith("_info.json"):
        return FORMATS["eman2"]
    if path.name.lower() == "optimisation_set.star":
        return FORMATS["relion5-set"]
    meant = [format for format in FORMATS.loadable() if suffix in format.default_for]
    if meant:
        return meant[0]
    kinds = [format for format in FORMATS.loadable() if suffix in format.suffixes]
    end = f"ends in {suffix!r}" if suffix else "has no ending"
    if kinds:
        raise InputError(f"{path} {end}, which may be {_either(kinds)}; say which by `format`")
    raise InputError(f"{path} {end}, which no particle list has; say which format by `format`")


def _either(formats: Sequence[Format]) -> str:
    names = [format.name for format in formats]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
