"""The settings of a training, and checks of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.former_names import accepts_former
from catalogs.schema import ClassInfo
from tltrain.data.augment import Augmentation
from tltrain.data.sampling import Sampling
from tltrain.networks.architectures import Architecture, architecture
from tltrain.training.learner import PRECISIONS, Optimisation
from tltrain.training.losses import LOSSES

#: Validations in a training, unless the user says.
VALIDATIONS = 20

#: Which samples are trained on, unless the user says.
TRAIN = "split == 'train'"

#: Name of the class of voxels of no class, for class weights.
BACKGROUND = "background"


@accepts_former(shares="sampling", tolerated="max_damaged")
@dataclass(frozen=True)
class Settings:
    """The settings of a training.

    Attributes
    ----------
    where
        Condition for the samples to train on; only those of the split ``train`` are used.
    network
        Name of the architecture.
    steps
        Largest number of batches.
    patch
        Edge of a patch in voxels, a multiple of the network's pooling.
    batch
        Patches of a batch.
    learning_rate
        The highest learning rate; None: a default that depends on the network.
    seed
        Seed of the weights, the patches and their augmentation.
    loss
        Name of the loss, one of :data:`tltrain.training.losses.LOSSES`.
    class_weights
        (name, weight) of classes that count more or less than 1, ``background`` among them.
    precision, xla, ema, devices
        As in :class:`tltrain.training.learner.Optimisation`.
    validate_every
        Steps between two validations; None: there are :data:`VALIDATIONS` in all.
    start
        A model file with the weights to begin with; None: random ones.
    hold_out, hold_out_by
        A query for the validation samples; or columns, of whose sets of values a tenth is used for validation
        (:func:`tltrain.data.splits.split_samples`). None and (): the split ``val``.
    sampling
        What patches are centred on.
    augmentation
        How patches are augmented.
    max_damaged
        Share of the tomograms' volume that may be damaged.
    patience
        The training ends after this many validations without a better score; None: never.
    """

    where: str = TRAIN
    network: str = "small"
    steps: int = 1000
    patch: int = 40
    batch: int = 8
    learning_rate: float | None = None
    seed: int = 0
    loss: str = "dice-cross-entropy"
    class_weights: tuple[tuple[str, float], ...] = ()
    precision: str = "float32"
    xla: bool | None = None
    ema: float = 0.0
    devices: int | None = None
    validate_every: int | None = None
    patience: int | None = None
    start: str | None = None
    hold_out: str | None = None
    hold_out_by: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    max_damaged: float = 0.01


def checked(settings: Settings) -> Architecture:
    """Find the network and refuse settings that are not valid.

    Raises
    ------
    InputError
        It names the setting and its possible values.
    """
    arch = architecture(settings.network)
    check_numbers(settings, ("steps", "patch", "batch", "validate_every", "patience", "devices"))
    check_patch(settings.patch, arch)
    if not 0 <= settings.ema < 1:
        raise InputError(f"`ema` is {settings.ema:g}; give a momentum below 1, such as 0.999, or 0 for none")
    if not 0 <= settings.max_damaged < 1:
        raise InputError(f"`max_damaged` is {settings.max_damaged:g}; give a share from 0 to below 1")
    if settings.devices is not None and settings.batch % settings.devices:
        raise InputError(
            f"`batch={settings.batch}` cannot be shared by {settings.devices} devices; "
            f"give a multiple of {settings.devices}"
        )
    _check_word("loss", settings.loss, LOSSES)
    return arch


def check_numbers(settings: Any, counts: Sequence[str]) -> None:
    """Refuse numbers that are not valid, and an unknown precision.

    Parameters
    ----------
    settings
        With ``learning_rate`` and ``precision``; None stands for the default.
    counts
        Names of the settings that are at least 1.

    Raises
    ------
    InputError
        It names the setting and its possible values.
    """
    for name in counts:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"`{name}` is {value}; give at least 1")
    rate = settings.learning_rate
    if rate is not None and not 0 < rate < math.inf:
        raise InputError(f"`learning_rate` is {rate:g}; give a positive number")
    _check_word("dtype", settings.precision, PRECISIONS)


def _check_word(option: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise InputError(f"`{option}` is {value!r}; give one of {', '.join(known)}{nearest(value, known)}")


def check_patch(patch: int, arch: Architecture) -> None:
    """Refuse a patch whose edge is not a multiple of the network's pooling (InputError)."""
    if patch % arch.pooling:
        raise InputError(
            f"`patch={patch}` is not a multiple of {arch.pooling}, as the network {arch.name} requires; "
            f"give {max(round(patch / arch.pooling), 1) * arch.pooling}"
        )


def read_weights(text: str | None) -> tuple[tuple[str, float], ...]:
    """Read class weights as a user writes them, ``ribosome=2,background=0.5``.

    Raises
    ------
    InputError
        It says which part is wrong.
    """
    weights = {}
    for part in (text or "").split(",") if text else []:
        name, _, value = part.partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError as error:
            raise InputError(
                f"`class_weights` has {part.strip()!r}; give name=weight for each class, such as "
                "ribosome=2,background=0.5"
            ) from error
    return tuple(weights.items())


def read_sampling(text: str | None) -> Sampling:
    """Read the sampling as a user writes it, ``distractor=0.3,background=0.1``; the rest keeps its default.

    Raises
    ------
    InputError
        It says which part is wrong.
    """
    sampling = asdict(Sampling())
    for part in (text or "").split(",") if text else []:
        name, _, value = part.strip().partition("=")
        if name not in sampling:
            raise InputError(
                f"`sampling` names {name!r}; give {', '.join(sampling)}{nearest(name, sampling)}"
            )
        try:
            sampling[name] = float(value)
        except ValueError:
            sampling[name] = -1.0
        if not 0 <= sampling[name] < float("inf"):
            raise InputError(f"`sampling` has {part.strip()!r}; give a number from 0, such as {name}=0.2")
    if not any(sampling.values()):
        raise InputError("`sampling` has only zeros; give at least one share more than 0")
    return Sampling(**sampling)


def weights_of(settings: Settings, classes: Sequence[ClassInfo]) -> tuple[tuple[int, float], ...]:
    """Find the network's output for each class with a weight of its own.

    Raises
    ------
    InputError
        If there is no such class, or a weight is negative.
    """
    names = [BACKGROUND, *(info.name for info in sorted(classes, key=lambda info: info.label))]
    for name, weight in settings.class_weights:
        if name not in names:
            raise InputError(
                f"`class_weights` names the class {name!r}, the corpus has {', '.join(names)}"
                f"{nearest(name, names)}"
            )
        if not weight >= 0:
            raise InputError(f"`class_weights` gives {name} the weight {weight:g}; give 0 or more")
    if settings.class_weights and not sum(dict(settings.class_weights).get(name, 1.0) for name in names) > 0:
        raise InputError("`class_weights` gives no class a weight; give one more than 0")
    return tuple((names.index(name), weight) for name, weight in settings.class_weights)


def optimisation(settings: Settings, arch: Architecture, classes: Sequence[ClassInfo]) -> Optimisation:
    """Return how steps are taken."""
    return Optimisation(
        steps=settings.steps,
        learning_rate=settings.learning_rate or arch.learning_rate,
        loss=settings.loss,
        class_weights=weights_of(settings, classes),
        precision=settings.precision,
        xla=settings.xla,
        ema=settings.ema,
        devices=settings.devices,
    )
