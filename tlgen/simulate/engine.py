"""Look up engines by name."""

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


#: The engines by name, including those of other packages: classes that follow the protocol ``Engine``.
ENGINES: Known[type[Engine]] = Known(
    "engines", "engine", {"parakeet": _parakeet, "multislice": _multislice}, "engine"
)


def in_calls(
    simulator: Engine, acq: Acquisition, shape: tuple[int, int, int], tilts: Sequence[Tilt]
) -> list[Sequence[Tilt]]:
    """Divide the tilts of a scene of ``shape`` (z, y, x) voxels into groups, one per call of an engine."""
    together = simulator.tilts_a_call(acq, shape)
    return [tilts[k : k + together] for k in range(0, len(tilts), together)]


def engine(name: str) -> Engine:
    """Find an engine by its name.

    Raises
    ------
    InputError
        If there is no engine of that name; suggests a similar name.
    """
    return ENGINES.named(name)()
