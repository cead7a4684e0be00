"""Decorations: what stands in the ice beside molecules, as geometry with a stated density.

Gold beads, vesicles, sheets of membrane and the edge of a carbon film. Each is a body that tells how far any
point is from its surface, and which materials lie below that surface. Packing keeps molecules away from it,
labels are drawn from it, one engine integrates its potential and the other one fills it with atoms, all from
the same few numbers.

Coordinates are x, y, z in Å from the centre of the box, as in :class:`tlgen.scene.scene.Scene`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.scene.materials import BILAYER_THICKNESS, CARBON, GOLD, HEAD_THICKNESS, HEADS, TAILS, Material

Vector = tuple[float, float, float]
#: (depth in Å below the surface where it begins, material), from the surface inwards.
Layers = tuple[tuple[float, Material], ...]

_BILAYER: Layers = ((0.0, HEADS), (HEAD_THICKNESS, TAILS))


class Decoration(Protocol):
    """A body in the ice."""

    @property
    def kind(self) -> str:
        """Word for what it is: ``bead``, ``vesicle``, ``sheet`` or ``carbon``."""

    @property
    def class_name(self) -> str:
        """Class that its voxels are labelled with."""

    @property
    def layers(self) -> Layers:
        """Materials below the surface."""

    @property
    def seed(self) -> int:
        """Of the places of its atoms."""

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Measure how far points are from the surface.

        Parameters
        ----------
        points
            (n, 3) x, y, z in Å from the centre of the box.

        Returns
        -------
        ndarray
            (n,) Å; negative inside of the material. Exact outside of it.
        """

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest x, y, z of the body in Å; infinite where it goes on."""


@dataclass(frozen=True)
class Bead:
    """A ball of gold, as fiducial markers are.

    Attributes
    ----------
    centre
        x, y, z in Å.
    radius
        Å.
    seed
        Of the crystal's orientation and place.
    """

    centre: Vector
    radius: float
    seed: int = 0
    kind: ClassVar[str] = "bead"
    class_name: ClassVar[str] = "gold"
    layers: ClassVar[Layers] = ((0.0, GOLD),)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        return np.asarray(np.linalg.norm(points - np.array(self.centre), axis=1) - self.radius)

    def bounds(self) -> tuple[Vector, Vector]:
        """See :meth:`Decoration.bounds`."""
        return _around(self.centre, self.radius)


@dataclass(frozen=True)
class Vesicle:
    """A closed bilayer around a lumen, which is not part of it.

    Attributes
    ----------
    centre
        x, y, z in Å.
    radius
        Å from the centre to the middle between the leaflets.
    thickness
        Å through both leaflets; the head groups keep theirs, the tails take the rest.
    seed
        Of the places of the atoms.
    """

    centre: Vector
    radius: float
    thickness: float = BILAYER_THICKNESS
    seed: int = 0
    kind: ClassVar[str] = "vesicle"
    class_name: ClassVar[str] = "membrane"
    layers: ClassVar[Layers] = _BILAYER

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        far = np.linalg.norm(points - np.array(self.centre), axis=1)
        return np.asarray(np.abs(far - self.radius) - self.thickness / 2)

    def bounds(self) -> tuple[Vector, Vector]:
        """See :meth:`Decoration.bounds`."""
        return _around(self.centre, self.radius + self.thickness / 2)


@dataclass(frozen=True)
class Sheet:
    """A bilayer through the whole box, flat or on a large sphere.

    Attributes
    ----------
    point
        x, y, z in Å of a point in the middle between the leaflets.
    normal
        Unit vector at that point, towards the centre of curvature.
    curvature
        One over the radius in Å of the sphere that the sheet lies on; 0 for a flat one.
    thickness
        Å through both leaflets; the head groups keep theirs, the tails take the rest.
    seed
        Of the places of the atoms.
    """

    point: Vector
    normal: Vector
    curvature: float = 0.0
    thickness: float = BILAYER_THICKNESS
    seed: int = 0
    kind: ClassVar[str] = "sheet"
    class_name: ClassVar[str] = "membrane"
    layers: ClassVar[Layers] = _BILAYER

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        v, normal = points - np.array(self.point), np.array(self.normal)
        # |v - normal / c| - 1 / c, written so that it holds for c = 0 and loses no digits near it
        square = np.einsum("ij,ij->i", v, v)
        above = self.curvature * square - 2 * (v @ normal)
        far = above / (np.linalg.norm(self.curvature * v - normal, axis=1) + 1)
        return np.asarray(np.abs(far) - self.thickness / 2)

    def bounds(self) -> tuple[Vector, Vector]:
        """See :meth:`Decoration.bounds`."""
        return (-np.inf, -np.inf, -np.inf), (np.inf, np.inf, np.inf)


@dataclass(frozen=True)
class CarbonEdge:
    """The support film around a round hole whose edge crosses the box.

    Attributes
    ----------
    hole
        x, y in Å of the centre of the hole.
    radius
        Å; of the hole.
    height
        z in Å of the middle of the film.
    thickness
        Å; of the film.
    seed
        Of the places of the atoms.
    """

    hole: tuple[float, float]
    radius: float
    height: float
    thickness: float
    seed: int = 0
    kind: ClassVar[str] = "carbon"
    class_name: ClassVar[str] = "carbon"
    layers: ClassVar[Layers] = ((0.0, CARBON),)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        beside = self.radius - np.linalg.norm(points[:, :2] - np.array(self.hole), axis=1)
        above = np.abs(points[:, 2] - self.height) - self.thickness / 2
        outside = np.hypot(np.maximum(beside, 0), np.maximum(above, 0))
        return np.asarray(outside + np.minimum(np.maximum(beside, above), 0))

    def bounds(self) -> tuple[Vector, Vector]:
        """See :meth:`Decoration.bounds`."""
        half = self.thickness / 2
        return (-np.inf, -np.inf, self.height - half), (np.inf, np.inf, self.height + half)


#: Kinds by their word.
KINDS: dict[str, Any] = {each.kind: each for each in (Bead, Vesicle, Sheet, CarbonEdge)}
#: Classes of decorations, in the order in which a corpus numbers them.
CLASS_NAMES = ("membrane", "gold", "carbon")


def to_dict(decoration: Decoration) -> dict[str, Any]:
    """Turn a decoration into plain words and numbers; :func:`from_dict` brings it back to the bit."""
    fields: dict[str, Any] = asdict(decoration)  # type: ignore[call-overload]
    return {"kind": decoration.kind, **fields}


def from_dict(fields: dict[str, Any]) -> Decoration:
    """Plain words and numbers -> decoration.

    Raises
    ------
    InputError
        If the kind is unknown, or a number is missing or makes no sense.
    """
    rest = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    kind = rest.pop("kind", None)
    if kind not in KINDS:
        raise InputError(f"{kind!r} is not a kind of decoration; give one of {', '.join(KINDS)}")
    try:
        made: Decoration = KINDS[kind](**rest)
    except TypeError as error:
        raise InputError(f"a decoration of kind {kind!r} does not have its numbers ({error})") from error
    for name, value in rest.items():
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise InputError(f"a decoration of kind {kind!r} has the {name} {value}; give numbers")
        if name in ("radius", "thickness") and not (isinstance(value, int | float) and value > 0):
            raise InputError(f"a decoration of kind {kind!r} has the {name} {value}; it must be positive")
    return made


def nearest(decorations: tuple[Decoration, ...], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far points are from the nearest of several decorations: (n,) Å, negative inside.

    Infinite if there are none.
    """
    far = np.full(len(points), np.inf)
    for decoration in decorations:
        np.minimum(far, decoration.distance(points), out=far)
    return far


def _around(centre: Vector, reach: float) -> tuple[Vector, Vector]:
    x, y, z = centre
    return (x - reach, y - reach, z - reach), (x + reach, y + reach, z + reach)
