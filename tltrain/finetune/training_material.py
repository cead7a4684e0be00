"""Data of a fine-tuning: annotated tomograms, held-out ones, and the corpus of the model."""

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
from catalogs.particle_table import DISTRACTOR
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
from tltrain.finetune.settings import SIMULATED_SHARE, SURELY_BACKGROUND, FineTuning
from tltrain.finetune.targets import IGNORED, UNLABELLED, Shape, measure_shape, paint, sphere
from tltrain.training.cards import CONTRAST
from tltrain.training.losses import IGNORE
from tltrain.training.validation import Held, Validation, open_validation

#: Number of simulated tomograms used to detect forgetting, and of tomograms from which one is held out.
MOST_VALIDATED, ENOUGH_TO_HOLD_OUT = 4, 3


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulated corpus used to detect forgetting.

    ``train`` and ``val`` are samples of the model's voxel size.
    """

    catalog: Catalog
    train: Sequence[SampleRecord]
    val: Sequence[SampleRecord]


@dataclass(frozen=True, eq=False)
class Material:
    """All data of a fine-tuning, checked.

    Attributes
    ----------
    card
        Of the model to begin with.
    classes
        Of the model, in the order of the network's outputs after the background.
    train, held_out
        Annotations for training, and those of held-out tomograms.
    simulation
        The corpus; None if it cannot be used and no simulated patches are mixed in.
    shapes
        Class -> its shape.
    oriented
        Whether shapes are rotated as the annotations.
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


def settled(settings: FineTuning, card: ModelCard, say: Callable[[str], None]) -> FineTuning:
    """Fill in the settings that depend on whether the corpus of the model is there.

    With the corpus, half of the patches are simulated ones. Without it, and unless the user asked for it, the
    network learns from the annotated tomograms alone: targets are spheres, and voxels that the model is sure
    are background remain background, so that it does not forget what a particle is not.

    Parameters
    ----------
    settings
        As the user gave them.
    card
        Of the model.
    say
        Called with a sentence if the corpus is not there.

    Returns
    -------
    FineTuning
        With numbers for ``simulated_share`` and ``background_below``.
    """
    share, below = settings.simulated_share, settings.background_below
    asked = settings.corpus is not None or settings.targets in ("shape", "oriented")
    if share is None and not asked and not settings.from_scratch:
        classes = sorted(card.classes, key=lambda info: info.label)
        try:
            _open_simulation(str(card.provenance.get("corpus", "")), card, classes, lambda _: None)
        except InputError as error:
            below = SURELY_BACKGROUND if below is None else below
            say(
                f"the model {card.name!r} learns from these tomograms alone, because the simulated ones that "
                f"it was trained on cannot be used ({error}); what it calls background with more than "
                f"{1 - below:.0%} stays background; `corpus` names a corpus of the same classes"
            )
            return replace(settings, simulated_share=0.0, background_below=below, targets="sphere")
    return replace(
        settings,
        simulated_share=SIMULATED_SHARE if share is None else share,
        background_below=0.0 if below is None else below,
    )


def gather(
    card: ModelCard,
    annotations: Annotations,
    held_out: Sequence[str],
    settings: FineTuning,
    say: Callable[[str], None],
) -> Material:
    """Collect the data of a fine-tuning.

    Parameters
    ----------
    card
        Of the model.
    annotations
        In all tomograms.
    held_out
        Names of held-out tomograms; ``none`` alone: hold out none. Empty: of three or more tomograms, the one
        with the fewest annotations is held out.
    settings
        Of the fine-tuning, as :func:`settled` returns them.
    say
        Called with sentences about what was found and decided.

    Raises
    ------
    InputError
        If a held-out tomogram does not exist or none would be left, the corpus is needed and cannot be read,
        or it has other classes or another voxel size than the model.
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
    """Draw some of the annotations; with the same seed, a smaller draw is part of a larger one.

    Raises
    ------
    InputError
        If there are not enough.
    """
    table = annotations.table
    if n > len(table):
        raise InputError(
            f"{n} annotations were requested, but there are only {len(table)} to learn from; ask for fewer"
        )
    order = generator(seed, "annotations").permutation(len(table))
    kept = table.iloc[np.sort(order[:n])].reset_index(drop=True)
    named = set(kept["tomogram"])
    places = [place for place in annotations.places if place.tomogram.name in named]
    rejected = annotations.rejected
    if rejected is not None:
        rejected = rejected[rejected["tomogram"].isin(named)].reset_index(drop=True)
    return replace(annotations, places=places, table=kept, rejected=rejected)


def divide(
    annotations: Annotations, held_out: Sequence[str], enough: int = ENOUGH_TO_HOLD_OUT
) -> tuple[Annotations, Annotations | None]:
    """Divide annotations by tomograms into those for training and those that are held out.

    Parameters
    ----------
    annotations
        All of them.
    held_out
        As for :func:`gather`.
    enough
        With this many tomograms or more, one is held out if none is named.

    Raises
    ------
    InputError
        If a name is unknown, or all tomograms are named.
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
        rejected = annotations.rejected
        if rejected is not None:
            rejected = rejected[rejected["tomogram"].map(keep)].reset_index(drop=True)
        return replace(
            annotations,
            places=places,
            table=annotations.table[rows].reset_index(drop=True),
            rejected=rejected,
        )

    return of(lambda name: name not in held_out), of(lambda name: name in held_out)


