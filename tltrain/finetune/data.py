"""What a fine-tuning learns from: annotated tomograms, held-out ones, and the corpus of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.model_file import ModelCard
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.seeds import generator
from tlpick.network.model import predictor
from tlpick.network.tomograms.intake import VOXEL_SIZE_TOLERANCE, Preprocessing
from tltrain.finetune.annotated_tomograms import (
    AnnotatedTomograms,
    PreprocessedTomogram,
    in_frame,
    prepare_tomograms,
    write_targets,
)
from tltrain.finetune.annotations import Annotations, Place
from tltrain.finetune.settings import FineTuning
from tltrain.finetune.targets import IGNORED, UNLABELLED, Shape, measure_shape, paint, sphere
from tltrain.training.cards import CONTRAST
from tltrain.training.losses import IGNORE
from tltrain.training.validation import Held, Validation, open_validation

#: Simulated tomograms that tell how much is forgotten, and tomograms from which one is held out by itself.
MOST_VALIDATED, ENOUGH_TO_HOLD_OUT = 4, 3


@dataclass(frozen=True, eq=False)
class Simulation:
    """The corpus that nothing of may be forgotten.

    ``train`` and ``val`` are samples of the model's voxel size.
    """

    catalog: Catalog
    train: Sequence[SampleRecord]
    val: Sequence[SampleRecord]


@dataclass(frozen=True, eq=False)
class Material:
    """All that a fine-tuning has to do with, checked.

    Attributes
    ----------
    card
        Of the model to begin with.
    classes
        Of the model, in the order of the network's outputs after the background.
    train, held_out
        Annotations to learn from, and those of tomograms that are not learned from.
    simulation
        None where the corpus is out of reach and nothing is mixed in.
    shapes
        Class -> its shape.
    oriented
        Whether shapes are turned as the annotations are.
    """

    card: ModelCard
    classes: Sequence[ClassInfo]
    train: Annotations
    held_out: Annotations | None
    simulation: Simulation | None
    shapes: Mapping[str, Shape]
    oriented: bool

    @property
    def channels(self) -> dict[str, int]:
        """Class -> index of the network's output."""
        return {info.name: k for k, info in enumerate(self.classes, start=1)}


def gather(
    card: ModelCard,
    annotations: Annotations,
    held_out: Sequence[str],
    settings: FineTuning,
    say: Callable[[str], None],
) -> Material:
    """Put together what is learned from.

    Parameters
    ----------
    card
        Of the model.
    annotations
        In all tomograms.
    held_out
        Names of tomograms that are not learned from; ``none`` alone: learn from all. Empty: of three or more,
        that with the fewest annotations is held out.
    settings
        How it is done.
    say
        Told what was found and decided.

    Raises
    ------
    InputError
        If a tomogram that is to be held out is not there or none would be left, the corpus is needed and
        cannot be read, or it is not of the model's classes or voxel size.
    """
    classes = sorted(card.classes, key=lambda info: info.label)
    train, held = divide(annotations, held_out)
    if held is None and len(train.places) > 1 and list(held_out) != ["none"]:
        say("with so few tomograms none is held out: the last network is kept, not the best")
    if settings.annotations is not None:
        train = some(train, settings.annotations, settings.seed)
    simulation = _simulation(card, classes, settings, say)
    shapes, oriented = _shapes(card, train, simulation, settings, say)
    return Material(card, classes, train, held, simulation, shapes, oriented)


def some(annotations: Annotations, n: int, seed: int) -> Annotations:
    """Draw some of the annotations; fewer are always among more that are drawn with the same seed.

    Raises
    ------
    InputError
        If there are not so many.
    """
    table = annotations.table
    if n > len(table):
        raise InputError(
            f"{n} annotations are asked for and {len(table)} are there to learn from; ask for fewer"
        )
    order = generator(seed, "annotations").permutation(len(table))
    kept = table.iloc[np.sort(order[:n])].reset_index(drop=True)
    named = set(kept["tomogram"])
    places = [place for place in annotations.places if place.tomogram.name in named]
    return replace(annotations, places=places, table=kept)


