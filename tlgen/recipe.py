"""The recipe: what corpus to make, validated, and expanded to samples that are named by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

import catalogs
from catalogs import seeds
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import Acquisition, Split

#: Changes when the same recipe would give different data, so that old samples are not taken for new ones.
DATA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Range:
    """A value drawn uniformly for each sample: ``{min: 2, max: 4}``."""

    min: float
    max: float


Scalar = bool | int | float | str


def _drawn(value: Any) -> Any:
    """Read a parameter of the acquisition: a value, a list to choose from, or a range."""
    if isinstance(value, Scalar):
        return value
    if isinstance(value, list) and value and all(isinstance(v, Scalar) for v in value):
        return value
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        low, high = value["min"], value["max"]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
            raise ValueError("min and max must be numbers")
        if low > high:
            raise ValueError("min must not be larger than max")
        return Range(low, high)
    raise ValueError(f"give a value, a list to choose from or {{min: , max: }}, not {value!r}")


#: One value for all samples, a list to choose from, or a range.
Drawn = Annotated[Any, BeforeValidator(_drawn)]


class Variants(_Strict):
    """Flexible variants of a structure by normal modes."""

    number: int = Field(4, ge=0, description="0: the structure as it is.")
    rmsd: tuple[float, float] = Field((1.0, 4.0), description="Å; each variant's RMSD is drawn between them.")
    modes: int = Field(20, ge=1, le=100, description="Lowest non-trivial normal modes.")

    @model_validator(mode="after")
    def _ordered(self) -> Variants:
        if not 0 < self.rmsd[0] <= self.rmsd[1]:
            raise ValueError("rmsd must be two positive numbers, the smaller one first")
        return self


class Structure(_Strict):
    """A structure file, or the name of one that an installed package ships."""

    file: str = Field(description="PDB or mmCIF, plain or gzipped, or a name that `tlgen structures` prints.")
    assembly: str = Field(
        "first",
        description="`first` biological assembly, `asymmetric` unit, or an assembly's name in the file.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"file": str(value)} if isinstance(value, str | int) else value


class Target(_Strict):
    """A class that the network shall learn."""

    structures: list[Structure] = Field(
        min_length=1, description="Of the same molecule, in any of its states."
    )
    count: int = Field(gt=0, description="Molecules in each tomogram, as far as they fit.")
    variants: Variants = Field(Variants(), description="Flexible variants of each structure.")


class Distractor(Structure):
    """A molecule that the network shall leave alone."""

    count: int = Field(gt=0, description="Molecules in each tomogram, as far as they fit.")


class Packing(_Strict):
    """How densely molecules stand."""

    gap: float = Field(6.0, ge=0, description="Å; the least distance between atoms of two molecules.")


class Group(_Strict):
    """Samples that share a split and what the recipe says of them on top of the recipe's own."""

    number: int = Field(gt=0, description="Samples in the group.")
    split: Split = Field("train", description="What the samples are for; training never opens `test`.")
    shape: tuple[int, int, int] | None = Field(None, description="Voxels along z, y, x.")
    acquisition: dict[str, Drawn] = Field({}, description="On top of the recipe's own.")
    scale_counts: float = Field(1.0, gt=0, description="Factor on all counts, e.g. for a smaller box.")


class Recipe(_Strict):
    """A corpus to be made."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", description="Letters, digits, dots and dashes.")
    seed: int = Field(0, ge=0, description="Another one gives other scenes and other acquisitions.")
    shape: tuple[int, int, int] = Field(description="Voxels along z, y, x.")
    targets: dict[str, Target] = Field(min_length=1, max_length=255, description="Classes by name.")
    distractors: list[Distractor] = Field([], description="Other molecules of the scene.")
    packing: Packing = Field(Packing(), description="How densely molecules stand.")
    acquisition: dict[str, Drawn] = Field({}, description="The microscope, for all samples.")
    samples: dict[str, Group] = Field(min_length=1, description="Groups of samples by name.")

    @model_validator(mode="after")
    def _acquisitions_exist(self) -> Recipe:
        known = [*Acquisition.model_fields, "tilt_range"]
        for where, words in [
            ("acquisition", self.acquisition),
            *((f"samples.{name}.acquisition", group.acquisition) for name, group in self.samples.items()),
        ]:
            for word in words:
                if word not in known:
                    raise ValueError(f"unknown key {where}.{word}{nearest(word, known)}")
        sizes = {
            v
            for g in self.samples.values()
            for v in _listed({**self.acquisition, **g.acquisition}, "voxel_size")
        }
        if len(sizes) > 1:
            raise ValueError("acquisition.voxel_size must be one number: a corpus has one voxel size")
        for name, shape in [
            ("shape", self.shape),
            *((f"samples.{n}.shape", g.shape) for n, g in self.samples.items()),
        ]:
            if shape is not None and min(shape) < 8:
                raise ValueError(f"{name} must be at least 8 voxels along each axis")
        return self


def _listed(words: dict[str, Drawn], key: str) -> list[Any]:
    value = words.get(key, Acquisition.model_fields[key].default)
    if isinstance(value, Range):
        return [value.min, value.max]
    return list(value) if isinstance(value, list) else [value]


@dataclass(frozen=True)
class SampleSpec:
    """One sample to be made; ``sample_id`` is the hash of everything that determines it."""

    sample_id: str
    name: str
    split: Split
    seed: int
    shape: tuple[int, int, int]
    acquisition: Acquisition
    counts: tuple[tuple[str, int], ...]  # key of the structure's preparation -> molecules asked for
    gap: float


def shipped_recipes() -> dict[str, Path]:
    """List the recipes that come with the program, by name."""
    folder = Path(catalogs.__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name_or_path
        A YAML file, or the name of a recipe that comes with the program.

    Returns
    -------
    Recipe
        Structure files in it are absolute, or names.

    Raises
    ------
    InputError
        There is no such recipe, it is not YAML, or a key or value in it is wrong.
    """
    path = shipped_recipes().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        known = ", ".join(shipped_recipes())
        raise InputError(f"there is no recipe {name_or_path}; give a YAML file or one of: {known}.")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise InputError(f"{path} is not valid YAML{line}: {getattr(error, 'problem', error)}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a recipe: it must have keys such as name, targets and samples.")
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_in_words(error)}.") from error
    return _with_absolute_files(recipe, path.parent)


