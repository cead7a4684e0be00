"""Fine-tune a model on a few annotated tomograms, and limit how much it forgets of simulated ones."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catalogs.amounts import duration
from catalogs.console import DISTRIBUTION, counted
from catalogs.corpus.catalog import Catalog
from catalogs.former_names import as_stored
from catalogs.model_file import ModelCard, fingerprint, read_card, write_model
from catalogs.progress import Progress as ProgressBar
from catalogs.progress import Silent
from catalogs.seeds import digest
from tlpick.network.keras_network import load_keras
from tlpick.network.tomograms.intake import Preprocessing
from tltrain.data.augment import Augmentation
from tltrain.data.sampling import Sampling
from tltrain.data.stream import Mixed, PatchStream, open_stream, open_stream_of
from tltrain.finetune import training_material
from tltrain.finetune.annotated_tomograms import PreprocessedTomogram, prepare_tomograms
from tltrain.finetune.annotations import Annotations
from tltrain.finetune.evaluation import Assessment, assess, assess_start, outcome_of, score_of
from tltrain.finetune.loss import apart, positive_unlabelled
from tltrain.finetune.page import facts_of
from tltrain.finetune.settings import FineTuning, check
from tltrain.finetune.training_material import Material
from tltrain.networks.architectures import Architecture, architecture
from tltrain.reporting.journal import Journal, journal_of
from tltrain.reporting.progress import Progress
from tltrain.training import checkpoint, loop
from tltrain.training.cards import history, keras_file, now, plain, software
from tltrain.training.checkpoint import State
from tltrain.training.corpus_checks import check_usual
from tltrain.training.fit import (
    alone,
    partial_folder,
    replaces,
    standing_model,
    swept_if_refused,
    target_of,
    unfinished,
)
from tltrain.training.learner import Learner, Optimisation, slow_here
from tltrain.training.loop import ValidationResult
from tltrain.training.losses import loss_of
from tltrain.training.settings import check_patch
from tltrain.training.validation import Validation

_log = logging.getLogger(__name__)

#: Factor on the learning rate for training from scratch.
GENTLER = 0.5
#: Validations in a fine-tuning, unless the user says.
VALIDATIONS = 10
# For a short training on little data, patches from many places are more important than the cost of reading.
_VARIED: dict[str, Any] = {"per_block": 8, "spread": 4}


@dataclass(frozen=True)
class Tuned:
    """The result of a fine-tuning.

    Attributes
    ----------
    card
        Card of the tuned model.
    forgot
        Why the training was stopped; empty if it was not.
    """

    card: ModelCard
    forgot: str = ""


def finetune(
    model: str | os.PathLike[str],
    annotations: Annotations,
    to: str | os.PathLike[str],
    settings: FineTuning | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    held_out: Sequence[str] = (),
    memory: float = 4e9,
    prepared: Path | None = None,
    overwrite: bool = True,
    say: Callable[[str], None] = _log.info,
    progress: ProgressBar = Silent,
) -> Tuned:
    """Fine-tune a model on annotated tomograms and write it as another one.

    The unfinished training is kept in ``TO.partial``, from which the same call continues after a crash. A
    folder beside the model gets a page of curves, a table and events for TensorBoard. The network with the
    best F1 on the held-out tomograms is kept, which may be the model as it was before; without held-out
    tomograms, the last network is kept. If F1 on simulated tomograms falls by more than allowed, the training
    ends, and only the networks before that count.

    Parameters
    ----------
    model
        File of the model to begin with.
    annotations
        In the tomograms; see :func:`tltrain.finetune.annotations.read_annotations`.
    to
        File of the tuned model.
    settings
        How; None: the defaults.
    preprocessing
        How the tomograms are preprocessed for the model; None: they must fit as they are.
    held_out
        Names of held-out tomograms; see :func:`tltrain.finetune.training_material.gather`.
    memory
        Bytes that the preprocessing of a tomogram may use.
    prepared
        Folder where preprocessed tomograms are kept, to be used again; None: in
        that of the unfinished training.
    overwrite
        Whether a model with other settings, or its unfinished training, may be replaced.
    say
        Called with a sentence about each stage; by default, the sentences are logged.
    progress
        Shows the progress.

    Returns
    -------
    Tuned

    Raises
    ------
    InputError
        If a setting is not valid or is unusual, the tomograms do not fit the model, or the corpus is needed
        and cannot be used.
    """
    settings, preprocessing = settings or FineTuning(), preprocessing or Preprocessing()
    check(settings)
    card = read_card(model)
    check_usual(
        card.classes, card.voxel_size, settings.learning_rate, preprocessing.yes, f"the model {card.name!r}"
    )
    arch = architecture(card.network)
    patch = _patch(settings, card, arch)
    target = target_of(to, model)
    standing = standing_model(target)
    parent = fingerprint(model)
    settings = training_material.settled(settings, card, say)
    material = training_material.gather(card, annotations, held_out, settings, say)
    partial = partial_folder(target)
    with alone(partial), swept_if_refused(partial):
        folder = prepared or partial / "tomograms"
        tomograms = prepare_tomograms(
            material.train.places, card, preprocessing, folder, memory=memory, say=say
        )
        held = training_material.held_out(material, settings, preprocessing, folder, memory, say)
        identity = _identity(parent, material, tomograms, settings, preprocessing)
        if standing is not None and standing.training.get("fingerprint") == identity:
            say(f"{target} is already fine-tuned with these settings on these annotations")
            _remove(partial)
            return Tuned(standing, standing.training["fine_tuning"]["stopped"])
        if standing is not None:
            replaces(target, overwrite, say)
        state = unfinished(partial, identity, overwrite, say)
        lead = _introduction(material, settings, held)
        say(lead)

        before = _copy(load_keras(model), arch, card)
        stream = _stream(material, tomograms, settings, patch, before, say)
        known = training_material.simulated(material)
        learner = Learner(
            lambda: _copy(before, arch, card, fresh=settings.from_scratch, seed=settings.seed),
            _optimisation(settings, arch, material, tomograms),
        )
        if slow := slow_here():
            say(slow)
        journal = Journal(
            journal_of(target), facts_of(target, str(model), lead, material, tomograms, settings)
        )
        state = state or _first_state(identity, before, known, held, card, settings, journal)
        begin = state.history[0]
        if begin.get("words"):
            say(f"before: {begin['words']}")
        journal.write(state)
        say(f"progress: {journal.folder / 'training.html'}")

        def validate(network: Any) -> ValidationResult:
            assessment = assess(network, known, held, card.thresholds)
            journal.previews = assessment.previews
            return outcome_of(assessment, begin, settings)

        schedule = loop.schedule_of(settings.steps, settings.validate_every, VALIDATIONS)
        file = partial / "state.npz"
        trained = loop.train(
            learner, stream, state, schedule, file, validate=validate, watch=[journal], shown=progress
        )
        with learner.averaged() as network:
            if state.best:
                checkpoint.assign(network.variables, state.best)
            assessment = assess(network, known, held, card.thresholds)
            tuned = _card(
                target, model, parent, material, tomograms, settings, patch, state, assessment, trained
            )
            write_model(target, tuned, keras_file(arch, network, len(card.classes) + 1))
        journal.previews = assessment.previews
        journal.write(state, done=True)
        _remove(partial)
        say(f"wrote {target}: {_summary(tuned, state)}")
        return Tuned(tuned, state.stopped)


def baseline(
    model: str | os.PathLike[str],
    annotations: Annotations,
    settings: FineTuning,
    *,
    preprocessing: Preprocessing | None = None,
    held_out: Sequence[str] = (),
    memory: float = 4e9,
    prepared: Path,
    say: Callable[[str], None] = _log.info,
) -> dict[str, Any]:
    """Evaluate a model before any fine-tuning; returns the facts of :class:`Assessment`.

    Parameters and errors are those of :func:`finetune`.
    """
    check(settings)
    card = read_card(model)
    settings = training_material.settled(settings, card, lambda _: None)
    material = training_material.gather(card, annotations, held_out, settings, lambda _: None)
    held = training_material.held_out(
        material, settings, preprocessing or Preprocessing(), prepared, memory, say
    )
    before = _copy(load_keras(model), architecture(card.network), card)
    say(f"evaluating {card.name} before fine-tuning")
    known = training_material.simulated(material)
    return assess_start(before, known, held, card).facts


def _first_state(
    identity: str,
    before: Any,
    known: Validation | None,
    held: Validation | None,
    card: ModelCard,
    settings: FineTuning,
    journal: Journal,
) -> State:
    """Evaluate the model as it is, which counts as the first network of the training."""
    state = State(identity)
    if settings.from_scratch:
        state.history.append({"step": 0, "loss": None})
        return state
    assessment = assess_start(before, known, held, card)
    journal.previews = assessment.previews
    state.history.append({"step": 0, "loss": None, "words": assessment.words, **assessment.facts})
    state.best = checkpoint.values(before.variables)
    state.best_score = list(score_of(assessment.facts, settings))
    return state


def _stream(
    material: Material,
    tomograms: Sequence[PreprocessedTomogram],
    settings: FineTuning,
    patch: int,
    network: Any,
    say: Callable[[str], None],
) -> PatchStream | Mixed:
    """Open the stream of patches."""
    simulated, real = _divide(settings)
    annotated = training_material.training_tomograms(material, tomograms, settings, network)
    # a patch without annotations has no labels, unless unlabelled voxels are used
    elsewhere = 0.3 if settings.unlabelled != "ignore" or settings.surely_background > 0 else 0.0
    ours = open_stream_of(
        annotated,
        patch=patch,
        batch=real,
        seed=settings.seed,
        sampling=Sampling(target=1 - elsewhere, distractor=0.0, background=elsewhere),
        augmentation=Augmentation(),
        tell=say,
        **_VARIED,
    )
    if not simulated:
        return ours
    assert material.simulation is not None  # otherwise it was refused
    theirs = open_stream(
        material.simulation.catalog,
        material.simulation.train,
        patch=patch,
        batch=simulated,
        seed=settings.seed,
        sampling=Sampling(),
        augmentation=Augmentation(),
        tell=say,
        **_VARIED,
    )
    return Mixed((theirs, ours))


def _divide(settings: FineTuning) -> tuple[int, int]:
    """Divide a batch into simulated and real patches; at least one of each kind that is used."""
    if settings.simulated == 0 or settings.from_scratch:
        return 0, settings.batch
    simulated = min(max(round(settings.batch * settings.simulated), 1), settings.batch - 1)
    return simulated, settings.batch - simulated


def _optimisation(
    settings: FineTuning, arch: Architecture, material: Material, tomograms: Sequence[PreprocessedTomogram]
) -> Optimisation:
    gentle = 1.0 if settings.from_scratch else GENTLER
    simulated, real = _divide(settings)
    loss = of_real = loss_of("dice-cross-entropy", len(material.classes) + 1, {})
    if settings.unlabelled == "positive-unlabelled":
        prior = settings.prior or training_material.expected_share(material, tomograms)
        of_real = positive_unlabelled(loss, prior)
    return Optimisation(
        steps=settings.steps,
        learning_rate=settings.learning_rate or gentle * arch.learning_rate,
        loss=apart(loss, of_real, simulated, simulated + real),
        precision=settings.precision,
        devices=1,  # otherwise the parts of a batch would be on several devices
    )


def _copy(network: Any, arch: Architecture, card: ModelCard, *, fresh: bool = False, seed: int = 0) -> Any:
    """Build the architecture of the same name with the network's weights, or with fresh ones."""
    made = arch.build(len(card.classes) + 1, seed)
    if not fresh:
        made.set_weights(network.get_weights())
    return made


