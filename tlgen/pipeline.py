"""From a recipe to a corpus: what runs on the workers for one sample, and what drives them.

A sample is: pack (one call), one call a tilt, then reconstruct, label and commit (one call). Between
the calls travel a scene and binned images; atoms are read from the corpus by whoever needs them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from catalogs import seeds
from catalogs.catalog import Catalog, Sample
from catalogs.distractors import paper_distractors
from catalogs.errors import InputError
from catalogs.particles import DISTRACTOR
from catalogs.schema import Acquisition, ClassInfo, SampleRecord
from tlgen import decorate, labels, misalign, reconstruct, structures
from tlgen.corpus_library import CorpusLibrary, open_catalog
from tlgen.density import density
from tlgen.fills import Concentration, Counts, Fill, Ratio, Saturation
from tlgen.molecule import Molecule, to_arrays
from tlgen.recipe import Distractor, Packing, Recipe, Structure, Variants
from tlgen.samples import DATA_VERSION, STAGES, SampleSpec
from tlgen.scene import Scene
from tlgen.simulate import doors
from tlgen.tilts import Tilt

Image = NDArray[np.float32]

# Keys of a structure in a recipe that say how its file is read.
_READ_BY = {"assembly", "contour", "resolution", "mass"}

#: Resident bytes of a process that has imported what a call needs, before it begins; measured, rounded up.
PROCESS = 400 << 20


class Refused(InputError):
    """What no attempt on any machine could make: it is wrong in the structures or the recipe themselves.

    Other errors of input may be of the moment or of one host: storage that does not answer, a GPU that is
    taken, a file that only some nodes see.
    """


@contextmanager
def _for_good() -> Iterator[None]:
    """Say of an error of input in here that it will be the same each time."""
    try:
        yield
    except InputError as error:
        raise Refused(str(error)) from error


@dataclass(frozen=True)
class Preparation:
    """A structure of the recipe and the variants to be made of it; ``key`` is the hash of all that."""

    key: str
    name: str
    structure: Structure
    variants: Variants | None
    seed: int
    label: int
    count: int


@dataclass(frozen=True)
class Prepared:
    """A structure with its variants as they stand in the corpus."""

    key: str
    name: str
    label: int
    digests: tuple[str, ...]
    variants: tuple[int, ...]
    source: str


# ------------------------------------------------------------------------------- structures, once a corpus


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

    found = []
    for structure, flexible, label, count in wanted:
        path = Path(structure.map) if structure.map else structures.locate(structure.source)
        if structure.map and not path.is_file():
            raise InputError(f"there is no map {path}; check the path in the recipe {recipe.name}.")
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
        It cannot be read, holds no molecule, or an element that no engine knows.
    """
    if structure.map is None:
        molecule = structures.load_structure(structure.source, assembly=structure.assembly)
        with _for_good():
            doors.check_molecule(molecule)
        return molecule
    from tlgen.pseudoatoms import load_map

    mass = None if structure.mass is None else structure.mass * 1e3
    model = load_map(structure.map, contour=structure.contour, resolution=structure.resolution, mass=mass)
    if tell:
        click.echo(f"  {model.summary}")
    return model.molecule


def refuse_targets_among_distractors(recipe: Recipe) -> None:
    """Refuse a recipe that labels its target as background.

    Raises
    ------
    InputError
        A distractor is a target by its chains' sequences, or by its shape where one of them is a map.
    """
    from tlgen import similarity

    def candidate(structure: Structure) -> similarity.Candidate:
        if structure.map:
            return similarity.of_molecule(read_structure(structure))
        return similarity.of_structure(structure.source, assembly=structure.assembly)

    targets = {name: [candidate(s) for s in target.structures] for name, target in recipe.targets.items()}
    similarity.refuse_targets(targets, [candidate(structure) for structure, _ in distractors(recipe)])


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
    from tlgen import modes

    with _for_good():
        bent = modes.variants(
            molecule,
            preparation.variants.number,
            rmsd=preparation.variants.rmsd,
            n_modes=preparation.variants.modes,
            seed=seeds.seed(preparation.seed, preparation.key, "variants"),
            scheme=preparation.variants.scheme,
        )
    return [molecule, *bent]


def prepare(url: str, preparation: Preparation) -> Prepared:
    """Put a structure and its variants into the corpus (runs on a worker)."""
    catalog = open_catalog(url)
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
    return [*infos, *decorate.class_infos(recipe.decorations, infos)]


# ------------------------------------------------------------------------------------ one sample, on workers


