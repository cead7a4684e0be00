"""Converts particle lists between formats, and reports what is lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.console import nearest
from catalogs.errors import InputError
from tlpick.output.next_step import next_step, without_orientations

if TYPE_CHECKING:
    import pandas as pd

    from catalogs.particle_formats.base import Context
    from catalogs.particle_formats.files import Loaded
    from catalogs.schema import ClassInfo

_AXES = ("x", "y", "z")
_log = logging.getLogger(__name__)
_SHOWN = 6  # tomograms whose ranges a check shows


@dataclass(frozen=True, eq=False)
class Converted:
    """Result of a conversion.

    Attributes
    ----------
    table
        The particle table; None if a list was only described and its positions are not known.
    sentences
        What was recognised, written and lost.
    """

    table: pd.DataFrame | None
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def context_of(
    source: Path,
    *,
    volumes: Sequence[str] = (),
    tomograms_star: str | None = None,
    tomogram_list: str | None = None,
    radii: Mapping[str, float] | None = None,
    **facts: Any,
) -> Context:
    """Collect what a particle list does not state from other files, and from facts that are given.

    Parameters
    ----------
    source
        The list, which may name its classes.
    volumes
        Tomograms, whose headers state sizes.
    tomograms_star
        RELION 5's ``tomograms.star``: sizes, pixel size, optics.
    tomogram_list
        Lines of a number and a tomogram, as Dynamo's ``.doc``.
    radii
        Class -> radius in Å.
    facts
        Fields of :class:`catalogs.particle_formats.base.Context`; they have priority.

    Raises
    ------
    InputError
        If a fact is not known or not valid, or a file cannot be read.
    """
    from catalogs.particle_formats.base import Context
    from catalogs.particle_formats.names import read_tomogram_list
    from catalogs.particle_formats.relion_project import read_tomograms

    refuse_unknown(facts, Context)
    fields: dict[str, Any] = {}
    if tomograms_star:
        fields |= read_tomograms(Path(tomograms_star))
    if volumes:
        fields |= _of_volumes(volumes, facts.get("voxel_size"))
    if tomogram_list:
        fields["tomograms"] = read_tomogram_list(tomogram_list)
    return Context(**({"classes": _classes(radii or {}, source)} | fields | facts))


def refuse_unknown(facts: Mapping[str, Any], known: type[Context]) -> None:
    """Refuse a fact that a context does not have, and suggest the nearest one (InputError)."""
    for name in facts:
        if name not in known.__dataclass_fields__:
            raise InputError(
                f"there is no fact `{name}`{nearest(name, known.__dataclass_fields__)}", parameter=name
            )


def _of_volumes(paths: Sequence[str], voxel_size: float | None) -> dict[str, Any]:
    from catalogs.volumes import open_volume

    volumes = [open_volume(path, voxel_size=voxel_size) for path in paths]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.voxel_size is None and len(volumes) > 1:
            raise InputError(
                f"{path} does not state its voxel size; set it in its header, or convert it alone"
            )
    if len(volumes) == 1:  # whichever tomogram the list belongs to
        only = volumes[0]
        return {"shape": only.shape, "origin": only.origin} | (
            {} if only.voxel_size is None else {"voxel_size": only.voxel_size}
        )
    return {
        "voxel_size": {volume.name: volume.voxel_size for volume in volumes},
        "shape": {volume.name: volume.shape for volume in volumes},
        "origin": {volume.name: volume.origin for volume in volumes},
    }


def _classes(radii: Mapping[str, float], source: Path) -> tuple[ClassInfo, ...]:
    """Return the classes of the source, with the given radii."""
    from pydantic import ValidationError

    from catalogs.particle_formats.relion import read_classes
    from catalogs.schema import ClassInfo

    known = {}
    if source.is_file() and source.suffix.lower() == ".star":
        known = {info.name: info for info in read_classes(source)}
    for name, radius in radii.items():
        label = (
            known[name].label
            if name in known
            else max((info.label for info in known.values()), default=0) + 1
        )
        try:
            known[name] = ClassInfo(name=name, label=label, radius=radius)
        except ValidationError:
            raise InputError(
                f"`radii` has {name}={radius:g}; give the name of a class and its radius in Å"
            ) from None
    return tuple(known.values())


def convert(
    source: Path,
    target: Path | None,
    context: Context,
    *,
    to_context: Context | None = None,
    source_format: str | None = None,
    target_format: str | None = None,
    sidecar: bool = False,
    overwrite: bool = False,
) -> Converted:
    """Convert a particle list; log what was recognised, written and lost.

    Parameters
    ----------
    source, target
        Lists to read and to write; without a target, the source is only described.
    context, to_context
        Contexts of the lists; by default the target has that of the source.
    source_format, target_format
        Names of formats; recognised by default.
    sidecar
        Whether what the target cannot hold is written to a CSV file beside it.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        If the source has no known format or several, or a needed fact is unknown.
    """
    from catalogs.particle_formats import files, registry
    from catalogs.particle_table import without_rejected

    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        _log.info(sentence)

    if source_format is not None:
        registry.named(source_format)
    if target is None:
        return Converted(_check(source, source_format, context, say), tuple(said))
    chosen = registry.named(target_format) if target_format is not None else registry.target(target)
    with _of_the_source():
        loaded = files.load(source, source_format, context)
    table = loaded.table
    _say_what_it_is(source, loaded, say)
    if chosen.name != "csv" and (kept := without_rejected(table)) is not table:
        if n_rejected := len(table) - len(kept):
            say(f"  {n_rejected} rejected picks are left out, which other programs would take for particles")
        table = kept
    learnt = loaded.context
    if loaded.format.name == "relion3":
        learnt = replace(learnt, pixel_size=None)  # it belongs to a volume, not to the tilt series
    to_context = _with_what_is_known(replace(to_context or context, unit=None, list_pixel=None), learnt)
    if context.shape is not None and not isinstance(context.shape, Mapping):
        z, y, x = context.shape
        say(f"  tomogram: x {x}, y {y}, z {z} voxels")
    for sentence in _outside(table, to_context):
        say(f"  {sentence}")
    saved = files.save(table, target, chosen.name, to_context, sidecar, overwrite)
    n = len(saved.files)
    say(f"{target}: {chosen.title} ({chosen.name}){f', {n} files' if n > 1 else ''}")
    columns = [name for name in saved.lost if not name.startswith("data_")]
    blocks = [name for name in saved.lost if name.startswith("data_")]
    lost = ", ".join(columns[:8]) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
    if columns and saved.sidecar is None:
        say(f"  no room there for {lost}; `sidecar` keeps it in a file beside")
    elif columns and saved.sidecar is not None:
        say(f"  no room there for {lost}: kept in {saved.sidecar}")
    if blocks:
        say(f"  lost: {', '.join(blocks)} of {source.name}, which only RELION's files hold")
    if chosen.numbers_tomograms or chosen.name == "dynamo":
        from catalogs.particle_formats.names import number_tomograms

        numbers = number_tomograms(table["tomogram"], to_context)
        listed = ", ".join(f"{number} = {name}" for name, number in list(numbers.items())[:6])
        say(f"  tomograms: {listed}{', ...' if len(numbers) > 6 else ''}")
    if without_orientations(table):
        sizes = to_context.voxel_size
        size = next(iter(sizes.values())) if isinstance(sizes, Mapping) else sizes
        pixels = to_context.pixel_size
        pixel = next(iter(pixels.values())) if isinstance(pixels, Mapping) else pixels
        radii = {info.name: info.radius for info in to_context.classes}
        for line in next_step(str(target), chosen.name, size, radii, pixel):
            say(line)
    return Converted(table, tuple(said))


@contextlib.contextmanager
def _of_the_source() -> Iterator[None]:
    """Name the format of what is read as it is called here, where there is one of what is written, too."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for after in "`=":
            text = text.replace(f"`format{after}", f"`source_format{after}")
        raise InputError(text) from error


def _check(
    source: Path, source_format: str | None, context: Context, say: Callable[[str], None]
) -> pd.DataFrame | None:
    """Describe a list and the ranges of its particles; returns its table if the positions are known."""
    from catalogs.particle_formats import files, registry

    with _of_the_source():
        found = registry.detect(source) if source_format is None else None
    try:
        loaded = files.load(source, source_format, context)
    except InputError as error:
        if found is None:
            raise
        say(f"{source}: {found.format.title} ({found.format.name}): {found.why}")
        say(f"  the ranges of its particles are unknown: {error}")
        return None
    _say_what_it_is(source, loaded, say)
    shown = 0
    for name, part in loaded.table.groupby("tomogram", sort=False):
        if (shown := shown + 1) > _SHOWN:
            say(f"  and {loaded.table['tomogram'].nunique() - _SHOWN} more tomograms")
            break
        say(f"  {_ranges(str(name), part, loaded.context)}")
    for sentence in _outside(loaded.table, loaded.context):
        say(f"  {sentence}")
    return loaded.table


def _say_what_it_is(source: Path, loaded: Loaded, say: Callable[[str], None]) -> None:
    say(f"{source}: {loaded.format.title} ({loaded.format.name}): {loaded.why}")
    say(f"  {_count(loaded.table)}")
    for note in loaded.notes:
        say(f"  {note}")


def _ranges(name: str, part: pd.DataFrame, context: Context) -> str:
    """Describe the ranges of a tomogram's particles in Å beside the tomogram's size."""
    try:
        size = [f" of {length:.0f}" for length in context.size(name) * context.voxel(name)]
        unknown = ""
    except InputError:
        size, unknown = ["", "", ""], " (its size is not known; give a volume, or `voxel_size` and `shape`)"
    ranges = ", ".join(
        f"{axis} {part[axis].min() + 0.0:.0f} to {part[axis].max() + 0.0:.0f}{edge}"
        for axis, edge in zip(_AXES, size, strict=True)
    )
    return f"{name or 'a tomogram without a name'}: {ranges} Å{unknown}"


def _with_what_is_known(context: Context, learnt: Context) -> Context:
    """Add the source's facts about its tomograms to the user's context of the target."""
    keys = ("voxel_size", "shape", "pixel_size", "unbinned_shape", "tomograms", "tomograms_file", "optics")
    known = {key: getattr(context, key) or getattr(learnt, key) for key in keys}
    return replace(context, binning_kind=learnt.binning_kind, **known)


def _count(table: pd.DataFrame) -> str:
    classes = table["class_name"].value_counts()
    listed = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:5])
    more = ", ..." if len(classes) > 5 else ""
    tomograms = table["tomogram"].nunique()
    in_tomograms = f"in {tomograms} tomogram{'' if tomograms == 1 else 's'}"
    if table.empty:
        return "no particles"
    return f"{len(table)} particle{'' if len(table) == 1 else 's'} ({listed}{more}) {in_tomograms}"


def _outside(table: pd.DataFrame, context: Context) -> list[str]:
    """Report particles outside of their tomogram, which show a wrong size or convention."""
    if context.shape is None or context.voxel_size is None or table.empty:
        return []
    count, example = 0, ""
    for name, part in table.groupby("tomogram", sort=False):
        try:
            size = context.size(str(name)) * context.voxel(str(name))
        except InputError:
            continue  # sizes of tomograms may be unknown
        values = part[list(_AXES)].to_numpy(float)
        outside = ((values < -context.voxel(str(name))) | (values > size)).any(axis=1)
        if outside.any() and not example:
            box = ", ".join(f"{axis} {length:.0f}" for axis, length in zip(_AXES, size, strict=True))
            first = ", ".join(
                f"{axis} {value:.0f}" for axis, value in zip(_AXES, values[outside][0], strict=True)
            )
            example = f"one lies at {first} Å, and the tomogram is {box} Å"
        count += int(outside.sum())
    if not count:
        return []
    return [f"{count} of {len(table)} particles lie outside of their tomogram ({example}): is a size wrong?"]
