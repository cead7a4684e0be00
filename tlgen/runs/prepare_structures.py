"""Prepare the structures of a recipe: read them, make variants and put them into a corpus, each once.

A structure is identified by the hash of its file and of its settings in the recipe.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import seeds, user_warnings
from catalogs.corpus.catalog import Catalog
from catalogs.distractors import paper_distractors
from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from tlgen.molecules import array_cache, pdb, read_once, structures
from tlgen.molecules.envelope import envelope
from tlgen.molecules.library import open_catalog
from tlgen.molecules.molecule import Molecule, from_arrays, to_arrays
from tlgen.recipes.recipe import Distractor, Recipe, Structure, Variants
from tlgen.recipes.samples import DATA_VERSION
from tlgen.runs import unplaced_molecules
from tlgen.scene import place_decorations
from tlgen.simulate import checks
from tlgen.simulate.multislice import displaced_ice

_log = logging.getLogger(__name__)

# Modules whose code determines the pseudo-atoms of a map, and the variants of a structure.
_FITTERS = ("tlgen.molecules.pseudoatoms", "tlgen.molecules.molecule")
_BENDERS = (*read_once.READERS, *_FITTERS, "tlgen.molecules.modes")
# Keys of a structure in a recipe that say how its file is read.
_READ_BY = {"assembly", "contour", "resolution", "mass"}


class Refused(InputError):
    """An error in the structures or the recipe themselves, which no other attempt or machine can change.

    Other input errors may be temporary or concern one host: storage that does not answer, a GPU in use, a
    file that only some nodes see.
    """


@contextmanager
def permanent() -> Iterator[None]:
    """Mark input errors as permanent, so that they are not retried."""
    try:
        yield
    except InputError as error:
        raise Refused(str(error)) from error


@dataclass(frozen=True)
class Preparation:
    """A structure of the recipe and the settings of its variants; ``key`` is the hash of both."""

    key: str
    name: str
    structure: Structure
    variants: Variants | None
    seed: int
    label: int
    count: int


@dataclass(frozen=True)
class Prepared:
    """A structure with its variants in the corpus."""

    key: str
    name: str
    label: int
    digests: tuple[str, ...]
    variants: tuple[int, ...]
    source: str


def preparations(recipe: Recipe) -> list[Preparation]:
    """List the structures of a recipe with their keys; reads the files' bytes but parses nothing.

    Raises
    ------
    InputError
        A structure is missing, or named twice.
    """
    wanted: list[tuple[Structure, Variants | None, int, int]] = []
    for label, target in enumerate(recipe.targets.values(), start=1):
        share = max(1, round(target.count / len(target.structures)))
        flexible = target.variants if target.variants.number else None
        wanted += [(structure, flexible, label, share) for structure in target.structures]
    wanted += [(structure, None, 0, count) for structure, count in distractors(recipe)]

    check_sources(recipe, [structure for structure, *_ in wanted])
    places = structures.locate_all([s.source for s, *_ in wanted if not s.map])
    given = [folder.resolve() for folder in pdb.given_folders()]
    found = []
    for structure, flexible, label, count in wanted:
        path = Path(structure.map) if structure.map else places[structure.source]
        if path.resolve().parent in given:  # workers on other nodes do not know the option
            structure = structure.model_copy(update={"file": str(path.resolve())})
        content = {
            "data_version": DATA_VERSION,
            "checksum": structures.checksum(path),
            "structure": structure.model_dump(include=_READ_BY, exclude_none=True),
            "variants": flexible.model_dump() if flexible else None,
            "seed": recipe.seed if flexible else 0,
        }
        found.append(
            Preparation(
                key=seeds.digest(content),
                name=structures.name_of(path),
                structure=structure,
                variants=flexible,
                seed=recipe.seed,
                label=label,
                count=count,
            )
        )
    twice = [p.name for p in found if sum(q.key == p.key for q in found) > 1]
    if twice:
        raise InputError(
            f"recipe {recipe.name} names {twice[0]} twice; give it once, with the sum of the counts."
        )
    return found


def check_sources(recipe: Recipe, wanted: Iterable[Structure]) -> None:
    """Refuse structures and maps that do not exist, naming all at once; fetches none.

    Raises
    ------
    InputError
        Some are neither files nor ids of entries.
    """
    errors: dict[str, InputError] = {}
    for structure in wanted:
        try:
            if structure.map is None:
                structures.find(structure.source)
            elif not Path(structure.map).exists():
                raise InputError(
                    f"there is no map {structure.map}; check the path in the recipe {recipe.name}."
                )
            elif not Path(structure.map).is_file():
                raise InputError(f"the map {structure.map} is a folder; give one file, as MRC or zipped")
        except InputError as error:
            errors.setdefault(str(error), error)
    structures.refuse_together(list(errors.values()))


def all_structures(recipe: Recipe) -> list[Structure]:
    """List the structures of a recipe: those of its targets, then the distractors.

    Raises
    ------
    InputError
        A folder is missing or holds no structure.
    """
    of_targets = [structure for target in recipe.targets.values() for structure in target.structures]
    return [*of_targets, *(structure for structure, _ in distractors(recipe))]


def distractors(recipe: Recipe) -> list[tuple[Structure, int]]:
    """List the distractors of a recipe one by one, with their counts.

    Raises
    ------
    InputError
        A folder is missing or holds no structure.
    """
    found: list[tuple[Structure, int]] = []
    for entry in recipe.distractors:
        if isinstance(entry, Distractor):
            found.append((entry, entry.count))
        elif entry.folder is None:
            found += [(Structure(file=name), n * entry.count) for name, n in paper_distractors().items()]
        else:
            files = structures.files_in(entry.folder)
            found += [(Structure(file=str(path)), entry.count) for path in files]
    return found


def read_structure(structure: Structure, *, tell: bool = False) -> Molecule:
    """Read a structure of a recipe, or fit pseudo-atoms to its map and, if asked, tell the user how well.

    Raises
    ------
    InputError
        It cannot be read, contains no molecule, or contains an element that no engine knows.
    """
    if structure.map is None:
        molecule, _ = read_once.structure(structure.source, structure.assembly)
        with permanent():
            checks.check_molecule(molecule)
        return molecule
    path = Path(structure.map)
    words = structure.model_dump(include=_READ_BY, exclude_none=True)
    content = [structures.checksum(path), str(path.resolve()), structures.name_of(path), words]
    found = array_cache.cached("maps", content, _FITTERS, lambda: _fitted(structure))
    for text in found["notes"].tolist():
        user_warnings.warn(text)
    if tell:
        _log.info(f"  {found['summary']}")
    return from_arrays(found)


def _fitted(structure: Structure) -> dict[str, NDArray[Any]]:
    """Fit pseudo-atoms to a map; returns their arrays, a ``summary`` of the fit, and remarks for the user."""
    from tlgen.molecules.pseudoatoms import load_map

    mass = None if structure.mass is None else structure.mass * 1e3
    with user_warnings.heard() as told:
        model = load_map(
            structure.map or "", contour=structure.contour, resolution=structure.resolution, mass=mass
        )
    return {
        **to_arrays(model.molecule), "summary": np.array(model.summary), "notes": np.array(told, np.str_)
    }  # fmt: skip


def refuse_targets_among_distractors(recipe: Recipe) -> None:
    """Refuse a recipe that labels its target as background.

    Raises
    ------
    InputError
        A distractor is a target by its chains' sequences, or by its shape where one of them is a map.
    """
    from tlgen.molecules import similarity

    def candidate(structure: Structure) -> similarity.Candidate:
        if structure.map:
            return similarity.of_molecule(read_structure(structure))
        return similarity.of_structure(structure.source, assembly=structure.assembly)

    targets = {name: [candidate(s) for s in target.structures] for name, target in recipe.targets.items()}
    similarity.refuse_targets(targets, [candidate(structure) for structure, _ in distractors(recipe)])


def refuse_small_boxes(recipe: Recipe) -> None:
    """Refuse a recipe with a box that none of its targets fits into (InputError), before anything is made."""
    targets = (s for target in recipe.targets.values() for s in target.structures)
    unplaced_molecules.refuse_small_boxes(recipe, (read_structure(structure) for structure in targets))


def already_prepared(catalog: Catalog, preparation: Preparation) -> Prepared | None:
    """Find a structure that an earlier run has prepared."""
    name = f"prepared-{preparation.key}"
    if not catalog.has_molecule(name):
        return None
    entry = catalog.get_molecule(name)
    return Prepared(
        key=preparation.key,
        name=preparation.name,
        label=preparation.label,
        digests=tuple(str(d) for d in entry["digests"]),
        variants=tuple(int(v) for v in entry["variants"]),
        source=str(entry["source"]),
    )


def molecules(preparation: Preparation) -> list[Molecule]:
    """Read a structure and make its variants, which follow it."""
    molecule = read_structure(preparation.structure)
    if not preparation.variants:
        return [molecule]
    bent = array_cache.cached(
        "variants",
        [preparation.key, preparation.name],
        _BENDERS,
        lambda: _bent(molecule, preparation),
    )
    number = preparation.variants.number
    return [molecule, *(from_arrays(_numbered(bent, k)) for k in range(number))]


def _bent(molecule: Molecule, preparation: Preparation) -> dict[str, NDArray[Any]]:
    """Make the variants of a structure: their arrays, each with its number before its name."""
    from tlgen.molecules import modes

    assert preparation.variants is not None
    with permanent():
        made = modes.variants(
            molecule,
            preparation.variants.number,
            rmsd=preparation.variants.rmsd,
            n_modes=preparation.variants.modes,
            seed=seeds.seed(preparation.seed, preparation.key, "variants"),
            scheme=preparation.variants.scheme,
        )
    return {f"{k}/{name}": array for k, each in enumerate(made) for name, array in to_arrays(each).items()}


def _numbered(arrays: dict[str, NDArray[Any]], number: int) -> dict[str, NDArray[Any]]:
    start = f"{number}/"
    return {name.removeprefix(start): each for name, each in arrays.items() if name.startswith(start)}


def prepare(url: str, preparation: Preparation, slices: Sequence[float] | None = None) -> Prepared:
    """Put a structure and its variants into the corpus (runs on a worker).

    With ``slices``, their envelopes and the ice that they displace in slices of this thickness (Å) are also
    computed, so that no tilt has to wait for them.
    """
    catalog = open_catalog(url)
    with user_warnings.silent():  # the driver has reported it
        made = molecules(preparation)
    for each in made:
        catalog.put_molecule(each.digest, to_arrays(each))
        if not catalog.has_molecule(each.digest):
            raise OSError(f"{catalog.url} did not keep the molecule {each.name} that was written to it")
    catalog.put_molecule(
        f"prepared-{preparation.key}",
        {
            "digests": np.array([m.digest for m in made]),
            "variants": np.array([m.variant for m in made]),
            "source": np.array(made[0].source),
        },
    )
    prepared = already_prepared(catalog, preparation)
    if prepared is None:
        raise OSError(f"{catalog.url} did not keep the structure {preparation.name} that was written to it")
    for each in () if slices is None else made:
        envelope(each)
        for thickness in slices or ():
            displaced_ice.volume_of(each.points, thickness)
    return prepared


def class_infos(recipe: Recipe) -> list[ClassInfo]:
    """Describe the classes: targets, with the mean radius of their structures, then decorations.

    Raises
    ------
    InputError
        A structure cannot be read.
    """
    infos = []
    for label, (name, target) in enumerate(recipe.targets.items(), start=1):
        radii = [read_structure(structure, tell=True).radius for structure in target.structures]
        infos.append(ClassInfo(name=name, label=label, radius=round(float(np.mean(radii)), 1)))
    return [*infos, *place_decorations.class_infos(recipe.decorations, infos)]
