"""Expand a recipe to its samples; the id of a sample is the hash of everything that determines it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from catalogs import seeds
from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.schema import Acquisition, Split
from tlgen.recipes.drawn import QUALITIES, Range
from tlgen.recipes.recipe import Group, Keep, Packing, Recipe
from tlgen.recipes.recipe_file import in_words
from tlgen.reconstruct.settings import Reconstruction
from tlgen.scene.place_decorations import Decorations
from tlgen.simulate.microscope import detectors
from tlgen.tilts.scheme import steps_meet

if TYPE_CHECKING:
    from catalogs.corpus.catalog import Catalog

#: Increased when the same recipe would give different data, so that old samples are not taken for new ones;
#: also when a default changes, since values at their default are not part of a sample's hash.
DATA_VERSION = 3
#: The same, only for samples with a certain contrast.
_CONTRAST_VERSIONS = {"physical": 2}
#: The same, only for samples of the multislice engine with pixels larger than this, Å.
_LARGE_PIXELS, _LARGE_PIXELS_VERSION = 2.0, 2

#: The same, only for samples of the multislice engine: its slabs are twice as thick as in earlier versions.
_MULTISLICE_VERSION = 2

#: The random stages in making a sample; each has its own seed.
STAGES = ("counts", "decorations", "pack", "alignment", "simulate")


@dataclass(frozen=True)
class SampleSpec:
    """One sample to be made; ``sample_id`` is the hash of everything that determines it."""

    sample_id: str
    name: str
    split: Split
    seed: int
    shape: tuple[int, int, int]
    acquisition: Acquisition
    counts: tuple[tuple[str, int], ...]  # key of the structure's preparation -> number of molecules
    packing: Packing
    decorations: Decorations
    keep: Keep
    reconstruction: Reconstruction

    def stream(self, stage: str) -> int:
        """Seed of one of the :data:`STAGES` of this sample."""
        return seeds.seed(self.seed, self.sample_id, stage)


def draw_acquisition(words: Mapping[str, Any], *seed_words: str | int) -> Acquisition:
    """Draw the acquisition parameters of one sample.

    Each parameter has its own generator, so adding one to a recipe does not change the others.

    Raises
    ------
    InputError
        A value is out of its range, the detector's file cannot be read, or ``tilt_range`` is given together
        with ``tilt_min`` or ``tilt_max``.
    """
    drawn: dict[str, Any] = {}
    for key, value in words.items():
        rng = seeds.generator(*seed_words, key)
        if isinstance(value, Range):
            whole = key in Acquisition.model_fields and Acquisition.model_fields[key].annotation is int
            drawn[key] = (
                int(rng.integers(round(value.min), round(value.max), endpoint=True))
                if whole
                else round(float(rng.uniform(value.min, value.max)), 4)
            )
        elif isinstance(value, list):
            drawn[key] = value[int(rng.integers(len(value)))]
        else:
            drawn[key] = value
    if (half := drawn.pop("tilt_range", None)) is not None:
        for end in ("tilt_min", "tilt_max"):
            if end in drawn:
                raise InputError(
                    f"acquisition: tilt_range and {end} both set the tilt range; give one of them "
                    "(tilt_range: null removes that of the extended recipe)."
                )
        drawn |= {"tilt_min": -half, "tilt_max": half}
    if (quality := drawn.pop("quality", None)) is not None:
        drawn = QUALITIES[quality] | drawn
    drawn |= _detector(drawn.get("detector"))
    try:
        return Acquisition.model_validate(drawn)
    except ValidationError as error:
        raise InputError(f"acquisition: {in_words(error)}.") from error


def _detector(word: Any) -> dict[str, str]:
    """Read a detector's file into the acquisition, so that workers and later readers do not need the file."""
    if not isinstance(word, str) or word in detectors.BUILT_IN or not Path(word).is_file():
        return {}
    return {"detector": Path(word).stem, "detector_curve": detectors.read(Path(word)).as_text()}