def _in_words(error: ValidationError) -> str:
    """Say the first thing that is wrong in one sentence."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return f"unknown key {'.'.join(where)}{nearest(where[-1], _keys_beside(where[:-1]))}"
    if first["type"] == "missing":
        return f"the key {'.'.join(where)} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(where)}: {message}" if where else message


def _keys_beside(path: Sequence[str]) -> list[str]:
    """List the known keys at a place of the recipe, found by walking the models along the path."""
    places: dict[str, type[BaseModel]] = {
        "targets": Target, "variants": Variants, "structures": Structure, "distractors": Distractor,
        "packing": Packing, "samples": Group,
    }  # fmt: skip
    model: type[BaseModel] = Recipe
    for part in path:
        model = places.get(part, model)
    return list(model.model_fields)


def _with_absolute_files(recipe: Recipe, folder: Path) -> Recipe:
    """Structure files are looked for beside the recipe."""

    def resolve(structure: Any) -> Any:
        beside = folder / structure.file
        return structure.model_copy(update={"file": str(beside.resolve())}) if beside.is_file() else structure

    targets = {
        name: target.model_copy(update={"structures": [resolve(s) for s in target.structures]})
        for name, target in recipe.targets.items()
    }
    return recipe.model_copy(
        update={"targets": targets, "distractors": [resolve(d) for d in recipe.distractors]}
    )


def draw_acquisition(words: dict[str, Drawn], *seed_words: str | int) -> Acquisition:
    """Draw the acquisition parameters of one sample.

    Each parameter has a generator of its own, so adding one to a recipe leaves the others as they were.

    Raises
    ------
    InputError
        A value is out of its range.
    """
    drawn: dict[str, Any] = {}
    for key, value in words.items():
        rng = seeds.generator(*seed_words, key)
        if isinstance(value, Range):
            drawn[key] = round(float(rng.uniform(value.min, value.max)), 4)
        elif isinstance(value, list):
            drawn[key] = value[int(rng.integers(len(value)))]
        else:
            drawn[key] = value
    if (half := drawn.pop("tilt_range", None)) is not None:
        drawn |= {"tilt_min": -half, "tilt_max": half}
    try:
        return Acquisition.model_validate(drawn)
    except ValidationError as error:
        raise InputError(f"acquisition: {_in_words(error)}.") from error


def expand(recipe: Recipe, preparations: dict[str, int]) -> list[SampleSpec]:
    """Expand a recipe to its samples.

    Parameters
    ----------
    recipe
        Validated.
    preparations
        Molecules asked for in each tomogram, by the key of the structure's preparation (the hash of the
        structure's checksum and the settings of its variants).

    Returns
    -------
    list of SampleSpec
        In the order of the recipe. More samples in a group leave the first ones as they were.
    """
    specs = []
    for group_name, group in recipe.samples.items():
        shape = group.shape or recipe.shape
        counts = tuple((key, max(1, round(n * group.scale_counts))) for key, n in preparations.items())
        for i in range(group.number):
            words = {**recipe.acquisition, **group.acquisition}
            acquisition = draw_acquisition(words, recipe.seed, recipe.name, group_name, i)
            content = {
                "data_version": DATA_VERSION,
                "seed": recipe.seed,
                "recipe": recipe.name,
                "group": group_name,
                "index": i,
                "split": group.split,
                "shape": list(shape),
                "counts": [list(c) for c in counts],
                "gap": recipe.packing.gap,
                "acquisition": acquisition.model_dump(),
            }
            specs.append(
                SampleSpec(
                    sample_id=seeds.digest(content),
                    name=f"{group_name}-{i:03d}",
                    split=group.split,
                    seed=recipe.seed,
                    shape=shape,
                    acquisition=acquisition,
                    counts=counts,
                    gap=recipe.packing.gap,
                )
            )
    return specs
