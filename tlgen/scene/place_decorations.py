"""Read the decorations that a recipe asks for, and place them at random without overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)

from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from tlgen.recipes.units import in_unit
from tlgen.scene.decoration_shapes import CLASS_NAMES, Bead, CarbonEdge, Decoration, Sheet, Vector, Vesicle
from tlgen.scene.materials import BILAYER_THICKNESS, HEAD_THICKNESS

#: Places tried for each decoration before it is left out.
_TRIES = 200
#: Å; spacing of the points at which distances are compared, unless this gives too many points.
_SPACING = 16.0
_MOST_POINTS = 2_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _between(value: Any, read: Callable[[Any], Any]) -> Any:
    """Read one value, ``[low, high]`` or ``{min: low, max: high}`` as two values."""
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        value = [value["min"], value["max"]]
    ends = [read(end) for end in value] if isinstance(value, list | tuple) else [read(value)] * 2
    if len(ends) == 2 and all(isinstance(e, int | float) for e in ends) and ends[0] > ends[1]:
        raise ValueError(f"the smaller end must come first, not {ends[0]:g} and {ends[1]:g}")
    return tuple(ends)


_SCHEMA = WithJsonSchema({"type": ["number", "string", "array", "object"]})
#: Two lengths in Å between which one is drawn; one value, ``[low, high]`` or ``{min: low, max: high}``.
Lengths = Annotated[
    tuple[float, float], BeforeValidator(partial(_between, read=partial(in_unit, unit="Å"))), _SCHEMA
]
#: Two numbers between which one is drawn.
Numbers = Annotated[
    tuple[float, float], BeforeValidator(partial(_between, read=lambda value: value)), _SCHEMA
]
#: Two whole numbers between which one is drawn, both included.
Counts = Annotated[tuple[int, int], BeforeValidator(partial(_between, read=lambda value: value)), _SCHEMA]
_ANGSTROM: dict[str, Any] = {"unit": "Å"}


class _Some(_Strict):
    number: Counts = Field((1, 1), description="Number in each tomogram, if they fit.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        is_range = isinstance(value, dict) and set(value) == {"min", "max"}
        if isinstance(value, list | tuple) or is_range:
            return {"number": value}
        return {"number": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        short: dict[str, Any] = {"type": ["integer", "array"]}
        return {"anyOf": [short, handler.resolve_ref_schema(handler(core))]}

    @model_validator(mode="after")
    def _sensible(self) -> _Some:
        if self.number[0] < 0:
            raise ValueError("number must be zero or more")
        for name, value in self:
            if name not in ("number", "share") and not value[0] > 0:
                raise ValueError(f"{name} must be more than zero")
        return self


class _Membrane(_Some):
    thickness: Lengths = Field(
        (BILAYER_THICKNESS, BILAYER_THICKNESS),
        description="Thickness of both leaflets; each has 5 Å of head groups, the rest are tails.",
        json_schema_extra=_ANGSTROM,
    )

    @model_validator(mode="after")
    def _has_tails(self) -> _Membrane:
        if self.thickness[0] <= 2 * HEAD_THICKNESS:
            raise ValueError(
                f"thickness must be more than {2 * HEAD_THICKNESS:.1f} Å, that of the head groups"
            )
        return self


class Sheets(_Membrane):
    """Membranes through the whole box, at random orientations."""

    curvature_radius: Lengths = Field(
        (2e3, 2e4), description="Radius of the sphere on which a sheet lies.", json_schema_extra=_ANGSTROM
    )


class Vesicles(_Membrane):
    """Closed membranes. They stay between the faces of the ice and may be cut by the box's sides."""

    radius: Lengths = Field(
        (150.0, 400.0),
        description="Radius to the middle of the membrane; radii that are too large for the ice are not "
        "drawn.",
        json_schema_extra=_ANGSTROM,
    )

    @model_validator(mode="after")
    def _has_a_lumen(self) -> Vesicles:
        if self.radius[0] <= self.thickness[1]:
            raise ValueError("radius must be more than thickness")
        return self


class Beads(_Some):
    """Gold fiducials. They stay between the faces of the ice and may be cut by the box's sides."""

    radius: Lengths = Field(
        (45.0, 55.0), description="Radius of the ball; 50 Å for 10 nm gold.", json_schema_extra=_ANGSTROM
    )


