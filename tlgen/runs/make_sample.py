"""Make one sample on the workers: pack, simulate the tilts, reconstruct, label, commit.

A sample takes one call to pack, one call per tilt, and one call to reconstruct, label and commit. Only a
scene and binned images are passed between the calls; each call reads the atoms from the corpus.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalogs.corpus.catalog import Sample
from catalogs.particles import DISTRACTOR
from catalogs.schema import Acquisition, SampleRecord
from tlgen import reconstruct
from tlgen.molecules.library import CorpusLibrary, open_catalog
from tlgen.packing.quantities import Concentration, Counts, Fill, Ratio, Saturation
from tlgen.recipes.recipe import Packing
from tlgen.recipes.samples import STAGES, SampleSpec
from tlgen.runs import unplaced_molecules
from tlgen.runs.prepare_structures import Prepared, permanent
from tlgen.scene import labels, place_decorations
from tlgen.scene.density import density
from tlgen.scene.scene import Scene
from tlgen.tilts import misalignment
from tlgen.tilts.scheme import Tilt

Image = NDArray[np.float32]


#: Resident bytes of a process after its imports, before a call begins; measured and rounded up.
PROCESS = 400 << 20


@dataclass(frozen=True)
class Packed:
    """A packed scene, and the time and memory that it takes.

    Attributes
    ----------
    scene
        The scene.
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
    """A sample that is in the corpus now; ``here`` tells whether this run made it, or another run.

    ``short`` says of which molecules fewer were placed than asked for, and why.
    """

    record: SampleRecord
    here: bool
    short: tuple[str, ...] = ()


def quantity_of(packing: Packing) -> Fill:
    """Translate how many molecules a recipe asks for into the packing's own terms."""
    if packing.concentration is not None:
        return Concentration(packing.concentration, packing.ratio)
    if packing.molecules is not None and packing.ratio is not None:
        return Ratio(packing.ratio, packing.molecules)
    return Saturation(packing.ratio) if packing.fill == "saturation" else Counts()


def pack(url: str, spec: SampleSpec, prepared: list[Prepared], class_names: tuple[str, ...]) -> Packed | Made:
    """Pack the molecules of one sample, unless another run has made the sample already.

    Raises
    ------
    Refused
        As in :func:`pack_scene`, or no target has room.
    """
    if (made := _made_by_another(url, spec)) is not None:
        return made
    packed = pack_scene(url, spec, prepared, class_names)
    with permanent():  # without targets, hours of simulation would be useless
        unplaced_molecules.refuse_nothing_placed(packed.scene, CorpusLibrary(url))
    return packed


def empty_scene(spec: SampleSpec, class_names: tuple[str, ...]) -> Scene:
    """Place the decorations of a sample in a box without molecules.

    Raises
    ------
    InputError
        They do not fit, or the engine cannot simulate them.
    """
    from tlgen.simulate.engine import engine

    acq, nothing = spec.acquisition, np.zeros(0)
    z, y, x = (n * acq.voxel_size for n in spec.shape)
    decorations, asked = place_decorations.place(spec.decorations, (x, y, z), seed=spec.stream("decorations"))
    scene = Scene(
        spec.shape, acq.voxel_size, (), (), (), (), class_names, nothing.astype(np.int64),
        nothing.reshape(0, 3), nothing.reshape(0, 4), decorations=decorations, asked=asked,
    )  # fmt: skip
    engine(acq.engine).check_scene(scene, {}, acq)
    return scene


def pack_scene(url: str, spec: SampleSpec, prepared: list[Prepared], class_names: tuple[str, ...]) -> Packed:
    """Pack the molecules of one sample into its box.

    Each placed copy of a structure takes one of its variants at random.

    Raises
    ------
    Refused
        Something cannot be packed, or the engine could not simulate the scene.
    """
    from tlgen.packing import tetris
    from tlgen.simulate.engine import engine

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
    # check what the engine cannot simulate before packing, which takes long
    simulator = engine(spec.acquisition.engine)
    with permanent():
        bare = empty_scene(spec, class_names)
        packing = tetris.pack(
            spec.shape,
            spec.acquisition.voxel_size,
            requests,
            library,
            gap=spec.packing.gap,
            seed=spec.stream("pack"),
            fill=quantity_of(spec.packing),
            faces=spec.packing.faces,
            obstacles=bare.decorations,
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
        decorations=bare.decorations,
        asked={group.group: group.asked for group in packing.groups if group.asked is not None}
        | dict(bare.asked),
    )
    with permanent():
        simulator.check_scene(scene, library, spec.acquisition)
    memory = PROCESS + simulator.memory(scene, library, spec.acquisition)
    return Packed(scene, packing.occupancy, time.process_time() - started, memory)


def _made_by_another(url: str, spec: SampleSpec) -> Made | None:
    record = open_catalog(url).record(spec.sample_id)
    return None if record is None else Made(record, here=False)


def check_device(acquisition: Acquisition) -> None:
    """Refuse a worker without the device that an acquisition asks for, before anything is computed."""
    from tlgen.simulate.engine import engine

    engine(acquisition.engine).check_device(acquisition)


def simulate_tilts(
    url: str, scene: Scene, acquisition: Acquisition, tilts: Sequence[Tilt], seed: int
) -> list[Simulated]:
    """Simulate some tilt images of a series in one call, together where the engine can."""
    from tlgen.simulate.engine import engine

    started = time.process_time()
    views = [misalignment.seen(scene, tilt) for tilt in tilts]
    simulator = engine(acquisition.engine)
    images, device = simulator.simulate_together(views, CorpusLibrary(url), acquisition, seed)
    each = (time.process_time() - started) / len(tilts)
    return [Simulated(image, each, device) for image in images]


def optics_of(acq: Acquisition) -> reconstruct.Optics:
    """Return what a reconstruction may know about the contrast of a simulated series."""
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
    """Reconstruct, label and commit one sample, unless another run has; ``recipe`` is stored with it."""
    from tlgen.simulate.engine import engine

    if (there := _made_by_another(url, spec)) is not None:
        return there
    scene, started = packed.scene, time.process_time()
    order = np.argsort([tilt.angle for tilt in tilts])
    angles = np.array([tilts[i].angle for i in order], np.float32)
    series = np.stack([images[i].image for i in order])
    known = reconstruct.ProjectionParameters(
        angles.astype(np.float64),
        np.array([tilts[i].dose_before + tilts[i].dose / 2 for i in order]),
        optics_of(spec.acquisition),
    )
    with permanent():
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
            tilt_errors=misalignment.table([tilts[i] for i in order]),
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
    short = unplaced_molecules.shortfall(scene, packed.occupancy, spec.packing)
    return Made(record, here=True, short=tuple(short))


def _deeper(volume: NDArray[Any], planes: int) -> NDArray[Any]:
    """Add empty planes to both sides along z."""
    return np.pad(volume, ((planes, planes), (0, 0), (0, 0))) if planes else volume
