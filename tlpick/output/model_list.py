"""What ``tlpick models`` prints: the models that can be used by name, and one of them in words."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.console import counted, nearest
from catalogs.errors import InputError
from catalogs.model_sources import Listed, listed, shipped, write_index


def lines(places: Sequence[str] | None) -> list[str]:
    """List the models of some sources, or of all that are known, a line each with where it comes from."""
    found = listed(places)
    if not found:
        return ["no models: this installation has none, and $TLPICK_MODELS names no source"]
    width = max(len(each.name) for each in found)
    rows = []
    for each in found:
        origin = "" if each.source == shipped() else f"  [{each.source}]"
        rows.append(f"{each.name:{width}}  {each.entry.summary}{origin}")
    return [
        *rows,
        f"tlpick models {found[0].name}   what it was trained and tested on, and what it cannot do",
        f"tlpick run {found[0].name} TOMOGRAM --to picks",
    ]


def described(name: str, places: Sequence[str] | None) -> list[str]:
    """Describe a model in words, or by its card where nobody wrote any.

    Raises
    ------
    InputError
        No source has a model of that name.
    """
    known: dict[str, Listed] = {each.name: each for each in listed(places)}
    if name not in known:
        raise InputError(
            f"there is no model of the name {name}{nearest(name, known)}; `tlpick models` lists the models"
        )
    model = known[name]
    file = model.file()
    words = model.words()
    return [
        *(words.rstrip().splitlines() if words else [f"{name}: {model.entry.summary}"]),
        "",
        f"file: {file}",
        f"sha256: {model.entry.sha256}",
        f"its card in figures: tltrain info {name}",
    ]


def indexed(folder: str, name: str | None, places: Sequence[str]) -> list[str]:
    """Make a folder of models a source, and say how it is used.

    Raises
    ------
    InputError
        The folder holds no models, or more was asked for.
    """
    if name is not None or places:
        raise InputError("`index` writes a list and shows none; give it alone", parameter="index")
    made = write_index(folder)
    return [
        f"{folder}/models.json lists {counted(len(made), 'model')}: {', '.join(each.name for each in made)}",
        f"to use them by name: export TLPICK_MODELS={folder}",
    ]
