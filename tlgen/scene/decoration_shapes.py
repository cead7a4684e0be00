"""Decorations: objects in the ice besides molecules, as geometry with a stated density.

Gold beads, vesicles, sheets of membrane and the edge of a carbon film. Each is a body that gives the distance
of any point from its surface, and the materials below that surface. Packing keeps molecules away from it,
labels are made from it, one engine integrates its potential, and the other one fills it with atoms, all from
the same few numbers.

Coordinates are x, y, z in Å from the centre of the box, as in :class:`tlgen.scene.scene.Scene`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from tlgen.scene.materials import BILAYER_THICKNESS, CARBON, GOLD, HEAD_THICKNESS, HEADS, TAILS, Material

Vector = tuple[float, float, float]
#: (depth in Å below the surface where it begins, material), from the surface inwards.
Layers = tuple[tuple[float, Material], ...]

_BILAYER: Layers = ((0.0, HEADS), (HEAD_THICKNESS, TAILS))


class Form(NamedTuple):
    """A body's surface in numbers, for compiled loops; see :func:`surface_distance`.

    Attributes
    ----------
    kind
        :data:`BALL`, :data:`BENT` or :data:`EDGE`.
    numbers
        (8,) parameters of that kind.
    """

    kind: int
    numbers: NDArray[np.float64]


#: Forms: shells and balls around a centre, sheets that may be flat, and a film around a hole.
BALL, BENT, EDGE = 0, 1, 2


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

    @property
    def form(self) -> Form:
        """Its surface in numbers."""

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

    @cached_property
    def form(self) -> Form:
        """See :attr:`Decoration.form`."""
        return _form(BALL, *self.centre, 0.0, self.radius)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        return _distances(self.form, points)

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

    @cached_property
    def form(self) -> Form:
        """See :attr:`Decoration.form`."""
        return _form(BALL, *self.centre, self.radius, self.thickness / 2)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        return _distances(self.form, points)

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

    @cached_property
    def form(self) -> Form:
        """See :attr:`Decoration.form`."""
        return _form(BENT, *self.point, *self.normal, self.curvature, self.thickness / 2)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        return _distances(self.form, points)

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

    @cached_property
    def form(self) -> Form:
        """See :attr:`Decoration.form`."""
        return _form(EDGE, *self.hole, self.radius, self.height, self.thickness / 2)

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :meth:`Decoration.distance`."""
        return _distances(self.form, points)

    def bounds(self) -> tuple[Vector, Vector]:
        """See :meth:`Decoration.bounds`."""
        half = self.thickness / 2
        return (-np.inf, -np.inf, self.height - half), (np.inf, np.inf, self.height + half)


def _form(kind: int, *numbers: float) -> Form:
    return Form(kind, np.array([*numbers, *[0.0] * (8 - len(numbers))]))


@numba.njit(cache=True, nogil=True)
def surface_distance(kind: int, numbers: NDArray[np.float64], x: float, y: float, z: float) -> float:
    """Measure how far a point is from a surface of a :class:`Form`; see :meth:`Decoration.distance`."""
    q = numbers
    if kind == EDGE:
        beside = q[2] - np.sqrt((x - q[0]) ** 2 + (y - q[1]) ** 2)
        above = abs(z - q[3]) - q[4]
        outside = np.sqrt(max(beside, 0.0) ** 2 + max(above, 0.0) ** 2)
        return float(outside + min(max(beside, above), 0.0))
    a, b, c = x - q[0], y - q[1], z - q[2]
    square = a * a + b * b + c * c
    if kind == BALL:
        return float(abs(np.sqrt(square) - q[3]) - q[4])
    # |v - normal / c| - 1 / c of a curvature c, written so that it holds for 0 and loses no digits near it
    bent = q[6]
    above = bent * square - 2 * (a * q[3] + b * q[4] + c * q[5])
    towards = (bent * a - q[3]) ** 2 + (bent * b - q[4]) ** 2 + (bent * c - q[5]) ** 2
    return float(abs(above / (np.sqrt(towards) + 1)) - q[7])


@numba.njit(cache=True, nogil=True)
def _measure(
    kind: int, numbers: NDArray[np.float64], points: NDArray[np.float64], far: NDArray[np.float64]
) -> None:
    for i in range(len(points)):
        far[i] = surface_distance(kind, numbers, points[i, 0], points[i, 1], points[i, 2])


def _distances(form: Form, points: NDArray[np.float64]) -> NDArray[np.float64]:
    far = np.empty(len(points))
    _measure(form.kind, form.numbers, np.asarray(points, np.float64), far)
    return far


#: Kinds by their word.
KINDS: dict[str, Any] = {each.kind: each for each in (Bead, Vesicle, Sheet, CarbonEdge)}
#: Classes of decorations, in the order in which a corpus numbers them.
CLASS_NAMES = ("membrane", "gold", "carbon")


def to_dict(decoration: Decoration) -> dict[str, Any]:
    """Convert a decoration to plain words and numbers; :func:`from_dict` restores it exactly."""
    fields: dict[str, Any] = asdict(decoration)  # type: ignore[call-overload]
    return {"kind": decoration.kind, **fields}


def from_dict(fields: dict[str, Any]) -> Decoration:
    """Convert plain words and numbers to a decoration.

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