def _combination(group: Group, i: int) -> dict[str, Any]:
    """Return the grid's values for sample ``i`` of a group; the last key changes fastest, then all repeat."""
    i %= group.combinations
    chosen: dict[str, Any] = {}
    for key, values in reversed(group.grid.items()):
        i, k = divmod(i, len(values))
        chosen[key] = values[k]
    return chosen


def sample_named(specs: Sequence[SampleSpec], sample: str | None, recipe: str) -> SampleSpec:
    """Find a sample by its name.

    Parameters
    ----------
    specs
        From :func:`expand`.
    sample
        Its name; None: the first.
    recipe
        Name of the recipe, for the message.

    Raises
    ------
    InputError
        If there is no sample of that name.
    """
    names = [spec.name for spec in specs]
    if sample is None:
        return specs[0]
    if sample not in names:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise InputError(f"recipe {recipe} has no sample {sample}{nearest(sample, names)}; it has {shown}")
    return specs[names.index(sample)]


def expand(recipe: Recipe, preparations: Mapping[str, int]) -> list[SampleSpec]:
    """Expand a recipe to its samples.

    Parameters
    ----------
    recipe
        Validated.
    preparations
        Number of molecules in each tomogram, by the key of the structure's preparation (the hash of the
        structure's checksum and the settings of its variants).

    Returns
    -------
    list of SampleSpec
        In the order of the recipe. Adding samples to a group does not change the first ones.
    """
    specs = []
    for group_name, group in recipe.samples.items():
        shape = group.shape or recipe.shape
        counts = tuple((key, max(1, round(n * group.scale_counts))) for key, n in preparations.items())
        total = group.number * group.combinations
        digits = max(3, math.ceil(math.log10(total)))
        for i in range(total):
            words = {**recipe.acquisition, **group.acquisition, **_combination(group, i)}
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
                "packing": recipe.packing_of(group).model_dump(exclude_defaults=True),
                "decorations": recipe.decorations.model_dump(exclude_defaults=True),
                "keep": recipe.keep.model_dump(exclude_defaults=True),
                "reconstruction": recipe.reconstruction.model_dump(exclude_defaults=True),
                # a GPU computes the same images to rounding
                "acquisition": acquisition.model_dump(exclude_defaults=True, exclude={"device"}),
            }
            if acquisition.contrast in _CONTRAST_VERSIONS:
                content["contrast_version"] = _CONTRAST_VERSIONS[acquisition.contrast]
            if acquisition.engine == "multislice" and acquisition.pixel_size > _LARGE_PIXELS:
                content["pixel_version"] = _LARGE_PIXELS_VERSION
            if acquisition.engine == "multislice" and _MULTISLICE_VERSION > 1:
                content["multislice_version"] = _MULTISLICE_VERSION
            if not steps_meet(acquisition):  # earlier versions counted angles from tilt_min
                content["tilt_version"] = 2
            specs.append(
                SampleSpec(
                    sample_id=seeds.digest(content),
                    name=f"{group_name}-{i:0{digits}d}",
                    split=group.split,
                    seed=recipe.seed,
                    shape=shape,
                    acquisition=acquisition,
                    counts=counts,
                    packing=recipe.packing_of(group),
                    decorations=recipe.decorations,
                    keep=recipe.keep,
                    reconstruction=recipe.reconstruction,
                )
            )
    return specs


@dataclass(frozen=True)
class Classified:
    """The samples of a recipe and of a corpus, compared.

    Attributes
    ----------
    todo, done
        Samples of the recipe that the corpus lacks, or has.
    stale
        Ids of samples of the corpus that the recipe no longer makes.
    """

    todo: list[SampleSpec]
    done: list[SampleSpec]
    stale: list[str]


def classify(specs: Sequence[SampleSpec], catalog: Catalog | None) -> Classified:
    """Compare the samples of a recipe with those of a corpus.

    Parameters
    ----------
    specs
        From :func:`expand`.
    catalog
        None: there is no corpus yet.
    """
    there = set(catalog.sample_ids()) if catalog is not None else set()
    return Classified(
        todo=[spec for spec in specs if spec.sample_id not in there],
        done=[spec for spec in specs if spec.sample_id in there],
        stale=sorted(there - {spec.sample_id for spec in specs}),
    )
