"""One training, from a corpus to a model file: it can be killed at any moment and started again."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catalogs.catalog import Catalog
from catalogs.console import DISTRIBUTION, without_greetings
from catalogs.errors import InputError
from catalogs.intensity import NORMALISATION
from catalogs.model_file import ModelCard, read_card, write_model
from catalogs.schema import SampleRecord
from catalogs.seeds import digest
from tltrain import checkpoint, loop
from tltrain.augment import Augmentation
from tltrain.checkpoint import State
from tltrain.learner import Learner
from tltrain.loop import Outcome, Plan
from tltrain.networks import Architecture, halo
from tltrain.progress import Progress, duration
from tltrain.sampling import Shares
from tltrain.settings import ENTRIES, VALIDATIONS, Settings, checked, optimisation
from tltrain.stream import open_stream
from tltrain.validate import Scores, open_validation

#: Seconds between two checkpoints.
CHECKPOINT_EVERY = 30.0


def fit(
    url: str,
    to: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    say: Callable[[str], None] = print,
) -> ModelCard:
    """Train a network on a corpus and write it as a model file.

    The unfinished training lies in a folder ``TO.partial``, from which the same call goes on after a crash;
    it is removed in the end. A model that the same settings made of the same samples is left as it is. The
    learning rate rises over the first steps and falls along a cosine (Loshchilov and Hutter, ICLR 2017).
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
    say
        Gets a sentence about each stage.

    Returns
    -------
    ModelCard
        Of the model that is at ``to`` now.

    Raises
    ------
    InputError
        If there is no corpus at ``url``, no sample to train on, samples of several voxel sizes, a setting
        that cannot be, or something at ``to`` that is no model.
    """
    settings = settings or Settings()
    arch = checked(settings)
    catalog = Catalog.open(url)
    how = optimisation(settings, arch, catalog.classes)
    train, val = choose(catalog, settings.where)
    fingerprint = _fingerprint(catalog, settings, train, val)
    target = Path(to)
    standing = _standing(target)
    if standing is not None and standing.training.get("fingerprint") == fingerprint:
        say(f"{target} is already trained by these settings on these samples")
        return standing
    if standing is not None:
        say(f"{target} was trained otherwise and will be replaced")
    partial = _folder(target)

    voxels = train[0].acquisition.voxel_size
    say(
        f"training {settings.network} on {_count(train, 'tomogram')} of {voxels:g} Å a voxel, "
        + (f"validating on {len(val)}" if val else "without validation: no sample has the split 'val'")
    )
    with without_greetings():
        import keras  # noqa: F401
    stream = open_stream(
        catalog,
        train,
        patch=settings.patch,
        batch=settings.batch,
        seed=settings.seed,
        shares=Shares(),
        augmentation=Augmentation(),
    )
    validation = open_validation(catalog, val, arch.pooling) if val else None
    n_classes = len(catalog.classes) + 1
    learner = Learner(lambda: arch.build(n_classes, settings.seed), how)
    network = learner.network
    state = checkpoint.load(partial / "state.npz", fingerprint)
    if state is not None:
        say(f"going on after step {state.step}")
    elif (partial / "state.npz").exists():
        say("starting anew: the unfinished training there is of other settings or samples")
    state = state or State(fingerprint)

    progress = loop.train(
        learner,
        stream,
        state,
        plan_of(settings),
        partial / "state.npz",
        validate=None if validation is None else lambda network: _outcome(validation.score(network)),
    )
    if state.stopped:
        say(f"stopped after step {state.step}: {state.stopped}")
    if not state.best:
        with learner.judged():
            state.best = checkpoint.values(network.variables)
    checkpoint.assign(network.variables, state.best)
    scores = validation.score(network) if validation else None
    card = _card(target, catalog, settings, arch, network, state, scores, progress, (train, val))
    write_model(target, card, _keras_file(arch, network, n_classes))
    shutil.rmtree(partial)
    say(f"wrote {target}: {_summary(card, state)}")
    return card


def choose(catalog: Catalog, where: str) -> tuple[list[SampleRecord], list[SampleRecord]]:
    """Choose the samples to train on and to validate on.

    Parameters
    ----------
    catalog
        The corpus.
    where
        Which samples to train on; those of the splits ``val`` and ``test`` are left out whatever it says.

    Returns
    -------
    train, val
        By sample id.

    Raises
    ------
    InputError
        If none is left to train on, or the voxel sizes differ.
    """
    chosen = catalog.query(where)
    known = {record.sample_id: record for record in catalog.records()}
    train = [known[i] for i in chosen.index[chosen["split"] == "train"]]
    if not train:
        held = f"; the {len(chosen)} that fit are kept for validation and test" if len(chosen) else ""
        raise InputError(
            f"no sample of the corpus {catalog.url} with the split 'train' fits --where \"{where}\"{held}; "
            "tlgen ls shows what there is"
        )
    sizes = sorted({record.acquisition.voxel_size for record in train})
    if len(sizes) > 1:
        listed = " and ".join(f"{size:g}" for size in sizes)
        raise InputError(
            f"the chosen samples of the corpus {catalog.url} have voxels of {listed} Å and a network learns "
            f'one size; choose by --where "voxel_size == {sizes[0]:g}"'
        )
    val = [r for r in known.values() if r.split == "val" and r.acquisition.voxel_size == sizes[0]]
    return train, val


def plan_of(settings: Settings) -> Plan:
    """Say how long a training goes on."""
    return Plan(
        steps=settings.steps,
        validate_every=settings.validate_every or math.ceil(settings.steps / VALIDATIONS),
        record_every=math.ceil(settings.steps / ENTRIES),
        patience=settings.patience,
        save_every=CHECKPOINT_EVERY,
    )


def _outcome(scores: Scores) -> Outcome:
    return Outcome((scores.mean,), _words(scores.f1), {"f1": scores.f1})


def _keras_file(arch: Architecture, network: Any, n_classes: int) -> bytes:
    """Save the bare network: without optimizer and loss, it opens with Keras alone."""
    bare = arch.build(n_classes, 0)
    bare.set_weights(network.get_weights())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.keras"
        bare.save(file)
        return file.read_bytes()


def _card(
    target: Path,
    catalog: Catalog,
    settings: Settings,
    arch: Architecture,
    network: Any,
    state: State,
    scores: Scores | None,
    progress: Progress,
    samples: tuple[Sequence[SampleRecord], Sequence[SampleRecord]],
) -> ModelCard:
    """Write down what the model is."""
    import keras

    classes = sorted(catalog.classes, key=lambda info: info.label)
    train, val = samples
    software = {name: version(name) for name in (DISTRIBUTION, "keras", "numpy")}
    return ModelCard(
        name=target.stem,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        voxel_size=train[0].acquisition.voxel_size,
        contrast="dark",
        classes=classes,
        normalisation=NORMALISATION,
        network=arch.name,
        n_parameters=int(network.count_params()),
        pooling=arch.pooling,
        halo=halo(network, arch.pooling),
        patch=settings.patch,
        thresholds=scores.thresholds if scores else {info.name: 0.5 for info in classes},
        training={
            "fingerprint": state.fingerprint,
            "settings": json.loads(json.dumps(asdict(settings))),
            "best_step": state.best_step or state.step,
            "voxel_f1": _finite(scores.f1) if scores else {},
            "history": [_row(row) for row in state.history],
            "seconds": round(state.seconds, 1),
            "patches_per_second": round(progress.rate(state.step), 2),
            "wait_share": round(progress.wait_share, 4),
        },
        provenance={
            "corpus": catalog.url,
            "corpus_digest": catalog.digest,
            "train": [record.sample_id for record in train],
            "val": [record.sample_id for record in val],
            "software": software | {"keras backend": keras.backend.backend()},
        },
    )


def _fingerprint(
    catalog: Catalog, settings: Settings, train: Sequence[SampleRecord], val: Sequence[SampleRecord]
) -> str:
    """Hash what decides a training: the settings, the classes, the samples to the byte, this program."""
    return digest(
        {
            "settings": asdict(settings),
            "classes": [info.model_dump() for info in catalog.classes],
            "train": {record.sample_id: record.checksums for record in train},
            "val": {record.sample_id: record.checksums for record in val},
            "software": version(DISTRIBUTION),
        }
    )


def _standing(target: Path) -> ModelCard | None:
    """Read the model that is there already; what is no model is not overwritten."""
    if target.is_dir():
        raise InputError(f"{target} is a folder; name a file for the model, such as {target / 'model.tlm'}")
    return read_card(target) if target.exists() else None


def _folder(target: Path) -> Path:
    """Make the folder of the unfinished training."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"no model can be written to {target} ({error.strerror}); give another place"
        ) from error
    return partial


def _words(f1: dict[str, float]) -> str:
    """Say the scores of the classes in a few words."""
    return "val F1 " + ", ".join(
        f"{value:.3f}" if len(f1) == 1 else f"{name} {value:.3f}" for name, value in f1.items()
    )


def _summary(card: ModelCard, state: State) -> str:
    scores = "".join(
        f"voxel F1 of {name} {value:.3f} on validation, "
        for name, value in card.training["voxel_f1"].items()
        if value is not None
    )
    return (
        f"{scores}best of step {card.training['best_step']}, {state.step} steps in {duration(state.seconds)}"
    )


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Make an entry of the history fit for JSON and for people."""
    kept = {name: value for name, value in row.items() if name not in ("words", "score")}
    return kept | ({"f1": _finite(row["f1"])} if "f1" in row else {})


def _finite(f1: dict[str, float]) -> dict[str, float | None]:
    """Turn nan, which JSON does not know, into None."""
    return {name: None if math.isnan(value) else round(value, 4) for name, value in f1.items()}


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
