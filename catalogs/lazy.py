"""Lazy exports of a package: names are imported on first use, so that importing the package is quick."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def exports(
    package: str, names: Mapping[str, str], former: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package
        ``__name__`` of the package.
    names
        Exported name -> its module; ``module:name`` if it has another name there, and ``module:`` for the
        module itself.
    former
        Name of the version before -> the name now. It still works, with a warning, and is not listed.
    """

    def get(name: str) -> Any:
        if former and name in former:
            warnings.warn(f"{package}.{name} is called {former[name]} now", FutureWarning, stacklevel=2)
            return getattr(sys.modules[package], former[name])
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        where, _, attribute = names[name].partition(":")
        module = importlib.import_module(where)
        value = module if names[name].endswith(":") else getattr(module, attribute or name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *names})
