"""The engines by name."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.plugins import Known
from catalogs.schema import Acquisition
from tlgen.simulate.protocol import Engine
from tlgen.tilts.scheme import Tilt


def _parakeet() -> type[Engine]:
    from tlgen.simulate.parakeet import Parakeet

    return Parakeet


def _multislice() -> type[Engine]:
    from tlgen.simulate.multislice.multislice import Multislice

    return Multislice


#: The engines by name, those of other packages among them: classes that follow the protocol ``Engine``.
ENGINES: Known[type[Engine]] = Known(
    "engines", "engine", {"parakeet": _parakeet, "multislice": _multislice}, "engine"
)


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
    return ENGINES.named(name)()
