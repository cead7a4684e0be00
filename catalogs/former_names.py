"""Renamed parameters: the former names still work in calls, and files keep them."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_TABLE = "__former_names__"


def accepts_former(**former: str) -> Callable[[T], T]:
    """Let the parameters of a function, or the fields of a dataclass, be given by their former names.

    A call with an old name gives a ``FutureWarning``. Instances of a dataclass also have the old names as
    attributes that can be read, and :func:`as_stored` uses them.

    Parameters
    ----------
    former
        Old name -> the name now.

    Returns
    -------
    callable
        A decorator.
    """

    def change(thing: T) -> T:
        if not isinstance(thing, type):
            return _translating(thing, thing.__name__, former)
        init = _translating(vars(thing)["__init__"], thing.__name__, former)
        setattr(thing, "__init__", init)  # noqa: B010
        setattr(thing, _TABLE, {name: old for old, name in former.items()})
        for old, name in former.items():
            setattr(thing, old, property(operator.attrgetter(name)))
        return thing

    return change


def _translating(function: T, called: str, former: Mapping[str, str]) -> T:
    @functools.wraps(function)
    def call(*args: Any, **words: Any) -> Any:
        return function(*args, **_now(called, former, words))

    return call  # type: ignore[return-value]


def _now(
    called: str, former: Mapping[str, str], words: Mapping[str, Any], stacklevel: int = 3
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for given, value in words.items():
        name = former.get(given, given)
        if name != given:
            if name in words:
                raise TypeError(f"{called} got both {name!r} and its old name {given!r}; give {name!r} only")
            warnings.warn(f"{called}: {given!r} is called {name!r} now", FutureWarning, stacklevel=stacklevel)
        found[name] = value
    return found


def names_now(settings: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate former names of the fields of a dataclass to the names now, with a warning."""
    former = {old: name for name, old in getattr(settings, _TABLE, {}).items()}
    return _now(type(settings).__name__, former, options, stacklevel=4)


def as_stored(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass under the names that files and fingerprints use.

    A renamed field keeps its first name there, so that files of other versions can be read, and finished work
    still counts as done.

    Parameters
    ----------
    settings
        An instance of a dataclass; its fields may be dataclasses too.
    """
    names = getattr(settings, _TABLE, {})
    found = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        found[names.get(each.name, each.name)] = as_stored(value) if is_dataclass(value) else value
    return found