def _simulation(
    card: ModelCard, classes: Sequence[ClassInfo], settings: FineTuning, say: Callable[[str], None]
) -> Simulation | None:
    """Open the corpus and choose its samples; None if it cannot be used and is not required."""
    try:
        return _open_simulation(settings.corpus or str(card.provenance.get("corpus", "")), card, classes, say)
    except InputError as error:
        if settings.simulated > 0 or settings.corpus or settings.targets in ("shape", "oriented"):
            raise InputError(
                f"there are no simulated tomograms to learn from as well: {error}; name a corpus with "
                "`corpus`, or give `simulated_share=0` `targets=sphere` to do without"
            ) from error
        say(f"{error}: forgetting is not measured")
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
            f"protein is {CONTRAST} in the corpus {url}, and the model {card.name!r} expects it "
            f"{card.contrast}"
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
        say(f"the corpus {url} has no samples to validate on: forgetting is not measured")
    if len(val) > MOST_VALIDATED:
        order = generator("forgetting", len(val)).permutation(len(val))[:MOST_VALIDATED]
        val = [val[k] for k in sorted(order)]
    return Simulation(catalog, train, val)


def _known(records: Sequence[SampleRecord], card: ModelCard, split: str) -> list[SampleRecord]:
    """Find the samples on which a model was trained or validated, or else those of the split."""
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
    """Find the shape that replaces an annotation of each class."""
    known = {info.name: info for info in card.classes}
    kind = settings.targets or ("shape" if simulation else "sphere")
    if kind == "sphere":
        if settings.targets is None:
            say("targets are spheres of the classes' radii, since there is no corpus to measure shapes on")
        return {name: sphere(known[name]) for name in train.counts}, False
    assert simulation is not None  # otherwise it was refused above
    if kind == "oriented" and not train.oriented:
        raise InputError("`targets=oriented` needs picks with orientations, and no pick has one; give shape")
    if kind == "shape" and train.oriented:
        say(
            "the picks have orientations, which are not used; if they refer to the structures of the corpus, "
            "as after template matching with these, give `targets=oriented`"
        )
    oriented = kind == "oriented"
    return {
        name: measure_shape(simulation.catalog, simulation.train, known[name], oriented=oriented)
        for name in train.counts
    }, oriented


def expected_share(material: Material, tomograms: Sequence[PreprocessedTomogram]) -> float:
    """Estimate the share of targets among unlabelled voxels: that of the corpus minus the annotated ones.

    It is at least a tenth of the share in the corpus, because some particles may have been overlooked.

    Raises
    ------
    InputError
        If there is no corpus.
    """
    if material.simulation is None:
        raise InputError(
            "`unlabelled=positive-unlabelled` needs `prior` if there is no corpus to estimate it"
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
    """Write the targets of the training tomograms, and open them for a stream.

    ``network`` is the model to begin with; if requested, it decides which voxels count as background.
    """
    predict = predictor(network)
    files, tables = [], []
    for tomogram in tomograms:
        table, rejected = material.train.of(tomogram.name), material.train.rejected_in(tomogram.name)

        def write(
            out: NDArray[np.uint8],
            tomogram: PreprocessedTomogram = tomogram,
            table: pd.DataFrame = table,
            rejected: pd.DataFrame = rejected,
        ) -> None:
            _paint(material, tomogram, table, settings, out, rejected)
            if settings.surely_background > 0:
                for box, probability in predict(tomogram.read()):
                    low = 1 - probability[..., 0] < settings.surely_background
                    part = out[box]
                    part[low & (part == UNLABELLED)] = 0

        files.append(write_targets(tomogram, tomogram.grey.with_suffix(".targets.npy"), write))
        # patches around rejected picks are drawn as often as around a corpus' distractors
        no_particles = rejected.assign(class_name=DISTRACTOR)
        tables.append(pd.concat([table, no_particles], ignore_index=True) if len(rejected) else table)
    unlabelled = {"ignore": IGNORED, "background": 0, "positive-unlabelled": UNLABELLED}[settings.unlabelled]
    return AnnotatedTomograms(tomograms, files, tables, material.channels | {DISTRACTOR: 0}, unlabelled)


def _paint(
    material: Material,
    tomogram: PreprocessedTomogram,
    table: pd.DataFrame,
    settings: FineTuning,
    out: NDArray[np.uint8],
    rejected: pd.DataFrame | None = None,
) -> None:
    """Write the targets of one tomogram."""
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
        rejected=rejected,
    )


def simulated(material: Material) -> Validation | None:
    """Open the simulated tomograms used to detect forgetting; None if there are none."""
    if material.simulation is None or not material.simulation.val:
        return None
    return open_validation(material.simulation.catalog, material.simulation.val)


def _inside(tomogram: PreprocessedTomogram) -> NDArray[np.float16]:
    """Return grey values, with zeros outside of the mask, so that nothing is found there."""
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
    """Open the held-out annotated tomograms; None if there are none.

    Only picks are compared there, because the true class of each voxel is not known. The targets made from
    the annotations are only for display.
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
