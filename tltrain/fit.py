"""One training, from a corpus to a model file: it can be killed at any moment and started again."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
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
from tltrain import checkpoint
from tltrain.augment import Augmentation
from tltrain.checkpoint import State
from tltrain.networks import Architecture, architecture, halo
from tltrain.progress import Progress, duration
from tltrain.sampling import Shares
from tltrain.stream import Batch, PatchStream, as_tf_dataset, open_stream
from tltrain.validate import Scores, Validation, open_validation

#: Seconds between two checkpoints, and validations in a training.
CHECKPOINT_EVERY, VALIDATIONS = 30.0, 20

#: Which samples are trained on, unless the user says.
TRAIN = "split == 'train'"


@dataclass(frozen=True)
class Settings:
    """What decides a training, together with the samples.

    Attributes
    ----------
    where
        Which samples of the corpus to train on; of these, those of the split ``train``.
    network
        Name of the architecture.
    steps
        Batches to learn from.
    patch
        Edge of a patch in voxels, a multiple of the network's pooling.
    batch
        Patches of a batch.
    learning_rate
        The highest; None: what suits the network.
    seed
        Of the weights, the patches and their augmentation.
    """

    where: str = TRAIN
    network: str = "small"
    steps: int = 1000
    patch: int = 40
    batch: int = 8
    learning_rate: float | None = None
    seed: int = 0


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
    arch = _checked(settings)
    catalog = Catalog.open(url)
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
    network = _compiled(arch, settings, len(catalog.classes) + 1)
    state = checkpoint.load(partial / "state.npz", fingerprint)
    if state is not None:
        checkpoint.assign(network.variables, state.variables)
        checkpoint.assign(network.optimizer.variables, state.optimizer)
        say(f"going on after step {state.step}")
    elif (partial / "state.npz").exists():
        say("starting anew: the unfinished training there is of other settings or samples")
    state = state or State(fingerprint)

    progress = _train(network, stream, validation, state, settings, partial / "state.npz")
    if state.best:
        checkpoint.assign(network.variables, state.best)
    scores = validation.score(network) if validation else None
    card = _card(target, catalog, settings, arch, network, state, scores, progress, (train, val))
    write_model(target, card, _keras_file(arch, network, len(catalog.classes) + 1))
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


def _train(
    network: Any,
    stream: PatchStream,
    validation: Validation | None,
    state: State,
    settings: Settings,
    file: Path,
) -> Progress:
    """Take the steps that are left and keep ``state``, in memory and on disk."""
    every = max(math.ceil(settings.steps / VALIDATIONS), 1)
    progress = Progress(first=state.step, last=settings.steps, batch=settings.batch)
    if state.history and validation:
        progress.score = _words(state.history[-1]["f1"])
    begun, before, started = state.step, state.seconds, time.monotonic()
    saved = started
    batches = _batches(stream, state.step) if state.step < settings.steps else iter(())
    try:
        while state.step < settings.steps:
            asked = time.monotonic()
            grey, classes = next(batches)
            progress.waited += time.monotonic() - asked
            loss = float(network.train_on_batch(grey, classes))  # mean since the metrics were reset
            state.step += 1
            state.seconds = before + time.monotonic() - started
            if state.step == begun + 1:  # which compiled the network, and waited for the first blocks
                progress.restart(state.step)
            if not math.isfinite(loss):
                raise InputError(
                    f"the training diverged at step {state.step}: its loss is {loss}; lower --learning-rate"
                )
            if validation and (state.step % every == 0 or state.step == settings.steps):
                scores = validation.score(network)
                state.history.append({"step": state.step, "loss": loss, "f1": scores.f1})
                progress.score = _words(scores.f1)
                if state.best_score is None or scores.mean >= state.best_score:
                    state.best_step, state.best_score = state.step, scores.mean
                    state.best = checkpoint.values(network.variables)
            if progress.due() or state.step == settings.steps:
                progress.show(state.step, loss)
                network.reset_metrics()
            if time.monotonic() - saved >= CHECKPOINT_EVERY:
                _save(file, state, network)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _save(file, state, network)
        raise
    finally:
        progress.close()
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    return progress


def _save(file: Path, state: State, network: Any) -> None:
    state.step = int(network.optimizer.iterations)  # an interrupt may fall between the step and its count
    state.variables = checkpoint.values(network.variables)
    state.optimizer = checkpoint.values(network.optimizer.variables)
    checkpoint.save(file, state)


def _batches(stream: PatchStream, start: int) -> Iterator[Batch]:
    """Batches from number ``start`` on: through tf.data where Keras runs on TensorFlow."""
    import keras

    if keras.backend.backend() == "tensorflow":
        return iter(as_tf_dataset(stream, start))
    return stream.batches(start)


def _compiled(arch: Architecture, settings: Settings, n_classes: int) -> Any:
    """Make the network with its optimizer, both with their first values."""
    import keras

    from tltrain.losses import dice_cross_entropy

    highest = settings.learning_rate or arch.learning_rate
    warm = max(min(settings.steps // 10, 100), 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=highest / 20,
        warmup_target=highest,
        warmup_steps=warm,
        decay_steps=max(settings.steps - warm, 1),
        alpha=0.01,
    )
    network = arch.build(n_classes, settings.seed)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4, global_clipnorm=1.0)
    network.compile(optimizer, loss=dice_cross_entropy)
    optimizer.build(network.trainable_variables)
    return network


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
            "settings": asdict(settings),
            "best_step": state.best_step or state.step,
            "voxel_f1": _finite(scores.f1) if scores else {},
            "history": [{**entry, "f1": _finite(entry["f1"])} for entry in state.history],
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


def _checked(settings: Settings) -> Architecture:
    """Find the network and refuse settings that cannot be."""
    arch = architecture(settings.network)
    for name in ("steps", "patch", "batch"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} is {getattr(settings, name)}; give at least 1")
    if settings.patch % arch.pooling:
        raise InputError(
            f"--patch {settings.patch} is no multiple of {arch.pooling}, as the network {arch.name} needs; "
            f"give {max(round(settings.patch / arch.pooling), 1) * arch.pooling}"
        )
    if settings.learning_rate is not None and not settings.learning_rate > 0:
        raise InputError(f"--learning-rate is {settings.learning_rate:g}; give a positive number")
    return arch


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


def _finite(f1: dict[str, float]) -> dict[str, float | None]:
    """Turn nan, which JSON does not know, into None."""
    return {name: None if math.isnan(value) else round(value, 4) for name, value in f1.items()}


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