@dataclass(frozen=True)
class Packed:
    """A packed scene and what it took.

    Attributes
    ----------
    scene
        What stands where.
    occupancy
        Share of the box that molecules fill.
    seconds
        CPU seconds of the packing.
    memory
        Bytes that a process needs to simulate one tilt of it.
    """

    scene: Scene
    occupancy: float
    seconds: float
    memory: int


class Simulated(NamedTuple):
    """A tilt image, the CPU seconds that it took, and what computed it, in words."""

    image: Image
    seconds: float
    device: str


@dataclass(frozen=True)
class Made:
    """A sample that is in the corpus now; ``here`` tells whether this run made it, or another meanwhile."""

    record: SampleRecord
    here: bool


def fill_of(packing: Packing) -> Fill:
    """Say in the packing's terms how many molecules a recipe asks for."""
    if packing.concentration is not None:
        return Concentration(packing.concentration, packing.ratio)
    if packing.molecules is not None and packing.ratio is not None:
        return Ratio(packing.ratio, packing.molecules)
    return Saturation(packing.ratio) if packing.fill == "saturation" else Counts()


def pack(url: str, spec: SampleSpec, prepared: list[Prepared], class_names: tuple[str, ...]) -> Packed | Made:
    """Pack the molecules of one sample, unless another run has made it meanwhile."""
    return _made_by_another(url, spec) or pack_scene(url, spec, prepared, class_names)


def pack_scene(url: str, spec: SampleSpec, prepared: list[Prepared], class_names: tuple[str, ...]) -> Packed:
    """Pack the molecules of one sample into its box.

    Each placed copy of a structure takes one of its variants at random.

    Raises
    ------
    Refused
        Something cannot be packed, or the engine could not simulate the scene.
    """
    from tlgen import tetris
    from tlgen.simulate.base import engine

    started = time.process_time()
    rng = np.random.default_rng(spec.stream("counts"))
    by_key = {p.key: p for p in prepared}
    digests: list[str] = []
    names: list[str] = []
    variants: list[int] = []
    labels_: list[int] = []
    requests: list[tetris.Request] = []
    for key, count in spec.counts:
        structure = by_key[key]
        copies = Counter(rng.integers(len(structure.digests), size=count).tolist())
        for k, number in sorted(copies.items()):
            group = class_names[structure.label - 1] if structure.label else DISTRACTOR
            requests.append(tetris.Request(structure.digests[k], number, share=number, group=group))
            digests.append(structure.digests[k])
            names.append(structure.name)
            variants.append(structure.variants[k])
            labels_.append(structure.label)
    library = CorpusLibrary(url)
    z, y, x = (n * spec.acquisition.voxel_size for n in spec.shape)
    with _for_good():
        decorations, decorations_asked = decorate.place(
            spec.decorations, (x, y, z), seed=spec.stream("decorations")
        )
    simulator = engine(spec.acquisition.engine)
    # what the engine cannot show is known before the packing takes its time
    nothing = np.zeros(0)
    bare = Scene(
        spec.shape, spec.acquisition.voxel_size, (), (), (), (), class_names, nothing.astype(np.int64),
        nothing.reshape(0, 3), nothing.reshape(0, 4), decorations=decorations,
    )  # fmt: skip
    with _for_good():
        simulator.check_scene(bare, library, spec.acquisition)
        packing = tetris.pack(
            spec.shape,
            spec.acquisition.voxel_size,
            requests,
            library,
            gap=spec.packing.gap,
            seed=spec.stream("pack"),
            fill=fill_of(spec.packing),
            faces=spec.packing.faces,
            obstacles=decorations,
            seeding=spec.packing.seeding,
            orientations=spec.packing.orientations,
        )
    scene = Scene(
        shape=spec.shape,
        voxel_size=spec.acquisition.voxel_size,
        digests=tuple(digests),
        names=tuple(names),
        variants=tuple(variants),
        labels=tuple(labels_),
        class_names=class_names,
        which=packing.which,
        positions=packing.positions,
        quaternions=packing.quaternions,
        amplitudes=tuple(library[digest].amplitudes for digest in digests),
        rmsds=tuple(library[digest].rmsd for digest in digests),
        decorations=decorations,
        asked={group.group: group.asked for group in packing.groups if group.asked is not None}
        | decorations_asked,
    )
    with _for_good():
        simulator.check_scene(scene, library, spec.acquisition)
    memory = PROCESS + simulator.memory(scene, library, spec.acquisition)
    return Packed(scene, packing.occupancy, time.process_time() - started, memory)


def _made_by_another(url: str, spec: SampleSpec) -> Made | None:
    record = open_catalog(url).record(spec.sample_id)
    return None if record is None else Made(record, here=False)


