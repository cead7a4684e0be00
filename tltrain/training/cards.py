"""Make a model file from a trained network: the card that describes it, and the network itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from catalogs.amounts import duration
from catalogs.console import DISTRIBUTION
from catalogs.corpus.catalog import Catalog
from catalogs.former_names import as_stored
from catalogs.intensity import NORMALISATION
from catalogs.machine import best_for_onednn, machine
from catalogs.model_file import ModelCard
from catalogs.private_folders import scratch_folder
from catalogs.schema import SampleRecord
from tlpick.evaluation.particle_means import particle_means, tomogram_looks
from tlpick.network.geometry import read_graph
from tltrain.networks.architectures import Architecture
from tltrain.reporting.progress import Progress
from tltrain.training.checkpoint import State
from tltrain.training.settings import Settings
from tltrain.training.validation import Scores

#: Contrast of protein in the tomograms of any corpus.
CONTRAST: Literal["dark"] = "dark"


def card_of(
    name: str,
    catalog: Catalog,
    settings: Settings,
    arch: Architecture,
    network: Any,
    state: State,
    scores: Scores | None,
    progress: Progress,
    samples: tuple[Sequence[SampleRecord], Sequence[SampleRecord]],
) -> ModelCard:
    """Make the card of a model that was trained on a corpus.

    Parameters
    ----------
    name
        Of the model.
    catalog, settings, arch
        Corpus, settings and architecture of the training.
    network
        With its best weights.
    state
        Of the finished training.
    scores
        Of the network; None: there was no validation.
    progress
        Of the training.
    samples
        Samples for training and for validation.

    Returns
    -------
    ModelCard
    """
    classes = sorted(catalog.classes, key=lambda info: info.label)
    train, val = samples
    return ModelCard(
        name=name,
        created=now(),
        voxel_size=train[0].acquisition.voxel_size,
        contrast=CONTRAST,
        classes=classes,
        normalisation=NORMALISATION,
        network=arch.name,
        n_parameters=int(network.count_params()),
        pooling=arch.pooling,
        halo=read_graph(network).halo,
        patch=settings.patch,
        thresholds=scores.thresholds if scores else {info.name: 0.5 for info in classes},
        training={
            "fingerprint": state.fingerprint,
            "settings": plain(as_stored(settings)),
            "steps": state.step,
            "best_step": state.best_step or state.step,
            "stopped": state.stopped,
            "voxel_f1": plain(scores.f1) if scores else {},
            "picks": plain({k: asdict(score) for k, score in scores.picks.items()}) if scores else {},
            "history": history(state),
            "seconds": round(state.seconds, 1),
            "patches_per_second": round(progress.rate(state.step), 2),
            "wait_share": round(progress.wait_share, 4),
        },
        means=particle_means(catalog, train),
        looks=tomogram_looks(catalog, train),
        provenance={
            "corpus": catalog.url,
            "corpus_digest": catalog.digest,
            "recipe": plain(catalog.info["recipe"]),
            "train": [record.sample_id for record in train],
            "val": [record.sample_id for record in val],
            "software": software(),
        },
    )


def history(state: State) -> list[dict[str, Any]]:
    """Return the training curve without entries that only the loop needs."""
    return [plain({k: v for k, v in row.items() if k not in ("words", "score")}) for row in state.history]


def software() -> dict[str, str]:
    """Return the software of the training: packages with their versions, the backend and its kernels."""
    import keras

    backend = keras.backend.backend()
    names = [DISTRIBUTION, "keras", "numpy"]
    versions = {name: version(name) for name in names}
    return versions | {
        "keras backend": f"{backend} {_backend_version(backend)}",
        "kernels": _kernels(backend),
    }


def now() -> str:
    """Return the time in the format of cards."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def keras_file(arch: Architecture, network: Any, n_classes: int) -> bytes:
    """Save the network without optimizer, loss and mixed precision, so that Keras alone opens it."""
    bare = arch.build(n_classes, 0)
    bare.set_weights(network.get_weights())
    with scratch_folder("tltrain-") as folder:
        file = folder / "network.keras"
        bare.save(file)
        return file.read_bytes()


def summary(card: ModelCard, state: State) -> str:
    """Describe the quality of a model in one line."""
    parts = [
        f"F1 of {name} {score['f1']:.3f} in picks"
        for name, score in card.training["picks"].items()
        if score["f1"] is not None
    ]
    parts += [
        f"voxel F1 of {name} {value:.3f} on validation"
        for name, value in card.training["voxel_f1"].items()
        if value is not None
    ]
    if card.training["picks"] or card.training["voxel_f1"]:
        parts.append(f"best of step {card.training['best_step']}")
    else:
        parts.append(
            "not validated, since no sample has the split val: its quality is not known, and its thresholds "
            "are not chosen (--hold-out validates on others)"
        )
    return ", ".join([*parts, f"{state.step} steps in {duration(state.seconds)}"])


def plain(value: Any) -> Any:
    """Convert a value for JSON: nan, which JSON does not have, becomes null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return json.loads(json.dumps(value, default=str))


def _backend_version(backend: str) -> str:
    import importlib

    return str(importlib.import_module(backend).__version__)


def _kernels(backend: str) -> str:
    """Name the code that computes the layers, on which rounding and speed depend."""
    devices = _accelerators(backend)
    if devices:
        return f"{backend} on {', '.join(sorted(set(devices)))}"
    here = machine()
    if backend != "tensorflow":
        return f"{backend}, {here.instruction_set}, {here.processor}"
    from tensorflow.python.util import _pywrap_util_port  # TensorFlow has no public function for it

    if _pywrap_util_port.IsMklEnabled():
        return f"oneDNN on, {best_for_onednn()}, {here.processor}"
    return f"oneDNN off, {here.instruction_set}, {here.processor}"


def _accelerators(backend: str) -> list[str]:
    """Name the GPUs that the backend computes on."""
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in found]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    return []