class Carbon(_Some):
    """The edge of the support film: a part of the box lies on carbon, the rest over the hole."""

    number: Counts = Field((1, 1), description="0 or 1; `[0, 1]`: in every other tomogram.")
    share: Numbers = Field(
        (0.05, 0.3), description="Approximate share of the box's area that the film covers."
    )
    thickness: Lengths = Field((100.0, 200.0), description="Of the film.", json_schema_extra=_ANGSTROM)
    hole_radius: Lengths = Field((6e3, 1e4), description="Of the hole.", json_schema_extra=_ANGSTROM)

    @model_validator(mode="after")
    def _one_edge(self) -> Carbon:
        if self.number[1] > 1:
            raise ValueError("number must be 0 or 1: a box has one edge of carbon")
        if not 0 < self.share[0] <= self.share[1] < 1:
            raise ValueError("share must be between 0 and 1")
        return self


class Decorations(_Strict):
    """Objects in the ice besides molecules; see :mod:`tlgen.scene.decoration_shapes`."""

    carbon: Carbon | None = Field(None, description="Edge of the support film.")
    sheets: Sheets | None = Field(None, description="Membranes through the box.")
    vesicles: Vesicles | None = Field(None, description="Closed membranes.")
    beads: Beads | None = Field(None, description="Gold fiducials.")
    gap: Annotated[float, BeforeValidator(partial(in_unit, unit="Å")), Field(ge=0)] = Field(
        10.0, description="The smallest distance between two of them.", json_schema_extra=_ANGSTROM
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of these decorations, in the order in which a corpus numbers them."""
        asked = {
            "membrane": self.sheets or self.vesicles,
            "gold": self.beads,
            "carbon": self.carbon,
        }
        return tuple(name for name in CLASS_NAMES if asked[name])


def class_infos(spec: Decorations, targets: Sequence[ClassInfo]) -> list[ClassInfo]:
    """Describe the classes of decorations, numbered after the targets'.

    Their ``radius`` is that of the mean bead, and half the mean thickness of a membrane or film.

    Raises
    ------
    InputError
        If a target has the name of such a class, or there are more than 255 classes.
    """
    thick = [m.thickness for m in (spec.sheets, spec.vesicles) if m]
    radii = {
        "membrane": float(np.mean(thick)) / 2 if thick else 0.0,
        "gold": float(np.mean(spec.beads.radius)) if spec.beads else 0.0,
        "carbon": float(np.mean(spec.carbon.thickness)) / 2 if spec.carbon else 0.0,
    }
    label = max((info.label for info in targets), default=0)
    if label + len(spec.class_names) > 255:
        raise InputError("decorations: a corpus has at most 255 classes with theirs; use fewer targets")
    taken = {info.name for info in targets} & set(spec.class_names)
    if taken:
        raise InputError(
            f"targets: the class {min(taken)} has the name of a decoration's class; give it another one"
        )
    return [
        ClassInfo(name=name, label=label + k, radius=round(radii[name], 1), is_particle=False)
        for k, name in enumerate(spec.class_names, start=1)
    ]


def place(
    spec: Decorations, box: tuple[float, float, float], *, seed: int
) -> tuple[tuple[Decoration, ...], dict[str, int]]:
    """Draw decorations and place them at random, at least the gap apart.

    A decoration that finds no place in 200 tries is left out.

    Parameters
    ----------
    spec
        The decorations of the recipe.
    box
        Lengths of the box along x, y, z in Å.
    seed
        The same seed gives the same decorations, anywhere.

    Returns
    -------
    decorations : tuple of Decoration
        In the order of placement: carbon, sheets, vesicles, beads.
    asked : dict
        Class -> how many were drawn; fewer may have been placed.

    Raises
    ------
    InputError
        If the smallest vesicle, bead or film is larger than the ice is thick.
    """
    check_fit(spec, box[2])
    free = _Free(box, spec.gap)
    asked = dict.fromkeys(spec.class_names, 0)
    placed: list[Decoration] = []
    wanted: tuple[tuple[_Some | None, Callable[..., Decoration]], ...] = (
        (spec.carbon, _carbon), (spec.sheets, _sheet), (spec.vesicles, _vesicle), (spec.beads, _bead),
    )  # fmt: skip
    for some, draw in wanted:
        if some is None:
            continue
        rng = generator(seed, "decorations", type(some).__name__)
        for _ in range(int(rng.integers(some.number[0], some.number[1] + 1))):
            for attempt in range(_TRIES):
                decoration = draw(some, box, rng)
                if attempt == 0:
                    asked[decoration.class_name] += 1
                if free.take(decoration):
                    placed.append(decoration)
                    break
    return tuple(placed), asked


def check_fit(spec: Decorations, height: float) -> None:
    """Refuse decorations that do not fit into a box of this height (Å); InputError as in :func:`place`."""
    least = {
        "vesicles": 2 * spec.vesicles.radius[0] + spec.vesicles.thickness[1] if spec.vesicles else 0.0,
        "beads": 2 * spec.beads.radius[0] if spec.beads else 0.0,
        "carbon": spec.carbon.thickness[0] if spec.carbon else 0.0,
    }
    for name, needed in least.items():
        if needed > height:
            raise InputError(
                f"decorations.{name}: the smallest needs {needed:.0f} Å along z and the box has "
                f"{height:.0f} Å; ask for smaller ones or make the box thicker"
            )


class _Free:
    """Points all over the box, and their distances to the decorations that were placed."""

    def __init__(self, box: tuple[float, float, float], gap: float) -> None:
        spacing = max(_SPACING, (float(np.prod(box)) / _MOST_POINTS) ** (1 / 3))
        counts = np.ceil(np.array(box) / spacing).astype(np.int64)
        self.edges, self.corner = np.array(box) / counts, -np.array(box) / 2
        axes = [
            low + (np.arange(n) + 0.5) * edge
            for low, n, edge in zip(self.corner, counts, self.edges, strict=True)
        ]
        #: (nx, ny, nz, 3)
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        self.near = (
            float(np.linalg.norm(self.edges)) / 2
        )  # every place in the box has a point as near as this
        self.gap = gap
        self.taken: NDArray[np.float64] = np.full(self.points.shape[:3], np.inf)

    def take(self, decoration: Decoration) -> bool:
        """Place a decoration, unless some place in the box would be within the gap of two bodies.

        Wherever it reaches, a point stands within ``near``; so if such points are farther than the gap and
        ``near`` from all others, no two bodies can come nearer than the gap.
        """
        counts = self.taken.shape
        low, high = (
            np.clip((np.array(bound) - self.corner) / self.edges, -1e6, 1e6) for bound in decoration.bounds()
        )
        first = np.clip(np.floor(low - self.near / self.edges), 0, counts).astype(int)
        end = np.clip(np.ceil(high + self.near / self.edges), 0, counts).astype(int)
        region = tuple(slice(a, b) for a, b in zip(first, end, strict=True))
        far = decoration.distance(self.points[region].reshape(-1, 3))
        others = self.taken[region].ravel()
        if (others[far <= self.near] < self.gap + self.near).any():
            return False
        distance = decoration.distance(self.points.reshape(-1, 3)).reshape(counts)
        np.minimum(self.taken, distance, out=self.taken)
        return True


def _within(ends: tuple[float, float], rng: np.random.Generator) -> float:
    return float(rng.uniform(*ends))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return (x, y, z)


def _between_faces(box: tuple[float, float, float], reach: float, rng: np.random.Generator) -> Vector:
    """Draw a centre in the box, so that a body of this size fits between the faces of the ice."""
    x, y, z = box
    room = np.array([x, y, max(z - 2 * reach, 0.0)])
    return _vector(rng.uniform(-0.5, 0.5, 3) * room)


def _bead(spec: Beads, box: tuple[float, float, float], rng: np.random.Generator) -> Bead:
    radius = _within((spec.radius[0], min(spec.radius[1], box[2] / 2)), rng)
    return Bead(_between_faces(box, radius, rng), radius, _seed(rng))


def _vesicle(spec: Vesicles, box: tuple[float, float, float], rng: np.random.Generator) -> Vesicle:
    thickness = _within(spec.thickness, rng)
    radius = _within((spec.radius[0], min(spec.radius[1], (box[2] - thickness) / 2)), rng)
    return Vesicle(_between_faces(box, radius + thickness / 2, rng), radius, thickness, _seed(rng))


def _sheet(spec: Sheets, box: tuple[float, float, float], rng: np.random.Generator) -> Sheet:
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    point = _vector(rng.uniform(-0.5, 0.5, 3) * np.array(box))
    curvature = 1 / _within(spec.curvature_radius, rng)
    return Sheet(point, _vector(normal), curvature, _within(spec.thickness, rng), _seed(rng))


def _carbon(spec: Carbon, box: tuple[float, float, float], rng: np.random.Generator) -> CarbonEdge:
    thickness = _within((spec.thickness[0], min(spec.thickness[1], box[2])), rng)
    radius, share, azimuth = (
        _within(spec.hole_radius, rng),
        _within(spec.share, rng),
        rng.uniform(0, 2 * np.pi),
    )
    towards = np.array([np.cos(azimuth), np.sin(azimuth)])
    # where a straight edge would have this share of the area beyond it
    corners = np.stack(
        np.meshgrid(np.linspace(-0.5, 0.5, 65) * box[0], np.linspace(-0.5, 0.5, 65) * box[1]), -1
    )
    edge = float(np.quantile(corners.reshape(-1, 2) @ towards, 1 - share))
    hole = towards * (edge - radius)
    height = float(rng.uniform(-0.5, 0.5)) * (box[2] - thickness)
    return CarbonEdge((float(hole[0]), float(hole[1])), radius, height, thickness, _seed(rng))
