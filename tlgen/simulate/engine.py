"""The engines by name."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.simulate.protocol import Engine
from tlgen.tilts.scheme import Tilt

#: Names of the engines.
ENGINES = ("parakeet", "multislice")


def in_calls(
    simulator: Engine, acq: Acquisition, shape: tuple[int, int, int], tilts: Sequence[Tilt]
) -> list[Sequence[Tilt]]:
    """Divide the tilts of a scene of ``shape`` (z, y, x) voxels into those that an engine takes a call."""
    together = simulator.tilts_a_call(acq, shape)
    return [tilts[k : k + together] for k in range(0, len(tilts), together)]


def engine(name: str) -> Engine:
    """Find an engine by its name.

    Raises
    ------
    InputError
        If there is none of that name; says which was probably meant.
    """
    if name == "parakeet":
        from tlgen.simulate.parakeet import Parakeet

        return Parakeet()
    if name == "multislice":
        from tlgen.simulate.multislice.multislice import Multislice

        return Multislice()
    raise InputError(f"engine: {name!r} is not one of {', '.join(ENGINES)}{nearest(name, ENGINES)}")
