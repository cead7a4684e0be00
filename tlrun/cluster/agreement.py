"""Check that workers have the same versions as this process: other versions would give other data."""

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

#: Packages whose versions must agree, besides Python's minor version.
PACKAGES = ("dask", "distributed", "numpy", DISTRIBUTION)

#: Dask topic under which a worker that leaves because of a mismatch says why.
REFUSALS = "tlrun-refusals"


def versions(constants: Sequence[str] = ()) -> dict[str, str]:
    """List the versions that this process runs.

    Parameters
    ----------
    constants
        Constants that must agree too, as ``package.module:NAME``.

    Returns
    -------
    dict
        Versions by name; "missing" where a package is not installed.
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
    """Name the first difference, e.g. ``runs numpy 2.3.1, and this program 2.4.6``; empty if none."""
    for name, mine in ours.items():
        other = theirs.get(name, "missing")
        if other != mine:
            what = name.rpartition(":")[2]
            return (
                f"runs {f'no {what}' if other == 'missing' else f'{what} {other}'}, and this program {mine}"
            )
    return ""


def check(client: Client, constants: Sequence[str] = ()) -> None:
    """Compare the workers that are connected with this process.

    Raises
    ------
    InputError
        Something differs; the message names the worker and the first difference.
    """
    ours = versions(constants)
    answers: dict[str, Any] = client.run(versions, tuple(constants), on_error="return")
    for address, theirs in answers.items():
        if isinstance(theirs, OSError):  # it has just died; its replacement is checked when it starts
            continue
        if isinstance(theirs, BaseException):  # most often, this program is not installed there
            found = f"cannot tell which versions it runs ({theirs})"
        else:
            found = difference(ours, theirs)
        if found:
            raise InputError(
                f"the worker at {address} {found}; give the workers the environment of this program"
            )


class RefuseOthers(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Closes workers that connect later and run other versions, and tells the client why."""

    def __init__(self, constants: Sequence[str]) -> None:
        self._ours, self._constants = versions(constants), tuple(constants)

    async def setup(self, worker: Any) -> None:
        """Compare versions; called on every worker as it starts."""
        if found := difference(self._ours, versions(self._constants)):
            text = f"the worker at {worker.address} was refused: it {found}"
            await worker.scheduler.log_event(topic=REFUSALS, msg=text)
            worker.loop.add_callback(worker.close, nanny=True, reason="tlrun-refused")
