"""One training, from a corpus to a model file: it can be killed at any moment and started again."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from catalogs.console import DISTRIBUTION, counted, refuse_url, without_greetings
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.former_names import as_stored
from catalogs.machine import require_backend
from catalogs.model_file import ModelCard, fingerprint, read_card, require, write_model
from catalogs.progress import Progress as ProgressBar
from catalogs.progress import Silent
from catalogs.schema import SampleRecord
from catalogs.seeds import digest
from tlpick.network.keras_network import load_keras
from tlpick.network.model import predictor
from tltrain.data.splits import split_samples
from tltrain.data.stream import open_stream
from tltrain.networks.architectures import Architecture
from tltrain.reporting.journal import Journal, journal_of
from tltrain.reporting.page import Facts
from tltrain.training import checkpoint, loop
from tltrain.training.cards import card_of, keras_file, summary
from tltrain.training.checkpoint import State
from tltrain.training.corpus_checks import check_samples, check_usual
from tltrain.training.learner import Learner, slow_here
from tltrain.training.loop import ValidationResult
from tltrain.training.settings import VALIDATIONS, Settings, checked, optimisation
from tltrain.training.validation import Validation, open_validation

_log = logging.getLogger(__name__)


def fit(
    url: str,
    to: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    yes: bool = False,
    overwrite: bool = True,
    say: Callable[[str], None] = _log.info,
    progress: ProgressBar = Silent,
) -> ModelCard:
    """Train a network on a corpus and write it as a model file.

    The unfinished training is kept in a folder ``TO.partial``, from which the same call continues after a
    crash; it is removed at the end. An existing model with the same settings and samples is left as it is.
    The learning rate rises over the first steps and falls along a cosine (Loshchilov and Hutter, ICLR 2017).
    Samples of the split ``val`` choose the best weights and the thresholds; those of the split ``test`` are
    never opened.

    Parameters
    ----------
    url
        Of the corpus.
    to
        The model file.
    settings
        How to train; None: the defaults.
    yes
        Train although the corpus or a setting is unusual, for example with voxels of 1 Å.
    overwrite
        Whether a model with other settings, or its unfinished training, may be replaced.
    say
        Called with a sentence about each stage; by default, the sentences are logged.
    progress
        Shows the progress.

    Returns
    -------
    ModelCard
        Card of the model at ``to``.

    Raises
    ------
    InputError
        If there is no corpus at ``url``, no sample to train on, no target in the samples, samples of several
        voxel sizes, a setting that is not valid or is unusual, or a file at ``to`` that is not a model.
    """
    require_backend()
    settings = settings or Settings()
    arch = checked(settings)
    catalog = Catalog.open(url)
    how = optimisation(settings, arch, catalog.classes)
    train, val = split_samples(
        catalog, settings.where, settings.hold_out, by=settings.hold_out_by, seed=settings.seed
    )
    voxels = train[0].acquisition.voxel_size
    if settings.start is not None:
        start_card = read_card(settings.start)
        require(
            start_card, settings.start, classes=catalog.classes, voxel_size=voxels, network=settings.network
        )
    check_samples(catalog.classes, train, val)
    check_usual(catalog.classes, voxels, settings.learning_rate, yes)
    identity = _identity(catalog, settings, train, val)
    target = target_of(to, settings.start)
    standing = standing_model(target)
    if standing is not None and standing.training.get("fingerprint") == identity:
        say(f"{target} is already trained with these settings on these samples")
        shutil.rmtree(_partial_of(target), ignore_errors=True)  # killed before it was removed
        return standing
    if standing is not None:
        replaces(target, overwrite, say)
    partial = partial_folder(target)

    lead = f"training {settings.network} on {counted(len(train), 'tomogram')} of {voxels:g} Å a voxel, " + (
        f"validating on {len(val)}" if val else "without validation: no sample has the split 'val'"
    )
    say(lead)
    with alone(partial), swept_if_refused(partial):
        state = unfinished(partial, identity, overwrite, say)
        with without_greetings():
            import keras  # noqa: F401
        stream = open_stream(
            catalog,
            train,
            patch=settings.patch,
            batch=settings.batch,
            seed=settings.seed,
            sampling=settings.sampling,
            augmentation=settings.augmentation,
            max_damaged=settings.max_damaged,
            tell=say,
        )
        n_classes = len(catalog.classes) + 1
        learner = Learner(lambda: _first(arch, n_classes, settings), how)
        if slow := slow_here():
            say(slow)
        network = learner.network
        validation = open_validation(catalog, val) if val else None
        state = state or State(identity)

        journal = Journal(journal_of(target), _facts(target, lead, catalog, settings))
        journal.write(state)
        say(f"progress: {journal.folder / 'training.html'}")
        trained = loop.train(
            learner,
            stream,
            state,
            loop.schedule_of(settings.steps, settings.validate_every, VALIDATIONS, settings.patience),
            partial / "state.npz",
            validate=None if validation is None else _validating(validation, journal),
            watch=[journal],
            shown=progress,
        )
        if state.stopped:
            say(f"stopped after step {state.step}: {state.stopped}")
        if not state.best:  # without validation, the last weights are kept
            with learner.averaged():
                state.best = checkpoint.values(network.variables)
        checkpoint.assign(network.variables, state.best)
        scores = validation.score(predictor(network)) if validation else None
        card = card_of(target.stem, catalog, settings, arch, network, state, scores, trained, (train, val))
        write_model(target, card, keras_file(arch, network, n_classes))
        if scores is not None:
            journal.previews = scores.previews
        journal.write(state, done=True)
        shutil.rmtree(partial)
        say(f"wrote {target}: {summary(card, state)}")
        return card


def _validating(validation: Validation, journal: Journal) -> Callable[[object], ValidationResult]:
    """Make a function that validates a network and shows the result on the page."""

    def validate(network: object) -> ValidationResult:
        scores = validation.score(predictor(network))
        if all(math.isnan(value) for value in scores.f1.values()):
            raise InputError(
                "F1 is not a number: no voxel of the validation samples belongs to a class; make the "
                "molecules larger or the voxels smaller, or validate on other samples with `hold_out`"
            )
        journal.previews = scores.previews
        return scores.outcome()

    return validate


def _first(arch: Architecture, n_classes: int, settings: Settings) -> object:
    """Make the network with the weights to begin with."""
    network = arch.build(n_classes, settings.seed)
    if settings.start is not None:
        network.set_weights(load_keras(settings.start).get_weights())
    return network


def _facts(target: Path, lead: str, catalog: Catalog, settings: Settings) -> Facts:
    names = [info.name for info in sorted(catalog.classes, key=lambda info: info.label)]
    usual, chosen = asdict(Settings()), asdict(settings)
    sampling, effects = chosen.pop("sampling"), chosen.pop("augmentation")
    words = [
        f"{name.replace('_', ' ')} {value}" for name, value in chosen.items() if name != "where" and value
    ]
    if sampling != usual["sampling"]:
        words += [f"{name} {share:g}" for name, share in sampling.items()]
    for name, effect in effects.items():
        if effect != usual["augmentation"][name]:
            words.append(f"{name.replace('_', ' ')} {effect['probability']:g}:{effect['strength']:g}")
    table = {"Corpus": catalog.url, "Model": str(target), "Samples": settings.where}
    table["Settings"] = ", ".join(words)
    return Facts(target.stem, lead[0].upper() + lead[1:], names, settings.steps, settings.batch, table)


def _identity(
    catalog: Catalog, settings: Settings, train: Sequence[SampleRecord], val: Sequence[SampleRecord]
) -> str:
    """Hash everything that determines a training: the settings, the classes, the samples, this program."""
    return digest(
        {
            "settings": as_stored(settings)
            | {"start": None if settings.start is None else fingerprint(settings.start)},
            "classes": [info.model_dump() for info in catalog.classes],
            "train": {record.sample_id: record.checksums for record in train},
            "val": {record.sample_id: record.checksums for record in val},
            "software": version(DISTRIBUTION),
        }
    )


def target_of(to: str | os.PathLike[str], start: str | os.PathLike[str] | None) -> Path:
    """Return the path of the model file, which must not be that of the model to begin with.

    Raises
    ------
    InputError
        If it is not a path on a disk, or if it is the model that the training begins with.
    """
    target = Path(to)
    refuse_url(to)
    if start is not None and target.exists() and target.samefile(start):
        raise InputError(
            f"{target} is the model that the training begins with; give `to` another path, or the same "
            "command could not be repeated"
        )
    return target


def standing_model(target: Path) -> ModelCard | None:
    """Read the existing model; a file that is not a model is not overwritten."""
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file for the model, such as {target / 'model.tlm'}")
    return read_card(target) if target.exists() else None


def replaces(target: Path, overwrite: bool, say: Callable[[str], None]) -> None:
    """Report that a model will be replaced; InputError if this was not asked for."""
    if not overwrite:
        raise InputError(
            f"{target} was trained with other settings, on other samples or by another version of the "
            "program; give `to` another path, or `overwrite`"
        )
    say(f"{target} was trained with other settings or samples and will be replaced")


def unfinished(partial: Path, identity: str, overwrite: bool, say: Callable[[str], None]) -> State | None:
    """Read the state of an unfinished training to continue from; None to begin.

    Raises
    ------
    InputError
        If the state belongs to another training, and it may not be replaced.
    """
    file = partial / "state.npz"
    state = checkpoint.load(file, identity)
    if state is not None:
        say(f"continuing after step {state.step}")
    elif file.exists():
        if not overwrite:
            raise InputError(
                f"{partial} contains an unfinished training with other settings or samples; give `to` "
                "another path, or `overwrite` to begin again"
            )
        say("starting again: the unfinished training there has other settings or samples")
    return state


@contextlib.contextmanager
def alone(partial: Path) -> Iterator[None]:
    """Lock a training's folder for this process; InputError if another process trains there."""
    with open(partial / ".lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another training is writing {partial} now; wait, or give `to` another path"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


@contextlib.contextmanager
def swept_if_refused(partial: Path) -> Iterator[None]:
    """Remove the new files in the folder of a training that is refused before it begins."""
    try:
        yield
    except InputError:
        if not (partial / "state.npz").exists():
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _partial_of(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def partial_folder(target: Path) -> Path:
    """Make the folder of the unfinished training."""
    partial = _partial_of(target)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"no model can be written to {target} ({error.strerror}); give another path"
        ) from error
    return partial