def _patch(settings: FineTuning, card: ModelCard, arch: Architecture) -> int:
    patch = settings.patch or card.patch
    check_patch(patch, arch)
    return patch


def _identity(
    parent: str,
    material: Material,
    tomograms: Sequence[PreprocessedTomogram],
    settings: FineTuning,
    preprocessing: Preprocessing,
) -> str:
    """Hash everything that determines a fine-tuning: model, annotations, voxels, samples, this program."""
    simulation = material.simulation
    samples = (
        {}
        if simulation is None
        else {record.sample_id: record.checksums for record in (*simulation.train, *simulation.val)}
    )
    held_out = None if material.held_out is None else _rows(material.held_out.table)
    return digest(
        {
            "parent": parent,
            "settings": as_stored(settings),
            "terms": as_stored(preprocessing),
            "tomograms": {each.name: each.content for each in tomograms},
            "annotations": _rows(material.train.table),
            **({} if material.train.rejected is None else {"rejected": _rows(material.train.rejected)}),
            "held out": held_out,
            "samples": samples,
            "software": version(DISTRIBUTION),
        }
    )


def _rows(table: Any) -> list[list[Any]]:
    columns = ["tomogram", "class_name", "x", "y", "z", "qx", "qy", "qz", "qw"]
    return table[columns].to_numpy(object).tolist()


