"""Names of tomograms and classes in lists that have only numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats.base import Context, stem
from catalogs.particle_table import DISTRACTOR


def number_tomograms(names: Iterable[str], context: Context) -> dict[str, int]:
    """Choose a number for every tomogram.

    It is taken from the context's list; without one, it is the number at the end of the name (``TS_03`` is 3)
    if these are distinct, else 1, 2, ... in order.

    Raises
    ------
    InputError
        If the list lacks a tomogram.
    """
    unique = list(dict.fromkeys(names))
    if context.tomograms:
        known = {name: number for number, name in context.tomograms.items()}
        missing = next((name for name in unique if name not in known), None)
        if missing is not None:
            raise InputError(
                f"the list of tomograms has no number for {missing!r}; add it or leave out the list"
            )
        return {name: known[name] for name in unique}
    ends = [re.search(r"(\d{1,6})$", name) for name in unique]
    numbers = [int(end.group(1)) for end in ends if end is not None]
    if len(set(numbers)) == len(unique) and 0 not in numbers:
        return dict(zip(unique, numbers, strict=True))
    return {name: k for k, name in enumerate(unique, start=1)}


def name_tomograms(numbers: Sequence[int], context: Context) -> list[str]:
    """Name the tomograms of a list: from the context's list, its single name, or the number itself."""
    unique = set(numbers)
    if context.tomogram is not None and len(unique) == 1 and not context.tomograms:
        return [context.tomogram] * len(numbers)
    return [context.tomograms.get(number, str(number)) for number in numbers]


def whole(values: Any, what: str) -> list[int]:
    """Return the whole numbers of a column, one for each particle.

    Raises
    ------
    InputError
        If one is not a whole number; the message names the particle.
    """
    numbers = np.asarray(values, np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers % 1 != 0))
    if len(wrong):
        value = numbers[wrong[0]]
        raise InputError(
            f"{what} of particle {wrong[0] + 1} is {value:g}, not a whole number; correct it there"
        )
    return [int(number) for number in numbers]


def classes_of_labels(labels: Sequence[int], context: Context) -> dict[str, Any]:
    """Make the columns label and class_name of a list that has labels only.

    If all labels are 0, the list does not use them; its particles get class 1, because 0 means a distractor
    here.
    """
    known = {info.label: info.name for info in context.classes}
    if len(labels) and not any(labels):
        labels = [1] * len(labels)
        known = {1: "particle"} | known
    names = [known.get(label, DISTRACTOR if label == 0 else f"class{label}") for label in labels]
    return {"label": np.asarray(labels, np.int64), "class_name": names}


def classes_of_names(names: Sequence[str], context: Context) -> dict[str, Any]:
    """Make the columns label and class_name of a list that has names only.

    Labels come from the context's classes; other names are numbered after the last of them.
    """
    known = {DISTRACTOR: 0} | {info.name: info.label for info in context.classes}
    for name in sorted(set(names) - set(known)):
        known[name] = max(known.values()) + 1
    return {"label": np.array([known[name] for name in names], np.int64), "class_name": list(names)}


def class_names_follow(table: pd.DataFrame, context: Context) -> bool:
    """Return whether the names of the classes follow from their labels alone."""
    made = classes_of_labels(list(table["label"]), context)
    return list(made["class_name"]) == list(table["class_name"])


def read_tomogram_list(path: str) -> dict[int, str]:
    """Read a list of numbers and names of tomograms.

    Two columns, number and name or path (Dynamo's ``.doc``), or one path a line, numbered from 1 (``.vll``).

    Raises
    ------
    InputError
        If it is neither.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.replace(",", " ").split() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list of tomograms {path} cannot be read ({error})") from error
    lines = [line for line in lines if not line[0].startswith(("#", "*", ">"))]
    if lines and all(len(line) == 1 for line in lines):
        return {k: stem(line[0]) for k, line in enumerate(lines, start=1)}
    if not lines or not all(len(line) >= 2 and line[0].isdigit() for line in lines):
        raise InputError(f"{path} is not a list of tomograms: give lines with a number and a name")
    numbered = {int(line[0]): stem(line[1]) for line in lines}
    if len(numbered) < len(lines):
        raise InputError(f"{path} gives a number to two tomograms; number them apart")
    return numbered
