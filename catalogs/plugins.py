"""Extensions by other packages: engines, networks, localisers, formats of particles and volumes.

A package adds an extension by an entry point, one line in its ``pyproject.toml``::

    [project.entry-points."template_learning.engines"]
    mine = "my_package.engine:Mine"

Built-in names cannot be replaced. A package that cannot be imported is reported and left out.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Literal, TypeVar

from catalogs import user_warnings
from catalogs.console import nearest
from catalogs.errors import InputError

Group = Literal["engines", "networks", "localisers", "particle_formats", "volume_formats"]
T = TypeVar("T")


class Known(Mapping[str, T], Generic[T]):
    """Registry of one kind of extension by name: the built-in ones, then those of installed packages.

    Parameters
    ----------
    group
        Group of the entry points, without ``template_learning.``.
    kind
        Word for one extension, for messages.
    ours
        Name -> a function that imports and returns it, so that nothing is imported before it is needed.
    parameter
        Parameter that takes such a name; None: there is none.
    """

    def __init__(
        self, group: Group, kind: str, ours: Mapping[str, Callable[[], T]], parameter: str | None = None
    ) -> None:
        self._group, self._kind, self._ours, self._parameter = group, kind, ours, parameter

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from (name for name in _added(self._group) if name not in self._ours)

    def __len__(self) -> int:
        return len(set(self._ours) | set(_added(self._group)))

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in _added(self._group)

    def __getitem__(self, name: str) -> T:
        if name in self._ours:
            return self._ours[name]()
        point = _added(self._group)[name]
        try:
            added: T = point.load()
        except Exception as error:  # another package may raise any exception
            raise InputError(
                f"the {self._kind} {name!r} of the package {_package(point)} cannot be loaded ({error}); "
                "update the package or remove it"
            ) from error
        return added

    def named(self, name: str) -> T:
        """Find an extension by its name.

        Raises
        ------
        InputError
            If the name is unknown (with the known names and the nearest one), or if its package cannot be
            loaded.
        """
        self.check(name)
        return self[name]

    def check(self, name: str) -> None:
        """Refuse an unknown name (InputError); nothing is loaded."""
        if name not in self:
            raise InputError(
                f"there is no {self._kind} {name!r}; use one of {', '.join(self)}{nearest(name, self)}",
                parameter=self._parameter,
            )

    def loadable(self) -> Iterator[T]:
        """Yield all in order; a package that cannot be loaded is left out with a warning."""
        for name in self:
            try:
                found = self[name]
            except InputError as error:
                user_warnings.warn(str(error))
                continue
            yield found


def _added(group: Group) -> dict[str, EntryPoint]:
    return _entry_points(group, tuple(sys.path))


@functools.lru_cache(maxsize=32)
def _entry_points(group: Group, _path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Find the installed packages; repeated only when the path has changed."""
    return {point.name: point for point in entry_points(group=f"template_learning.{group}")}


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
