"""Ice contamination: what settles on the specimen from the air and in the microscope.

Lumps of ice stand on both faces of the layer, anywhere, each a ball that touches it. They are no part of the
scene, which is what stands in the ice: they have no label, and the tomogram shows them, if at all, as shadows
at its lower and upper end. Both engines take them as bodies with a density, as they do decorations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan, cos, pi
from typing import ClassVar

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene.decorations import Bead, Layers
from tlgen.scene.materials import Material
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope.ice import layer
from tlgen.simulate.specimen import MOST_ATOMS

#: Ice of the air's water, 0.917 g/cm³ (Petrenko & Whitworth, Physics of Ice, 1999).
ICE = Material("ice", 0.917, ((1, 2.0), (8, 1.0)))
#: Diameters are drawn between these shares of the one that is asked for.
SHARES = (0.5, 1.5)
_SQUARE_MICROMETRE = 1e8  # Å²


@dataclass(frozen=True)
class Lump(Bead):
    """A ball of ice on the specimen, not cut by the box."""

    kind: ClassVar[str] = "lump"
    class_name: ClassVar[str] = "contamination"
    layers: ClassVar[Layers] = ((0.0, ICE),)
    free: ClassVar[bool] = True


def lumps(scene: Scene, acq: Acquisition, seed: int) -> tuple[Lump, ...]:
    """Draw the lumps over the box and the padding around it, the same ones for every tilt.

    Their number on each face is a Poisson number of ``contamination`` a µm², their diameters are even between
    half and one and a half times ``contamination_size``.

    Parameters
    ----------
    scene
        Its box.
    acq
        How many and how large, and how the ice lies.
    seed
        Of the sample's simulation.
    """
    if not acq.contamination:
        return ()
    rng = generator(seed, "contamination")
    x, y = (length + 2 * acq.padding for length in scene.box[:2])
    ice = layer(scene, acq)
    made = []
    for side, (height, slope) in ((1.0, ice.top), (-1.0, ice.bottom)):
        for _ in range(int(rng.poisson(acq.contamination * x * y / _SQUARE_MICROMETRE))):
            radius = acq.contamination_size / 2 * rng.uniform(*SHARES)
            at = float(rng.uniform(-x / 2, x / 2))
            # it touches the face where the face is nearest to its centre
            above = height + slope * at + side * radius / cos(atan(slope))
            made.append(
                Lump((at, float(rng.uniform(-y / 2, y / 2)), above), radius, int(rng.integers(2**63)))
            )
    return tuple(made)


def added(scene: Scene, acq: Acquisition, seed: int) -> Scene:
    """Put the lumps beside the scene's decorations; for engines only, labels know nothing of them."""
    found = lumps(scene, acq, seed)
    if not found:
        return scene
    names = (*scene.class_names, Lump.class_name)
    return replace(scene, decorations=(*scene.decorations, *found), class_names=names)


def expected_atoms(scene: Scene, acq: Acquisition) -> float:
    """Atoms of all lumps, on average over seeds."""
    x, y = (length + 2 * acq.padding for length in scene.box[:2])
    number = 2 * acq.contamination * x * y / _SQUARE_MICROMETRE
    low, high = SHARES
    cubes = (high**4 - low**4) / (4 * (high - low))  # mean of the cube of an even draw
    return number * pi / 6 * acq.contamination_size**3 * cubes * ICE.atoms


def check_count(scene: Scene, acq: Acquisition) -> None:
    """Refuse contamination of more atoms than memory holds as single ones; for engines of single atoms.

    Raises
    ------
    InputError
        Says how many they would be, and what to do.
    """
    atoms = expected_atoms(scene, acq)
    if atoms > MOST_ATOMS:
        raise InputError(
            f"contamination: it would be {atoms / 1e6:.0f} million atoms for engine: parakeet, which takes"
            f" {MOST_ATOMS / 1e6:.0f} million; ask for less or smaller lumps, or use multislice"
        )
