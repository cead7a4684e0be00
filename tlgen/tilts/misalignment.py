"""Alignment errors: images are simulated with the true geometry and reconstructed with the nominal one.

A shift or rotation of the whole specimen is not an alignment error, since it moves the whole tomogram. So the
part of the random errors that equals such a motion is removed, and labels stay on their molecules; the
remaining errors blur. The two constant errors do move the tomogram: a wrong tilt axis very little, while an
offset of all tilts rotates it by this angle about the axis; labels stay with the specimen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene.decoration_shapes import Bead, CarbonEdge, Decoration, Sheet, Vector, Vesicle
from tlgen.scene.scene import Scene
from tlgen.tilts.scheme import Tilt, TiltError


def misaligned(tilts: Sequence[Tilt], acq: Acquisition, seed: int) -> list[Tilt]:
    """Draw the errors of a series; if the acquisition has none, the tilts are returned unchanged.

    Parameters
    ----------
    tilts
        In the order of acquisition.
    acq
        With the size of the errors.
    seed
        Of the sample's alignment; each kind of error has its own generator, so that adding one does not
        change the others.
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
    """Move the scene so that an engine without errors sees it as the true geometry shows it.

    The true image shows the specimen rotated by ``Rz(axis + rotation) Ry(angle) Rz(-axis)`` and shifted; an
    engine rotates by ``Ry(angle)``, so the difference is applied to the scene. The block of ice does not
    move, since its random structure differs in every image anyway. A carbon film is shifted but not tilted.

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
        # a small rotation does not change its height at the middle of the box
        x, y, _ = place((*decoration.hole, 0.0))
        return replace(decoration, hole=(x, y), height=decoration.height + float(shift[2]))
    raise TypeError(f"a decoration of kind {decoration.kind} cannot be moved")
