"""The atoms of a scene, rotated to a tilt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules.molecule import Library, Molecule
from tlgen.scene import decoration_density
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope.potentials import KNOWN_ELEMENTS

#: Largest number of decoration atoms for an engine that needs every atom; MULTEM takes about 400 bytes each.
MOST_ATOMS = 20_000_000

#: Å; the tilted end of the ice counts as upright if its projection is narrower than this. A Fresnel zone is
#: about 20 Å at 2 µm defocus.
UPRIGHT = 100.0


def tilt_rotation(angle: float) -> Rotation:
    """Rotation by ``angle`` degrees about y; a positive angle rotates +z towards +x."""
    return Rotation.from_rotvec([0.0, np.radians(angle), 0.0])


def count_atoms(scene: Scene, library: Library) -> int:
    """Count the atoms of the whole scene."""
    return sum(library[scene.digests[k]].points.n_atoms for k in scene.which)


def check_count(scene: Scene) -> None:
    """Refuse decorations with too many atoms to hold in memory.

    Raises
    ------
    InputError
        Gives the number of atoms, and says what to do.
    """
    number = decoration_density.count_atoms(scene.decorations, scene.box)
    if number > MOST_ATOMS:
        kinds = ", ".join(sorted({decoration.class_name for decoration in scene.decorations}))
        raise InputError(
            f"decorations: {kinds} would be {number / 1e6:.0f} million atoms for engine: parakeet, which "
            f"takes {MOST_ATOMS / 1e6:.0f} million; use multislice, request fewer of "
            "them or make the box smaller"
        )


def check_elements(scene: Scene, library: Library) -> None:
    """Refuse atoms without a known scattering factor.

    Raises
    ------
    InputError
        Names the structure and the element.
    """
    import gemmi

    for k in np.unique(scene.which):
        elements = library[scene.digests[k]].elements
        strange = elements[(elements < KNOWN_ELEMENTS.start) | (elements >= KNOWN_ELEMENTS.stop)]
        if strange.size:
            number = int(strange[0])
            name = gemmi.Element(number).name if number else "of an unknown element (X)"
            raise InputError(
                f"structure {scene.names[k]}: no scattering factor is known for an atom {name}, "
                f"atomic number {number}; remove such atoms from the file"
            )


def ice_overhang(scene: Scene, angle: float, margin: float) -> float:
    """Distance in Å by which the block of ice extends beyond the box along x, on each side.

    At small tilts the end of the block would be upright at the edge of the image and cause a Fresnel fringe,
    so the block extends through the ``margin`` around the image. At larger tilts the end is a slope, which
    causes no fringe, and a longer block would only need more slices. (Along y the block always fills the
    margin, which costs nothing.)
    """
    slope = scene.box[2] * abs(np.sin(np.radians(angle)))
    return margin if slope < UPRIGHT else 0.0


def placed(scene: Scene, library: Library, angle: float) -> Iterator[tuple[Molecule, NDArray[np.float32]]]:
    """Yield each molecule with its atoms at a tilt: (n, 3) x, y, z in Å from the centre of the box.

    All atoms are points (:attr:`tlgen.molecules.molecule.Molecule.points`), weighted by their ``occupancy``.
    """
    tilt = tilt_rotation(angle)
    rotations = (tilt * Rotation.from_quat(scene.quaternions)).as_matrix() if len(scene.which) else ()
    positions = tilt.apply(scene.positions) if len(scene.which) else ()
    for k, matrix, position in zip(scene.which, rotations, positions, strict=True):
        molecule = library[scene.digests[k]].points
        yield molecule, molecule.positions @ matrix.T.astype(np.float32) + position.astype(np.float32)


def placed_decorations(scene: Scene, angle: float) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield the decorations' atoms at a tilt, in portions: elements, and positions as in :func:`placed`."""
    matrix = tilt_rotation(angle).as_matrix().T.astype(np.float32)
    for decoration in scene.decorations:
        for elements, xyz in decoration_density.atoms(decoration, scene.box):
            yield elements, xyz @ matrix
