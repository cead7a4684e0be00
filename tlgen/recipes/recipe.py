"""The recipe, which describes a corpus to be made: its keys, their units and their defaults.

Unknown keys are refused everywhere, so that a misspelt setting is never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)

from catalogs.console import nearest
from catalogs.schema import Acquisition, Split
from catalogs.usual_values import USUAL
from tlgen.molecules.structure_file import is_map
from tlgen.recipes.bounds import check_box, check_count, check_samples
from tlgen.recipes.drawn import Drawn, Grid, Range
from tlgen.recipes.units import in_unit
from tlgen.reconstruct.settings import Reconstruction
from tlgen.scene.place_decorations import Decorations


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


#: A length in Å, or a string with a unit such as ``0.6 nm``.
Angstrom = Annotated[
    float, BeforeValidator(partial(in_unit, unit="Å")), WithJsonSchema({"type": ["number", "string"]})
]
#: A concentration in mg/ml, or a string with a unit such as ``300 g/l``.
Concentration = Annotated[
    float, BeforeValidator(partial(in_unit, unit="mg/ml")), WithJsonSchema({"type": ["number", "string"]})
]


class Variants(_Strict):
    """Flexible variants of a structure by normal modes."""

    number: int = Field(
        4, ge=0, le=int(USUAL["variants"].most), description="0 uses only the structure itself."
    )
    rmsd: tuple[Angstrom, Angstrom] = Field(
        (1.0, 4.0),
        description="The RMSD of each variant is drawn from this range.",
        json_schema_extra={"unit": "Å"},
    )
    modes: int = Field(
        20, ge=1, le=100, description="Number of the lowest non-trivial normal modes that are used."
    )
    scheme: Literal["thermal", "uniform"] = Field(
        "thermal",
        description="How amplitudes are drawn: `thermal`, variance as 1/eigenvalue; `uniform`, the paper's.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Variants:
        if not 0 < self.rmsd[0] <= self.rmsd[1]:
            raise ValueError("rmsd must be two positive numbers, the smaller one first")
        return self


class Structure(_Strict):
    """A structure file, a PDB id, or a density map that becomes a pseudo-atomic model."""

    file: str | None = Field(
        None,
        description="PDB, mmCIF or BinaryCIF; a name that `tlgen structures` prints; or a PDB id.",
    )
    assembly: str = Field(
        "first",
        description="`first` biological assembly, `asymmetric` unit, `models`, or an assembly's name.",
    )
    map: str | None = Field(None, description="Instead of `file`: a density map (MRC) of a molecule.")
    contour: float | None = Field(None, description="Grey level of the molecule's surface in the map.")
    resolution: Annotated[Angstrom, Field(gt=0)] | None = Field(
        None, description="Resolution of the map.", json_schema_extra={"unit": "Å"}
    )
    mass: float | None = Field(
        None, gt=0, description="Mass of the molecule in the map.", json_schema_extra={"unit": "kDa"}
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str) and is_map(value):
            return {"map": value}
        return {"file": str(value)} if isinstance(value, str | int) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": ["string", "integer"]}, handler.resolve_ref_schema(handler(core))]}

    @model_validator(mode="after")
    def _one_of_both(self) -> Structure:
        if (self.file is None) == (self.map is None):
            raise ValueError("give either a file (or PDB id) or a map")
        of_a_map = {"contour": self.contour, "resolution": self.resolution, "mass": self.mass}
        if self.map is None and (given := [key for key, value in of_a_map.items() if value is not None]):
            raise ValueError(f"{given[0]} needs a map, and {self.file} is not a map")
        return self

    @property
    def source(self) -> str:
        """The file, PDB id or map."""
        return self.file or self.map or ""


class Target(_Strict):
    """A class that the network learns."""

    structures: list[Structure] = Field(
        min_length=1, description="Structures of the same molecule, in one or more states."
    )
    count: int = Field(gt=0, description="Molecules in each tomogram, if they fit.")
    variants: Variants = Field(Variants(), description="Flexible variants of each structure.")


class Distractor(Structure):
    """A molecule that the network does not pick."""

    count: int = Field(gt=0, description="Molecules in each tomogram, if they fit.")


class DistractorSet(_Strict):
    """Many distractors at once: the paper's list, or all structure files of a folder."""

    set: Literal["paper"] | None = Field(
        None, description="`paper`: the 100 PDB entries of the template-learning paper, by id."
    )
    folder: str | None = Field(None, description="Instead of `set`: every structure file in it.")
    count: int = Field(
        1,
        gt=0,
        description="Copies of each structure in each tomogram; for the paper's list, times the frequency of "
        "the entry.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> DistractorSet:
        if (self.set is None) == (self.folder is None):
            raise ValueError("give either a set or a folder")
        return self


def _distractor(value: Any) -> Any:
    """Distinguish a set of distractors from a single one by its keys, so that errors name the right one."""
    if isinstance(value, str):
        return DistractorSet(set="paper") if value == "paper" else DistractorSet(folder=value)
    if isinstance(value, dict):
        model = DistractorSet if {"set", "folder"} & set(value) else Distractor
        return model.model_validate(value)
    return value


class Packing(_Strict):
    """How densely molecules are packed, and how many."""

    gap: Annotated[Angstrom, Field(ge=0)] = Field(
        6.0,
        description="The smallest distance between atoms of two molecules.",
        json_schema_extra={"unit": "Å"},
    )
    fill: Literal["counts", "saturation"] = Field(
        "counts",
        description="`counts`: the given numbers; `saturation`: as many as fit, with counts as shares.",
    )
    concentration: Annotated[Concentration, Field(gt=0)] | None = Field(
        None,
        description="Concentration of all molecules in the box, instead of `fill`; counts are shares.",
        json_schema_extra={"unit": "mg/ml"},
    )
    molecules: int | None = Field(
        None,
        gt=0,
        description="Number of all molecules, instead of `fill`; needs `ratio`; counts are shares.",
    )
    ratio: dict[str, float] | None = Field(
        None,
        description="Relative numbers of classes and of distractors, e.g. `{ribosome: 1, distractor: 3}`.",
    )
    faces: Literal["whole", "cut"] = Field(
        "whole", description="`cut`: molecules may extend beyond the box in x and y, as in a field of view."
    )
    seeding: Literal["cluster", "spread"] = Field(
        "spread",
        description="In a box that is not full: one cluster of molecules, or small clusters all "
        "over the box.",
    )
    orientations: int = Field(
        1,
        ge=1,
        le=100,
        description="Orientations tried for each molecule; the one with most contact is used. The paper: 1.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Packing:
        given = [key for key in ("concentration", "molecules") if getattr(self, key) is not None]
        given += ["fill"] if self.fill != "counts" else []
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both set the number of molecules; give one of them")
        if self.molecules is not None and self.ratio is None:
            raise ValueError("molecules needs ratio, which divides them among the classes")
        if self.ratio is not None and not given:
            raise ValueError("ratio needs molecules, concentration or fill: saturation")
        return self

    @property
    def asks_for_counts(self) -> bool:
        """Whether counts are numbers of molecules, and not shares."""
        return self.fill == "counts" and self.concentration is None and self.molecules is None


class Group(_Strict):
    """A group of samples with the same split and with settings of their own, added to those of the recipe."""

    number: int = Field(1, gt=0, description="Samples in the group; with `grid`, of each combination.")
    grid: Grid = Field({}, description="Lists of values; every combination of them is made `number` times.")
    split: Split = Field("train", description="Purpose of the samples; training never opens `test`.")
    shape: tuple[int, int, int] | None = Field(None, description="Voxels along z, y, x.")
    acquisition: Drawn = Field({}, description="Changes to the recipe's own.")
    packing: Packing | None = Field(None, description="Replaces the recipe's packing, e.g. for a dilute box.")
    scale_counts: float = Field(1.0, gt=0, description="Factor on all counts, e.g. for a smaller box.")

    @property
    def combinations(self) -> int:
        """Number of combinations in the grid."""
        product = 1
        for values in self.grid.values():
            product *= len(values)
        return product


class Keep(_Strict):
    """What is stored in a sample besides the tomogram, its labels and its particles."""

    tilt_images: bool = Field(True, description="The binned tilt series.")
    density: bool = Field(False, description="The density of the scene on the tomogram's voxels, Da/Å³.")


class Recipe(_Strict):
    """A corpus to be made."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", description="Letters, digits, dots and dashes.")
    description: str = Field("", description="Description for people; the program does not use it.")
    seed: int = Field(0, ge=0, description="Another seed gives other scenes and other acquisitions.")
    shape: tuple[int, int, int] = Field(description="Voxels along z, y, x.")
    targets: dict[str, Target] = Field(min_length=1, max_length=255, description="Classes by name.")
    distractors: Annotated[
        list[Annotated[Distractor | DistractorSet, BeforeValidator(_distractor)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field([], description="Other molecules in the box; `paper` or a folder for many at once.")
    packing: Packing = Field(Packing(), description="How densely the molecules are packed.")
    decorations: Decorations = Field(
        Decorations(),
        description="Membranes, vesicles, gold beads, a carbon edge; molecules are packed around them.",
    )
    keep: Keep = Field(Keep(), description="What is stored in each sample.")
    acquisition: Drawn = Field({}, description="The microscope, for all samples.")
    reconstruction: Reconstruction = Field(
        Reconstruction(), description="How tomograms are reconstructed, for all samples."
    )
    samples: dict[str, Group] = Field(min_length=1, description="Groups of samples by name.")
    unusual: list[str] = Field(
        [],
        description="Quantities whose unusual values are intended, such as `voxel_size`; see Usual values.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        if len(sizes := set(self._values("voxel_size"))) > 1:
            listed = ", ".join(f"{size:g}" for size in sorted(sizes))
            raise ValueError(
                f"acquisition.voxel_size must be one number, not {listed}: a corpus has one voxel size"
            )
        shapes = {"shape": self.shape, **{f"samples.{n}.shape": g.shape for n, g in self.samples.items()}}
        for key, packing in self.packings():
            self._check_ratio(key, packing)
        for name, shape in shapes.items():
            if shape is not None and min(shape) < 8:
                raise ValueError(f"{name} must be at least 8 voxels along each axis")
        for name in self.unusual:
            if name not in USUAL:
                raise ValueError(f"unusual names {name}, which is not a known quantity{nearest(name, USUAL)}")
        return self

    @model_validator(mode="after")
    def _can_be(self) -> Recipe:
        """Refuse boxes that are too small for any molecule, and numbers beyond all limits."""
        check_samples(sum(group.number * group.combinations for group in self.samples.values()))
        size = self.voxel_size
        for (name, shape, factor), group in zip(self.boxes(), self.samples.values(), strict=True):
            check_box(name, shape, size)
            for place, count in self._counts():
                room = (name, shape, size) if self.packing_of(group).asks_for_counts else None
                check_count(place, count, count * factor, room)
        return self

    def _check_ratio(self, key: str, packing: Packing) -> None:
        if packing.ratio is None:
            return
        groups = [*self.targets, *(["distractor"] if self.distractors else [])]
        for name in [*packing.ratio, *groups]:
            if name not in groups:
                raise ValueError(f"unknown key {key}.ratio.{name}{nearest(name, groups)}")
            if name not in packing.ratio:
                raise ValueError(f"{key}.ratio has no number for {name}; give one, or 0 for none")

    @property
    def voxel_size(self) -> float:
        """Å; a corpus has one."""
        return float(next(self._values("voxel_size")))

    def packing_of(self, group: Group) -> Packing:
        """Return the packing of a group."""
        return group.packing or self.packing

    def boxes(self) -> list[tuple[str, tuple[int, int, int], float]]:
        """List the boxes: the key of each, its voxels along z, y, x, and the factor on all counts."""
        return [
            (f"samples.{name}.shape" if g.shape else "shape", g.shape or self.shape, g.scale_counts)
            for name, g in self.samples.items()
        ]

    def _counts(self) -> Iterator[tuple[str, int]]:
        """Return all counts of molecules with their keys."""
        for name, target in self.targets.items():
            yield f"targets.{name}.count", target.count
        for k, entry in enumerate(self.distractors):
            yield f"distractors.{k}.count", entry.count
        for key, packing in self.packings():
            if packing.molecules is not None:
                yield f"{key}.molecules", packing.molecules

    def packings(self) -> Iterator[tuple[str, Packing]]:
        """Yield all packings with their keys."""
        yield "packing", self.packing
        for name, group in self.samples.items():
            if group.packing is not None:
                yield f"samples.{name}.packing", group.packing

    def _values(self, key: str) -> Iterator[Any]:
        """Return all values that a parameter of the acquisition may take."""
        for group in self.samples.values():
            words: Mapping[str, Any] = {**self.acquisition, **group.acquisition, **group.grid}
            value = words.get(key, Acquisition.model_fields[key].default)
            if isinstance(value, Range):
                yield from (value.min, value.max)
            else:
                yield from value if isinstance(value, list) else [value]
