"""Ice contamination: ice that settles on the specimen from the air and in the microscope.

Lumps of ice are balls at random positions on both faces of the ice layer. They are not part of the scene,
which describes the inside of the ice. They have no label, and the tomogram shows at most their shadows at its
lower and upper ends. Both engines treat them like decorations, as bodies with a density.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan, cos, pi
from typing import ClassVar

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene.decoration_shapes import Bead, Layers
from tlgen.scene.materials import Material
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope.ice import layer
from tlgen.simulate.specimen import MOST_ATOMS

#: Hexagonal ice from atmospheric water, 0.917 g/cm³ (Petrenko & Whitworth, Physics of Ice, 1999).
ICE = Material("ice", 0.917, ((1, 2.0), (8, 1.0)))
#: Diameters are drawn between these multiples of ``contamination_size``.
SHARES = (0.5, 1.5)
_SQUARE_MICROMETRE = 1e8  # Å²


@dataclass(frozen=True)
class Lump(Bead):
    """A ball of ice on the specimen; the box does not cut it."""

    kind: ClassVar[str] = "lump"
    class_name: ClassVar[str] = "contamination"
    layers: ClassVar[Layers] = ((0.0, ICE),)
    free: ClassVar[bool] = True


def lumps(scene: Scene, acq: Acquisition, seed: int) -> tuple[Lump, ...]:
    """Draw the lumps over the box and its padding; they are the same for every tilt.

    Their number on each face has a Poisson distribution with a mean of ``contamination`` per µm². Their
    diameters are uniform between 0.5 and 1.5 times ``contamination_size``.

    Parameters
    ----------
    scene
        The scene; only its box is used.
    acq
        Amount and size of the contamination, and the orientation of the ice.
    seed
        Seed of the sample's simulation.
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
            # the ball touches the face at the point of the face nearest to the ball's centre
            above = height + slope * at + side * radius / cos(atan(slope))
            made.append(
                Lump((at, float(rng.uniform(-y / 2, y / 2)), above), radius, int(rng.integers(2**63)))
            )
    return tuple(made)


def added(scene: Scene, acq: Acquisition, seed: int) -> Scene:
    """Add the lumps to the scene's decorations, for engines only; lumps are not labelled."""
    found = lumps(scene, acq, seed)
    if not found:
        return scene
    names = (*scene.class_names, Lump.class_name)
    return replace(scene, decorations=(*scene.decorations, *found), class_names=names)


def expected_atoms(scene: Scene, acq: Acquisition) -> float:
    """Estimate the number of atoms in all lumps, averaged over seeds."""
    x, y = (length + 2 * acq.padding for length in scene.box[:2])
    number = 2 * acq.contamination * x * y / _SQUARE_MICROMETRE
    low, high = SHARES
    cubes = (high**4 - low**4) / (4 * (high - low))  # mean of the cube of a uniform variable
    return number * pi / 6 * acq.contamination_size**3 * cubes * ICE.atoms


def check_count(scene: Scene, acq: Acquisition) -> None:
    """Refuse contamination with too many atoms to hold in memory; for engines that need every atom.

    Raises
    ------
    InputError
        Gives the number of atoms, and says what to do.
    """
    atoms = expected_atoms(scene, acq)
    if atoms > MOST_ATOMS:
        raise InputError(
            f"contamination: it would be {atoms / 1e6:.0f} million atoms for engine: parakeet, which takes"
            f" {MOST_ATOMS / 1e6:.0f} million; request less contamination or smaller lumps, or use multislice"
        )
