"""Checks for all engines: impossible settings and scenes are refused before anything is computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.molecules.molecule import Library, Molecule
from tlgen.scene.decoration_shapes import nearest
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import detectors, ice
from tlgen.simulate.microscope.potentials import KNOWN_ELEMENTS

#: Degrees; at this tilt the path through the ice is six times its thickness, and no stage tilts further.
STEEPEST_TILT = 80.0
#: kV and µm; values outside these limits were probably given in another unit.
VOLTAGES, LARGEST_DEFOCUS = (10.0, 3000.0), 100.0
#: Å; unbound atoms are never closer than this. Bonds are 1.2 Å or longer.
CLOSEST = 1.0
#: Å; how far atoms may stand out of the ice or into decorations, because packing uses voxels and not atoms.
SLACK = 5.0


def check_acquisition(acq: Acquisition) -> None:
    """Refuse settings that no microscope has.

    Raises
    ------
    InputError
        Names the setting, and says what to do.
    """
    low, high = VOLTAGES
    if not low <= acq.voltage <= high:
        raise InputError(f"voltage: no microscope has {acq.voltage:g} kV; give it in kV, such as 300")
    if abs(acq.defocus) > LARGEST_DEFOCUS:
        raise InputError(
            f"defocus: {acq.defocus:g} µm is beyond {LARGEST_DEFOCUS:g} µm; give it in µm, such as 2.5, or"
            " with its unit, such as 25000 Å"
        )
    for name in ("tilt_min", "tilt_max"):
        angle = getattr(acq, name) + acq.tilt_angle_offset
        if abs(angle) > STEEPEST_TILT:
            offset = " with tilt_angle_offset" if acq.tilt_angle_offset else ""
            raise InputError(
                f"{name}: a tilt of {angle:g}°{offset} is beyond {STEEPEST_TILT:g}°, where the beam runs"
                " along the ice; use a smaller tilt range"
            )
    ice.check(acq)
    detectors.check(acq)


def check_molecule(molecule: Molecule) -> None:
    """Refuse a structure with an atom without a known scattering factor.

    Raises
    ------
    InputError
        Names the structure and the element.
    """
    strange = [z for z in np.unique(molecule.elements).tolist() if z not in KNOWN_ELEMENTS]
    if strange:
        import gemmi

        raise InputError(
            f"structure {molecule.name}: no scattering factor is known for the element "
            f"{gemmi.Element(strange[0]).name}; remove such atoms from the file"
        )


def check_inside(scene: Scene, library: Library) -> None:
    """Refuse molecules and decorations outside the box, and molecules that stick out of the ice.

    The sides of the box may cut molecules, as the edge of a field of view does. Molecules must not stick out
    of the lower or upper face of the box, which are the faces of the ice. All faces may cut decorations.

    Raises
    ------
    InputError
        Names the first such molecule or decoration, and its position.
    """
    half = np.array(scene.box) / 2
    for decoration in scene.decorations:
        low, high = (np.array(corner) for corner in decoration.bounds())
        if (low > half).any() or (high < -half).any():
            raise InputError(
                f"a {decoration.kind} from ({', '.join(f'{v:.0f}' for v in low)}) to"
                f" ({', '.join(f'{v:.0f}' for v in high)}) Å from the centre is outside of the box of"
                f" {_lengths(scene)} Å; move or remove it"
            )
    reach = {k: library[scene.digests[k]].points.positions for k in np.unique(scene.which).tolist()}
    radius = {k: float(np.linalg.norm(xyz, axis=1).max(initial=0)) for k, xyz in reach.items()}
    for i, k in enumerate(scene.which.tolist()):
        position = scene.positions[i]
        where = f"molecule {i + 1}, {scene.names[k]}, at ({', '.join(f'{v:.0f}' for v in position)}) Å"
        if not np.isfinite(position).all() or (np.abs(position) - radius[k] > half).any():
            raise InputError(
                f"{where} from the centre, has no atom in the box of {_lengths(scene)} Å; move or remove it"
            )
        if abs(position[2]) + radius[k] <= half[2] + SLACK:
            continue
        out = float(np.abs(scene.atoms(i, library)[:, 2]).max() - half[2])
        if out > SLACK:
            raise InputError(
                f"{where} from the centre, extends {out:.0f} Å out of the ice, which is {scene.box[2]:.0f} Å"
                " thick; move it or make the box thicker"
            )


def check_overlaps(scene: Scene, library: Library, closest: float = CLOSEST) -> None:
    """Refuse molecules that overlap each other or decorations; for scenes that were not made by packing.

    Raises
    ------
    InputError
        Names the first two molecules with atoms closer to each other than ``closest`` Å, or the first
        molecule with atoms more than 5 Å below a decoration's surface.
    """
    if not len(scene.which):
        return
    for n in range(len(scene.which) if scene.decorations else 0):
        atoms = scene.atoms(n, library)
        for decoration in scene.decorations:
            deep = -float(nearest((decoration,), atoms).min(initial=np.inf))
            if deep > SLACK:
                raise InputError(
                    f"molecule {n + 1} ({scene.names[scene.which[n]]}) reaches {deep:.0f} Å into a"
                    f" {decoration.kind} ({decoration.class_name}); move one of them"
                )
    radius = {
        k: float(np.linalg.norm(library[scene.digests[k]].points.positions, axis=1).max(initial=0))
        for k in np.unique(scene.which).tolist()
    }
    radii = np.array([radius[k] for k in scene.which.tolist()])
    placed: dict[int, NDArray[np.float64]] = {}
    near = cKDTree(scene.positions).query_pairs(2 * radii.max() + closest, output_type="ndarray")
    for i, j in near[np.lexsort((near[:, 1], near[:, 0]))].tolist():
        between = scene.positions[j] - scene.positions[i]
        if np.linalg.norm(between) > radii[i] + radii[j] + closest:
            continue
        for n in (i, j):
            if n not in placed:
                placed[n] = scene.atoms(n, library)
        a, b = placed[i], placed[j]
        # only atoms within the other molecule's bounding sphere
        a = a[np.linalg.norm(a - scene.positions[j], axis=1) <= radii[j] + closest]
        b = b[np.linalg.norm(b - scene.positions[i], axis=1) <= radii[i] + closest]
        if not len(a) or not len(b):
            continue
        gap = float(cKDTree(a).query(b, distance_upper_bound=closest)[0].min())
        if gap < closest:
            names = [f"{n + 1} ({scene.names[scene.which[n]]})" for n in (i, j)]
            raise InputError(
                f"molecules {names[0]} and {names[1]} overlap: atoms of both are {gap:.1f} Å"
                " apart; move one of them"
            )


def _lengths(scene: Scene) -> str:
    return " x ".join(f"{length:.0f}" for length in scene.box)