def divide(
    annotations: Annotations, held_out: Sequence[str], enough: int = ENOUGH_TO_HOLD_OUT
) -> tuple[Annotations, Annotations | None]:
    """Divide annotations by tomograms into those to learn from and those that are held out.

    Parameters
    ----------
    annotations
        All of them.
    held_out
        As for :func:`gather`.
    enough
        Of so many tomograms one is held out if none is named.

    Raises
    ------
    InputError
        If a name is none of the tomograms', or all are named.
    """
    names = [place.tomogram.name for place in annotations.places]
    if list(held_out) == ["none"]:
        return annotations, None
    for name in held_out:
        if name not in names:
            raise InputError(f"`held_out={name}`: there is no tomogram of that name, only {', '.join(names)}")
    if not held_out and len(names) >= enough:
        counts = annotations.table["tomogram"].value_counts()
        held_out = [min(names, key=lambda name: (int(counts[name]), name))]
    if not held_out:
        return annotations, None
    if set(held_out) == set(names):
        raise InputError("`held_out` names all tomograms; leave one to learn from")

    def of(keep: Callable[[str], bool]) -> Annotations:
        places: list[Place] = [place for place in annotations.places if keep(place.tomogram.name)]
        rows = annotations.table["tomogram"].map(keep)
        return replace(annotations, places=places, table=annotations.table[rows].reset_index(drop=True))

    return of(lambda name: name not in held_out), of(lambda name: name in held_out)


def _simulation(
    card: ModelCard, classes: Sequence[ClassInfo], settings: FineTuning, say: Callable[[str], None]
) -> Simulation | None:
    """Open the corpus and choose its samples; None if it is of no use and need not be."""
    try:
        return _open_simulation(settings.corpus or str(card.provenance.get("corpus", "")), card, classes, say)
    except InputError as error:
        if settings.simulated_share > 0 or settings.corpus or settings.targets in ("shape", "oriented"):
            raise InputError(
                f"there are no simulated tomograms to learn from as well: {error}; name a corpus with "
                "`corpus`, or give `simulated_share=0` `targets=sphere` to do without"
            ) from error
        say(f"{error}: nobody will notice what is forgotten")
        return None


def _open_simulation(
    url: str, card: ModelCard, classes: Sequence[ClassInfo], say: Callable[[str], None]
) -> Simulation:
    """Open a corpus that fits a model; InputError if it does not."""
    if not url:
        raise InputError(f"the model {card.name!r} does not say which corpus it was trained on")
    catalog = Catalog.open(url)
    records = catalog.records()
    theirs = [(info.name, info.label) for info in sorted(catalog.classes, key=lambda info: info.label)]
    if theirs != [(info.name, info.label) for info in classes]:
        raise InputError(
            f"the corpus {url} has the classes {', '.join(name for name, _ in theirs)}, the model "
            f"{card.name!r} {', '.join(info.name for info in classes)}"
        )
    if card.contrast != CONTRAST:
        raise InputError(
            f"protein is {CONTRAST} in the corpus {url}, and the model {card.name!r} knows it {card.contrast}"
        )
    fitting = [
        record
        for record in records
        if abs(record.acquisition.voxel_size / card.voxel_size - 1) <= VOXEL_SIZE_TOLERANCE
    ]
    train = _known(fitting, card, "train")
    learned = {record.sample_id for record in train}
    val = [record for record in _known(fitting, card, "val") if record.sample_id not in learned]
    if not train:
        raise InputError(
            f"the corpus {url} has no samples of the split 'train' with voxels of {card.voxel_size:g} Å, as "
            f"the model {card.name!r} knows them"
        )
    if not val:
        say(f"the corpus {url} has no samples to validate on: nobody will notice what is forgotten")
    if len(val) > MOST_VALIDATED:
        order = generator("forgetting", len(val)).permutation(len(val))[:MOST_VALIDATED]
        val = [val[k] for k in sorted(order)]
    return Simulation(catalog, train, val)


def _known(records: Sequence[SampleRecord], card: ModelCard, split: str) -> list[SampleRecord]:
    """Find what a model was trained or validated on, as --hold-out may have chosen it; else the split's."""
    theirs = set(card.provenance.get(split, ()))
    found = [record for record in records if record.sample_id in theirs]
    return found or [record for record in records if record.split == split]


def _shapes(
    card: ModelCard,
    train: Annotations,
    simulation: Simulation | None,
    settings: FineTuning,
    say: Callable[[str], None],
) -> tuple[dict[str, Shape], bool]:
    """Find out what an annotation of each class is made into."""
    known = {info.name: info for info in card.classes}
    kind = settings.targets or ("shape" if simulation else "sphere")
    if kind == "sphere":
        if settings.targets is None:
            say("targets are spheres of the classes' radii, since there is no corpus to measure shapes on")
        return {name: sphere(known[name]) for name in train.counts}, False
    assert simulation is not None  # otherwise refused above
    if kind == "oriented" and not train.oriented:
        raise InputError(
            "`targets=oriented` needs picks with orientations, and no pick is turned; give shape"
        )
    if kind == "shape" and train.oriented:
        say(
            "the picks have orientations, which are not used; if they turn the structures of the corpus, as "
            "those of template matching with them do, give `targets=oriented`"
        )
    oriented = kind == "oriented"
    return {
        name: measure_shape(simulation.catalog, simulation.train, known[name], oriented=oriented)
        for name in train.counts
    }, oriented


