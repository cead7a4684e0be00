"""Whether workers run what this process runs: another version of anything that counts gives other data."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin

from catalogs.console import DISTRIBUTION
from catalogs.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

#: What must be the same on both sides, besides Python's minor version.
PACKAGES = ("dask", "distributed", "numpy", DISTRIBUTION)

#: Topic under which a worker that refuses itself says why.
REFUSALS = "tlrun-refusals"


def versions(constants: Sequence[str] = ()) -> dict[str, str]:
    """Say what this process runs.

    Parameters
    ----------
    constants
        Constants that must agree too, as ``package.module:NAME``.

    Returns
    -------
    dict
        Versions by name; "missing" where there is no such thing.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    for constant in constants:
        module, _, name = constant.partition(":")
        try:
            found[constant] = str(getattr(import_module(module), name))
        except (ImportError, AttributeError):
            found[constant] = "missing"
    return found


def difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Name the first thing that differs, e.g. ``runs numpy 2.3.1, and this program 2.4.6``; or nothing."""
    for name, mine in ours.items():
        other = theirs.get(name, "missing")
        if other != mine:
            what = name.rpartition(":")[2]
            return (
                f"runs {f'no {what}' if other == 'missing' else f'{what} {other}'}, and this program {mine}"
            )
    return ""


def check(client: Client, constants: Sequence[str] = ()) -> None:
    """Compare the workers that are there with this process.

    Raises
    ------
    InputError
        Something differs; names the worker and the first thing that does.
    """
    ours = versions(constants)
    answers: dict[str, Any] = client.run(versions, tuple(constants), on_error="return")
    for address, theirs in answers.items():
        if isinstance(theirs, OSError):  # it has just died; what starts in its place is looked at then
            continue
        if isinstance(theirs, BaseException):  # most often, it has not this program
            found = f"cannot answer what it runs ({theirs})"
        else:
            found = difference(ours, theirs)
        if found:
            raise InputError(
                f"the worker at {address} {found}; give the workers the environment of this program"
            )


class RefuseOthers(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Closes a worker that comes later and runs something else, and tells the client why."""

    def __init__(self, constants: Sequence[str]) -> None:
        self._ours, self._constants = versions(constants), tuple(constants)

    async def setup(self, worker: Any) -> None:
        """Compare; called on every worker as it starts."""
        if found := difference(self._ours, versions(self._constants)):
            text = f"the worker at {worker.address} was refused: it {found}"
            await worker.scheduler.log_event(topic=REFUSALS, msg=text)
            worker.loop.add_callback(worker.close, nanny=True, reason="tlrun-refused")