def check_device(acquisition: Acquisition) -> None:
    """Refuse a worker without the device that an acquisition asks for, before anything is computed."""
    from tlgen.simulate.base import engine

    engine(acquisition.engine).check_device(acquisition)


def simulate_tilts(
    url: str, scene: Scene, acquisition: Acquisition, tilts: Sequence[Tilt], seed: int
) -> list[Simulated]:
    """Simulate some tilt images of a series in one call, together where the engine can."""
    from tlgen.simulate.base import engine

    started = time.process_time()
    views = [misalign.seen(scene, tilt) for tilt in tilts]
    simulator = engine(acquisition.engine)
    images, device = simulator.simulate_together(views, CorpusLibrary(url), acquisition, seed)
    each = (time.process_time() - started) / len(tilts)
    return [Simulated(image, each, device) for image in images]


def optics_of(acq: Acquisition) -> reconstruct.Optics:
    """Say what a reconstruction may know of a simulated series' contrast."""
    return reconstruct.Optics(
        pixel_size=acq.voxel_size,
        defocus=acq.defocus,
        voltage=acq.voltage,
        spherical_aberration=acq.spherical_aberration,
        amplitude_contrast=acq.amplitude_contrast,
        phase_shift=acq.phase_shift if acq.phase_plate else 0.0,
    )


def finish(
    url: str,
    spec: SampleSpec,
    packed: Packed,
    sources: dict[str, str],
    recipe: dict[str, Any],
    tilts: list[Tilt],
    images: list[Simulated],
) -> Made:
    """Reconstruct, label and commit one sample, unless another run has; ``recipe`` is kept with it."""
    from tlgen.simulate.base import engine

    if (there := _made_by_another(url, spec)) is not None:
        return there
    scene, started = packed.scene, time.process_time()
    order = np.argsort([tilt.angle for tilt in tilts])
    angles = np.array([tilts[i].angle for i in order], np.float32)
    series = np.stack([images[i].image for i in order])
    known = reconstruct.Series(
        angles.astype(np.float64),
        np.array([tilts[i].dose_before + tilts[i].dose / 2 for i in order]),
        optics_of(spec.acquisition),
    )
    with _for_good():
        beyond = round(spec.acquisition.vacuum / scene.voxel_size)  # planes on each side
        z, y, x = scene.shape
        shape = (z + 2 * beyond, y, x)
        tomogram = reconstruct.reconstruct(series, known, shape, spec.reconstruction)
        reconstructed = time.process_time()
        classes, instances = (_deeper(each, beyond) for each in labels.label(scene, CorpusLibrary(url)))
    labelled = time.process_time()

    particles = scene.particles(spec.name, CorpusLibrary(url))
    particles["z"] += beyond * scene.voxel_size
    counts = Counter(particles["class_name"][particles["label"] > 0])
    standing = counts + Counter(decoration.class_name for decoration in scene.decorations)
    simulator = engine(spec.acquisition.engine)
    record = open_catalog(url).write(
        Sample(
            tomogram=tomogram,
            classes=classes,
            instances=instances,
            particles=particles,
            tilt_images=series if spec.keep.tilt_images else None,
            tilt_angles=angles,
            tilt_doses=np.array([tilts[i].dose_before for i in order], np.float32),
            tilt_errors=misalign.table([tilts[i] for i in order]),
            density=_deeper(density(scene, CorpusLibrary(url)), beyond) if spec.keep.density else None,
            recipe=recipe,
            seeds={stage: spec.stream(stage) for stage in STAGES},
            facts={
                "sample_id": spec.sample_id,
                "name": spec.name,
                "split": spec.split,
                "seed": spec.seed,
                "acquisition": spec.acquisition,
                "shape": shape,
                "n_tilts": len(tilts),
                "n_particles": sum(counts.values()),
                "n_distractors": len(particles) - sum(counts.values()),
                "class_counts": {name: standing[name] for name in scene.class_names},
                "structures": sources,
                "occupancy": round(packed.occupancy, 4),
                "seconds": {
                    "pack": round(packed.seconds, 2),
                    "simulate": round(sum(each.seconds for each in images), 2),
                    "reconstruct": round(reconstructed - started, 2),
                    "label": round(labelled - reconstructed, 2),
                },
                "software": {
                    "template-learning": version("template-learning"),
                    spec.acquisition.engine: simulator.version(),
                    "device": ", ".join(sorted({each.device for each in images})),
                    "numpy": np.__version__,
                },
            },
        )
    )
    return Made(record, here=True)


def _deeper(volume: NDArray[Any], planes: int) -> NDArray[Any]:
    """Add empty planes to both sides along z."""
    return np.pad(volume, ((planes, planes), (0, 0), (0, 0))) if planes else volume
