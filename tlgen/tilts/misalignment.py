"""Errors of an alignment: images are simulated as they truly are and reconstructed as they are believed.

A displacement or a turn of the whole specimen is no error of an alignment, since it moves the picture as a
whole; so the part of the random errors that one would explain is taken out, and labels stay where the
picture is. What is left blurs. The two constant errors do move the picture: a wrong tilt axis hardly, an
offset of all tilts turns it by as much about the axis, while labels stay with the specimen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene.decorations import Bead, CarbonEdge, Decoration, Sheet, Vector, Vesicle
from tlgen.scene.scene import Scene
from tlgen.tilts.scheme import Tilt, TiltError


def misaligned(tilts: Sequence[Tilt], acq: Acquisition, seed: int) -> list[Tilt]:
    """Draw the errors of a series; without any in the acquisition, the tilts come back as they are.

    Parameters
    ----------
    tilts
        In the order of acquisition.
    acq
        Says how large the errors are.
    seed
        Of the sample's alignment; each kind of error has a generator of its own, so that one more leaves
        the others as they were.
    """
    n = len(tilts)
    angles = np.array([tilt.angle for tilt in tilts])

    def normal(kind: str, deviation: float, known: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = generator(seed, kind).standard_normal(n) * deviation
        return drawn - known @ (np.linalg.pinv(known) @ drawn)

    one = np.ones((n, 1))
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    # a specimen displaced by (x, y, z) is seen displaced by (x cos + z sin, y)
    x = normal("shift x", acq.shift_error, np.stack([cos, sin], 1))
    y = normal("shift y", acq.shift_error, one)
    rotation = normal("rotation", acq.rotation_error, one)
    angle = normal("angle", acq.tilt_angle_error, one) + acq.tilt_angle_offset
    errors = [
        TiltError(float(a), acq.tilt_axis_error, float(r), (float(sx), float(sy)))
        for a, r, sx, sy in zip(angle, rotation, x, y, strict=True)
    ]
    return [replace(tilt, error=error) for tilt, error in zip(tilts, errors, strict=True)]


def table(tilts: Sequence[Tilt]) -> dict[str, NDArray[np.float32]] | None:
    """Errors of a series as arrays to be stored, in the order of the tilts; None if there are none.

    Returns
    -------
    dict
        ``angle_error`` (t,), ``axis_error`` (t,) and ``rotation_error`` (t,) in degrees, ``shift_error``
        (t, 2) x, y in Å; what each is, :class:`tlgen.tilts.scheme.TiltError` says.
    """
    errors = [tilt.error for tilt in tilts]
    if all(error == TiltError() for error in errors):
        return None
    return {
        "angle_error": np.array([error.angle for error in errors], np.float32),
        "axis_error": np.array([error.axis for error in errors], np.float32),
        "rotation_error": np.array([error.rotation for error in errors], np.float32),
        "shift_error": np.array([error.shift for error in errors], np.float32),
    }


def seen(scene: Scene, tilt: Tilt) -> tuple[Scene, Tilt]:
    """Move the scene to where an engine that knows of no errors sees it as the true geometry shows it.

    The true image is of the specimen turned by ``Rz(axis + rotation) Ry(angle) Rz(-axis)`` and shifted; an
    engine turns by ``Ry(angle)``, so what is between the two is done to the scene. The block of ice stays:
    its grain is another one in every image anyway. A film of carbon is displaced but not tipped.

    Returns
    -------
    Scene, Tilt
        To simulate; the tilt's angle is the true one.
    """
    error = tilt.error
    if error == TiltError():
        return scene, tilt
    angle = tilt.angle + error.angle
    turn = Rotation.from_euler("y", angle, degrees=True)
    before = Rotation.from_euler("z", -error.axis, degrees=True)
    after = Rotation.from_euler("z", error.axis + error.rotation, degrees=True)
    rotation = turn.inv() * after * turn * before
    shift = turn.inv().apply([*error.shift, 0.0])
    moved = scene
    if len(scene.which):
        quaternions = (rotation * Rotation.from_quat(scene.quaternions)).as_quat()
        moved = replace(scene, positions=rotation.apply(scene.positions) + shift, quaternions=quaternions)
    decorations = tuple(_moved(decoration, rotation, shift) for decoration in scene.decorations)
    return replace(moved, decorations=decorations), replace(tilt, angle=angle, error=TiltError())


def _moved(decoration: Decoration, rotation: Rotation, shift: NDArray[np.float64]) -> Decoration:
    def place(point: Sequence[float]) -> Vector:
        x, y, z = (float(v) for v in rotation.apply(point) + shift)
        return (x, y, z)

    if isinstance(decoration, Bead | Vesicle):
        return replace(decoration, centre=place(decoration.centre))
    if isinstance(decoration, Sheet):
        x, y, z = (float(v) for v in rotation.apply(decoration.normal))
        return replace(decoration, point=place(decoration.point), normal=(x, y, z))
    if isinstance(decoration, CarbonEdge):
        # its height is that at the middle of the box, where a small turn leaves it
        x, y, _ = place((*decoration.hole, 0.0))
        return replace(decoration, hole=(x, y), height=decoration.height + float(shift[2]))
    raise TypeError(f"a decoration of kind {decoration.kind} cannot be moved")
