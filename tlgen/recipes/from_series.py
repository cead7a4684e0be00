"""Write a recipe whose tilt series follow a user's own acquisition: ``tlgen match``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from catalogs import user_warnings
from catalogs.atomic_write import replacing
from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.yaml_files import read_yaml
from tlgen.recipes.recipe import Recipe
from tlgen.recipes.recipe_file import read_content, read_recipe, shipped_recipes
from tlgen.tilts.scheme import order
from tlgen.tilts.series_files import AcquiredSeries, read_one

_DOSE = 0.15  # relative half-width of the range
_DEFOCUS = 1.0  # µm to each side
_LEAST_DEFOCUS = 0.3  # µm
_UNEVEN = 0.3  # degrees that a tilt may differ from its scheme, because stages are not exact
_SAME_DOSE = 0.05  # relative difference up to which doses count as equal
_GROUPS = range(1, 9)
_LARGEST_VOXEL = 200.0  # Å; molecules are not visible in larger ones


@dataclass(frozen=True)
class Matched:
    """A recipe that repeats an acquisition.

    Attributes
    ----------
    recipe
        The recipe, read and validated.
    text
        The same as YAML.
    changes
        One sentence for each parameter that differs from the template, or from the recipe before.
    remark
        What to do next; empty if no file was written.
    found
        What a tomogram of the series sets and why, one sentence each; empty without a tomogram.
    """

    recipe: Recipe
    text: str
    changes: tuple[str, ...]
    remark: str = ""
    found: tuple[str, ...] = ()


#: Changes the content of a recipe further; it also gets the recipe below.
Adapt = Callable[[dict[str, Any], Recipe], dict[str, Any]]


def match(
    path: str,
    to: str | None,
    template: str | None,
    voxel_size: float,
    adapt: Adapt = lambda content, _below: content,
) -> Matched:
    """Make a recipe with the parameters of an acquisition, and write it.

    Parameters
    ----------
    path
        A file that :func:`tlgen.tilts.series_files.read_series` reads.
    to
        File to write, ``.yaml``; None: no file. If it exists, its tilt series are replaced.
    template
        The recipe that a new one extends; None: ``demo``.
    voxel_size
        Approximate voxel size in Å.
    adapt
        Called with the content of the recipe and the recipe below it; it returns the content to write.

    Raises
    ------
    InputError
        If a file cannot be read, ``to`` is not a .yaml file, it exists although a template is given, or the
        voxel size is not positive.
    """
    if not 0 < voxel_size <= _LARGEST_VOXEL:
        raise InputError(
            f"`voxel_size` must be positive and no more than {_LARGEST_VOXEL:g} Å, not {voxel_size:g}"
        )
    if to is not None and Path(to).suffix not in (".yaml", ".yml"):
        raise InputError(f"{to} must end in .yaml; give another name")
    series = read_one(path)
    if not series.ordered:
        user_warnings.warn(
            f"{path} {series.doubt}: the order of the file is used; correct the recipe if this is wrong"
        )
    if to is not None and Path(to).exists():
        if template is not None:
            raise InputError(
                f"{to} already exists; leave out `template` to change its tilt series, or give another name"
            )
        return _changed(series, Path(to), voxel_size, adapt)
    template = template or "demo"
    below = read_recipe(template)
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(to).stem if to else series.name).strip("-.") or "matched"
    if template not in shipped_recipes():
        template = os.path.relpath(template, Path(to).parent if to else None)
    content = adapt(recipe_of(series, below, template, voxel_size, name), below)
    content = {key: content[key] for key in ("extends", "name", "description")} | _standing(below) | content
    text = f"# Tilt series as {Path(path).name} was taken; `tlgen run` makes it.\n" + _in_yaml(content)
    changes = tuple(differences(content["acquisition"], below))
    if to is None:
        return Matched(read_content(content, Path()), text, changes)
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    Path(to).write_text(text, encoding="utf-8")
    return Matched(
        read_recipe(to),
        text,
        changes,
        f"{to}: put your structures under its targets, which are those of {template}; then: tlgen plan {to} "
        "--to URL, and tlgen run",
    )


def _standing(below: Recipe) -> dict[str, Any]:
    """Return the targets and distractors of a recipe, so that they can be edited in the new one."""
    said = below.model_dump(mode="json", include={"targets", "distractors"}, exclude_defaults=True)
    for target in said["targets"].values():
        target["structures"] = [s["file"] if set(s) == {"file"} else s for s in target["structures"]]
    return {"targets": said["targets"], "distractors": said.get("distractors", [])}


def _said(words: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in words.items() if value is not None}


def _in_yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _changed(series: AcquiredSeries, path: Path, voxel_size: float, adapt: Adapt) -> Matched:
    """Give an existing recipe the tilt series of an acquisition.

    The keys ``shape``, ``acquisition`` and ``samples``, and those that ``adapt`` adds, are replaced; groups
    keep their names, numbers and splits. Everything else stays as it is, including comments, and a copy of
    the old file is kept.
    """
    below, text = read_recipe(str(path)), path.read_text(encoding="utf-8")
    extends = (read_yaml(path) or {}).get("extends")
    content = recipe_of(series, below, str(extends), voxel_size, below.name)
    standing = set(content)
    content = adapt(content, below)
    samples = {
        name: _without(below, name) | group.model_dump(mode="json", include={"number", "split"})
        for name, group in below.samples.items()
    }
    samples |= {name: group for name, group in content["samples"].items() if group and group.get("packing")}
    acquisition = content["acquisition"]
    if extends is None:  # there is no other recipe whose keys must be removed
        samples = {name: _said(group) for name, group in samples.items()}
        acquisition = _said(below.model_dump(mode="json")["acquisition"] | acquisition)
    words = {"shape": content["shape"], "acquisition": acquisition, "samples": samples}
    more = {key: value for key, value in content.items() if key not in standing}
    words |= more if extends is not None else {key: _said(value) for key, value in more.items()}
    for key, value in words.items():
        text = _with_key(text, key, _in_yaml({key: value}))
    with replacing(path, ending=path.suffix) as aside:
        aside.write_text(text, encoding="utf-8")
        recipe = read_recipe(str(aside))
        backup = path.with_name(path.name + ".before")
        shutil.copy2(path, backup)
    return Matched(
        recipe,
        text,
        tuple(differences(words["acquisition"], below)),
        f"{path}: {_listed(words)} now follow the series, the rest is unchanged (the old file "
        f"is {backup}); then: tlgen plan {path} --to URL, and tlgen run",
    )


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}"


def _with_key(text: str, key: str, block: str) -> str:
    """Replace a top-level key of a YAML file, or add it at the end."""
    root = yaml.compose(text, yaml.SafeLoader)
    lines = text.splitlines(keepends=True)
    for name, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if name.value == key:
            first, last = name.start_mark.line, value.end_mark.line
            # a block ends where the next key begins; comments and blank lines before that key belong to it
            while last - 1 > first and (not lines[last - 1].strip() or lines[last - 1][0] in "#\n"):
                last -= 1
            last = max(last, first + 1)
            return "".join([*lines[:first], block, *lines[last:]])
    return text.rstrip("\n") + "\n\n" + block


def recipe_of(
    series: AcquiredSeries, below: Recipe, template: str, voxel_size: float, name: str
) -> dict[str, Any]:
    """Make the content of a recipe that extends another one and has the tilt series of an acquisition.

    Parameters
    ----------
    series
        The acquisition.
    below
        The recipe to extend, read.
    template
        Its name, as it is written into the new recipe.
    voxel_size
        Å, about.
    name
        Of the recipe.

    Returns
    -------
    dict
        The recipe; all its groups use the multislice engine, since Parakeet's images always have pixels of 1
        Å.
    """
    acquisition: dict[str, Any] = {"engine": "multislice"}
    sizes = [float(v) for v in below._values("voxel_size")]
    if series.pixel_size:
        times = max(1, round(voxel_size / series.pixel_size))
        pixel = round(series.pixel_size, 4)
        acquisition |= {"pixel_size": pixel, "voxel_size": round(times * pixel, 4)}
    if series.voltage:
        acquisition["voltage"] = round(series.voltage, 3)
    if series.spherical_aberration is not None:
        acquisition["spherical_aberration"] = series.spherical_aberration
    if series.dose:
        acquisition["dose"] = _around(series.dose, _DOSE * series.dose, 1)
    if series.defocus:
        low = max(series.defocus - _DEFOCUS, min(_LEAST_DEFOCUS, series.defocus))
        acquisition["defocus"] = {"min": round(low, 2), "max": round(series.defocus + _DEFOCUS, 2)}
    tilts = scheme_of(series) or {"tilt_series": series.in_words()}
    stale = {"tilt_range", "tilt_min", "tilt_max", "tilt_step", "tilt_scheme", "tilt_start", "tilt_first"}
    stale |= {"tilt_group", "tilt_series"}
    acquisition |= dict.fromkeys(sorted(stale & set(below.acquisition))) | tilts
    ratio = sizes[0] / acquisition.get("voxel_size", sizes[0])
    groups: dict[str, dict[str, Any]] = {
        "train": {"number": 8},
        "check": {"number": 1, "split": "val"},
        "held-out": {"number": 1, "split": "test"},
    }
    groups = {group: {**words, **_without(below, group)} for group, words in groups.items()}
    return {
        "extends": template,
        "name": name,
        "description": f"tilt series as {series.name}",
        "shape": [max(8, round(n * ratio)) for n in below.shape],
        "acquisition": acquisition,
        "samples": {**dict.fromkeys(below.samples), **groups},
    }


def _without(below: Recipe, group: str) -> dict[str, None]:
    """Remove all keys of a group of the template except its number and split."""
    if group not in below.samples:
        return {}
    return dict.fromkeys(sorted(below.samples[group].model_fields_set - {"number", "split"}))


def _around(value: float, half: float, digits: int) -> dict[str, float]:
    return {"min": round(value - half, digits), "max": round(value + half, digits)}


def scheme_of(series: AcquiredSeries) -> dict[str, Any] | None:
    """Find the tilt scheme with the order of a series; None if there is none.

    The steps must be even within the accuracy of stages, and the doses equal.
    """
    if series.doses and max(series.doses) > (1 + _SAME_DOSE) * min(series.doses):
        return None
    angles = np.array(series.angles)[list(series.taken)]
    if len(angles) < 3:
        return None
    upwards = np.sort(angles)
    step = _neat(float(upwards[-1] - upwards[0]) / (len(angles) - 1))
    low = _neat(float(median(upwards - step * np.arange(len(angles)))))
    even = low + step * np.arange(len(angles))
    if step < 2 * _UNEVEN or np.abs(upwards - even).max() > _UNEVEN:
        return None
    taken = [round(float(even[np.abs(even - angle).argmin()]), 4) + 0.0 for angle in angles]
    if sorted(taken) != [round(float(angle), 4) + 0.0 for angle in even]:
        return None
    for scheme, negative, group in product(
        ("dose_symmetric", "bidirectional", "unidirectional"), (True, False), _GROUPS
    ):
        if (scheme == "dose_symmetric" or group == 1) and order(
            taken, scheme, taken[0], negative, group
        ) == taken:
            found = {
                "tilt_min": min(taken), "tilt_max": max(taken), "tilt_step": step, "tilt_scheme": scheme,
            }  # fmt: skip
            found |= {"tilt_start": taken[0]} if taken[0] and scheme != "unidirectional" else {}
            found |= {"tilt_first": "negative" if negative else "positive"}
            return found | ({"tilt_group": group} if group > 1 else {})
    return None


def _neat(value: float) -> float:
    """Round to a tenth of a degree if the change is below the accuracy of stages."""
    return round(value, 1) if abs(value - round(value, 1)) < 0.02 else round(value, 3)


def differences(acquisition: dict[str, Any], below: Recipe) -> list[str]:
    """List the parameters that change, one per line: value in the template -> new value."""
    lines = []
    for key, value in acquisition.items():
        if value is None:
            continue
        field = Acquisition.model_fields.get(key)
        before = below.acquisition.get(key, field.default if field else None)
        if before != value:
            lines.append(f"  {key:22} {_short(before):>16} -> {_short(value)}")
    return lines


def _short(value: Any) -> str:
    low, high = getattr(value, "min", None), getattr(value, "max", None)
    if isinstance(value, dict):
        low, high = value["min"], value["max"]
    if low is not None:
        return f"{low:g} to {high:g}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