def _introduction(material: Material, settings: FineTuning, held: Validation | None) -> str:
    counts = ", ".join(f"{n} of {name}" for name, n in material.train.counts.items())
    places = material.train.places
    text = f"fine-tuning {material.card.name} on {counts} in {counted(len(places), 'tomogram')}"
    if settings.from_scratch:
        text = f"training from scratch on {counts} in {counted(len(places), 'tomogram')}"
    elif settings.simulated > 0 and material.simulation is not None:
        simulated, real = _divide(settings)
        text += f", {simulated} simulated patches to every {real}"
    if material.train.rejected is not None:
        text += f", and on {counted(len(material.train.rejected), 'rejected pick')}"
    if held is not None and material.held_out is not None:
        names = ", ".join(place.tomogram.name for place in material.held_out.places)
        text += f"; held out: {names}"
    return text


def _card(
    target: Path,
    model: str | os.PathLike[str],
    parent: str,
    material: Material,
    tomograms: Sequence[PreprocessedTomogram],
    settings: FineTuning,
    patch: int,
    state: State,
    assessment: Assessment,
    progress: Progress,
) -> ModelCard:
    """Make the card of the tuned model, with its origin."""
    card, begin = material.card, state.history[0]
    facts, scores = assessment.facts, assessment.simulated
    counts = material.train.table["tomogram"].value_counts()
    forgotten = None
    if "simulated" in facts and "simulated" in begin:
        forgotten = round(begin["simulated"]["f1"] - facts["simulated"]["f1"], 4)
    fine_tuning = {
        "parent": parent,
        "parent_name": card.name,
        "parent_file": str(model),
        "tomograms": [
            {
                "name": each.name,
                "path": each.path,
                "content": each.content,
                "annotations": int(counts[each.name]),
            }
            for each in tomograms
        ],
        "held_out": [p.tomogram.name for p in material.held_out.places] if material.held_out else [],
        "annotations": material.train.counts,
        **({} if material.train.rejected is None else {"rejected": len(material.train.rejected)}),
        "mix": settings.simulated if material.simulation is not None else 0.0,
        "before": {key: begin[key] for key in ("simulated", "held_out") if key in begin},
        "after": facts,
        "forgotten": forgotten,
        "max_forgetting": settings.max_forgetting,
        "stopped": state.stopped,
    }
    simulation = material.simulation
    return card.model_copy(
        update={
            "name": target.stem,
            "created": now(),
            "patch": patch,
            "thresholds": dict(assessment.thresholds),
            "training": {
                "fingerprint": state.fingerprint,
                "settings": plain(as_stored(settings)),
                "steps": state.step,
                "stopped": state.stopped,
                "voxel_f1": plain(scores.f1) if scores else {},
                "picks": plain({name: asdict(score) for name, score in scores.picks.items()})
                if scores
                else {},
                "best_step": state.best_step if state.best else state.step,
                "history": history(state),
                "seconds": round(state.seconds, 1),
                "patches_per_second": round(progress.rate(state.step), 2),
                "wait_share": round(progress.wait_share, 4),
                "fine_tuning": fine_tuning,
            },
            "provenance": card.provenance
            | {"parent": card.training}
            | ({} if simulation is None else _source(simulation.catalog))
            | {"software": software()},
            # the calibration of the old network's scores is not valid for the new one
            "calibration": {},
        }
    )


def _source(catalog: Catalog) -> dict[str, str]:
    return {"corpus": catalog.url, "corpus_digest": catalog.digest}


def _summary(card: ModelCard, state: State) -> str:
    tuning = card.training["fine_tuning"]
    parts = []
    for key, name in (("held_out", "held-out"), ("simulated", "simulated")):
        if key in tuning["after"]:
            before = f"{tuning['before'][key]['f1']:.3f} before, " if key in tuning["before"] else ""
            parts.append(f"F1 on {name} tomograms {before}{tuning['after'][key]['f1']:.3f} now")
    parts.append(
        f"best of step {card.training['best_step']}, {state.step} steps in {duration(state.seconds)}"
    )
    return "; ".join(parts)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