def expected_share(material: Material, tomograms: Sequence[PreprocessedTomogram]) -> float:
    """Estimate which share of the unlabelled voxels are targets: as in the corpus, less what is annotated.

    Never less than a tenth of that in the corpus: somebody may have overlooked a few.

    Raises
    ------
    InputError
        If there is no corpus.
    """
    if material.simulation is None:
        raise InputError(
            "`unlabelled=positive-unlabelled` needs `prior` where there is no corpus to take it from"
        )
    volumes = {name: _volume(shape) for name, shape in material.shapes.items()}
    records = material.simulation.train
    there = sum(math.prod(record.shape) * record.acquisition.voxel_size**3 for record in records)
    filled = sum(n * volumes.get(name, 0.0) for record in records for name, n in record.class_counts.items())
    box = sum(math.prod(each.shape) * each.voxel_size**3 for each in tomograms)
    annotated = sum(n * volumes[name] for name, n in material.train.counts.items())
    share = filled / there
    return min(max(share - annotated / box, 0.1 * share, 1e-4), 0.5)


def _volume(shape: Shape) -> float:
    """Volume of a particle, Å³."""
    distance = np.arange(len(shape.profile)) * shape.spacing
    return float((shape.profile * 4 * math.pi * distance**2).sum()) * shape.spacing


def training_tomograms(
    material: Material,
    tomograms: Sequence[PreprocessedTomogram],
    settings: FineTuning,
    network: Any,
) -> AnnotatedTomograms:
    """Write the targets of the tomograms that are learned from, and open them for a stream.

    ``network`` is the model to begin with: it says which voxels may count as background, where that is asked.
    """
    predict = predictor(network)
    files, tables = [], []
    for tomogram in tomograms:
        table = material.train.of(tomogram.name)

        def write(
            out: NDArray[np.uint8], tomogram: PreprocessedTomogram = tomogram, table: pd.DataFrame = table
        ) -> None:
            _paint(material, tomogram, table, settings, out)
            if settings.background_below > 0:
                for box, probability in predict(tomogram.read()):
                    low = 1 - probability[..., 0] < settings.background_below
                    part = out[box]
                    part[low & (part == UNLABELLED)] = 0

        files.append(write_targets(tomogram, tomogram.grey.with_suffix(".targets.npy"), write))
        tables.append(table)
    unlabelled = {"ignore": IGNORED, "background": 0, "positive-unlabelled": UNLABELLED}[settings.unlabelled]
    return AnnotatedTomograms(tomograms, files, tables, material.channels, unlabelled)


def _paint(
    material: Material,
    tomogram: PreprocessedTomogram,
    table: pd.DataFrame,
    settings: FineTuning,
    out: NDArray[np.uint8],
) -> None:
    """Write down what the annotations of a tomogram say."""
    paint(
        table,
        material.shapes,
        material.channels,
        shape=tomogram.shape,
        voxel_size=tomogram.voxel_size,
        radii={info.name: info.radius for info in material.classes},
        offset=tomogram.offset,
        background_shell=settings.background_shell,
        oriented=material.oriented,
        out=out,
    )


def simulated(material: Material) -> Validation | None:
    """Open the simulated tomograms that tell how much is forgotten; None if there are none."""
    if material.simulation is None or not material.simulation.val:
        return None
    return open_validation(material.simulation.catalog, material.simulation.val)


def _inside(tomogram: PreprocessedTomogram) -> NDArray[np.float16]:
    """Grey values; nothing where nobody looked, for what would be found there."""
    inside, grey = tomogram.inside(), tomogram.read()
    return grey if inside is None else np.where(inside, grey, np.float16(0))


def held_out(
    material: Material,
    settings: FineTuning,
    preprocessing: Preprocessing,
    folder: Path,
    memory: float,
    say: Callable[[str], None],
) -> Validation | None:
    """Open the annotated tomograms that are not learned from; None if there are none.

    Only picks are compared there: of voxels it is not known which are a particle's. What the annotations say
    of them is there to be shown.
    """
    if material.held_out is None:
        return None
    card = material.card
    ready = prepare_tomograms(material.held_out.places, card, preprocessing, folder, memory=memory, say=say)
    held = []
    for each in ready:
        table = material.held_out.of(each.name)
        known = table[table["class_name"].isin(material.shapes)]  # a class that is learned has a shape
        file = write_targets(
            each, each.grey.with_suffix(".targets.npy"), partial(_paint, material, each, known, settings)
        )
        held.append(
            Held(
                name=each.name,
                grey=_inside(each),
                truth=np.broadcast_to(np.uint8(IGNORE), each.shape),
                particles=in_frame(table, each),
                annotated=np.load(file, mmap_mode="r"),
            )
        )
    return Validation(tuple(material.classes), ready[0].voxel_size, held)
