"""Model files: a Keras archive (``.keras``) that also contains a card, which describes the model.

Keras can open the file, because it ignores the additional member of the zip archive; the card is read without
Keras. We accept the suffixes ``.tlm`` and ``.keras``, Keras only the latter. Files of version 1, a zip of
``network.keras`` and the card, can still be read.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalogs.atomic_write import replacing
from catalogs.errors import InputError
from catalogs.model_archive import ModelRefused, check_network, member, members, names
from catalogs.particle_mean import ParticleMean
from catalogs.schema import ClassInfo
from catalogs.score_calibration import Calibration
from catalogs.tomogram_look import TomogramLook

#: Version of the model file. Readers refuse newer versions and read older ones.
#:
#: 1. A zip of the Keras archive and the card.
#: 2. The Keras archive with the card inside; the card names the task of the network.
#: 3. The card may hold what particles and tomograms look like.
MODEL_FORMAT_VERSION = 3

CARD = "card.json"
NETWORK = "network.keras"
T = TypeVar("T")

#: Relative difference below which voxel sizes count as equal.
_SAME_VOXEL = 0.01


class ModelCard(BaseModel):
    """What the picker must know about a network, and where the network comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = MODEL_FORMAT_VERSION
    task: Literal["segmentation"] = Field(
        "segmentation", description="A probability of each class for each voxel."
    )
    name: str
    created: str = Field(description="UTC, ISO 8601.")
    voxel_size: float = Field(
        gt=0,
        le=1e4,
        allow_inf_nan=False,
        json_schema_extra={"unit": "Å"},
        description="Voxel size of the tomograms that the network was trained on.",
    )
    contrast: Literal["dark", "bright"] = Field("dark", description="Whether protein is dark or bright.")
    classes: list[ClassInfo] = Field(min_length=1)
    normalisation: str = Field(description="Normalisation of grey values; catalogs.intensity.NORMALISATION.")
    network: str = Field(description="Name of the architecture.")
    n_parameters: int = Field(ge=0)
    pooling: int = Field(
        ge=1, le=1024, json_schema_extra={"unit": "voxels"}, description="Product of all pooling factors."
    )
    halo: int = Field(
        ge=0,
        le=4096,
        json_schema_extra={"unit": "voxels"},
        description="Voxels that the network sees on each side; a multiple of pooling.",
    )
    patch: int = Field(
        ge=1, le=4096, json_schema_extra={"unit": "voxels"}, description="Edge of a training patch in voxels."
    )
    thresholds: dict[str, float] = Field(description="Class -> smallest probability of its voxels.")
    training: dict[str, Any] = Field(description="Settings and final metrics of the training.")
    provenance: dict[str, Any] = Field(description="Corpus, its digest, samples, software versions.")
    calibration: dict[str, Calibration] = Field(
        default_factory=dict, description="Class -> what its scores mean; tlpick calibrate writes it."
    )
    means: dict[str, ParticleMean] = Field(
        default_factory=dict, description="Class -> its mean particle in the corpus."
    )
    looks: list[TomogramLook] = Field(
        default_factory=list, description="Properties of some training tomograms."
    )


def write_model(path: str | os.PathLike[str], card: ModelCard, network: bytes) -> None:
    """Write a model file completely or not at all; equal contents give equal bytes.

    Parameters
    ----------
    path
        Path, by convention with the suffix ``.tlm`` or ``.keras``.
    card
        Its card.
    network
        Bytes of the Keras archive.

    Raises
    ------
    ValueError
        If ``network`` is not a Keras archive.
    """
    card = card.model_copy(update={"format_version": max(card.format_version, MODEL_FORMAT_VERSION)})
    with replacing(path, durable=True) as unfinished, open(unfinished, "wb") as raw:
        _archive(raw, {CARD: card.model_dump_json(indent=1).encode()} | _members(network))


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a model.

    Raises
    ------
    InputError
        If it is not a model file, or one of a newer version of this program.
    """
    text = _card(Path(path))
    try:
        card = ModelCard.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        version = _version(text)
        if version > MODEL_FORMAT_VERSION:
            raise _too_new(path, version) from error
        first: Any = (
            error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deep"}
        )
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"the card of the model {path} is damaged ({where}: {first['msg']}); train again"
        ) from error
    if card.format_version > MODEL_FORMAT_VERSION:
        raise _too_new(path, card.format_version)
    return card


def with_card(path: str | os.PathLike[str], card: ModelCard, to: str | os.PathLike[str]) -> None:
    """Write a model's network with another card; ``to`` may be the same file.

    Raises
    ------
    InputError
        If ``path`` is not a model file.
    """
    write_model(to, card, _network(Path(path)))


def read_network(path: str | os.PathLike[str], to: Path) -> Path:
    """Unpack the Keras network of a model under a name that Keras accepts; call :func:`check` before.

    Parameters
    ----------
    path
        Path of the model.
    to
        An existing folder.

    Returns
    -------
    Path
        Path of ``network.keras`` in that folder.

    Raises
    ------
    InputError
        If it is not a model file.
    """
    unpacked = Path(to) / NETWORK
    unpacked.write_bytes(_network(Path(path)))
    return unpacked


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a model whose network is not safe to load, without loading it.

    Raises
    ------
    ModelRefused
        If the network asks for code or files, or its card belongs to another network.
    InputError
        If it is not a model file.
    """
    card = read_card(path)
    try:
        n = check_network(members(_network(Path(path)), path), path)
    except zipfile.BadZipFile as error:  # version 1 contains an archive inside the archive
        raise _no_model(Path(path)) from error
    if card.n_parameters > n:
        raise ModelRefused(
            f"the card of the model {path} says {card.n_parameters} parameters, and its network has {n}: the "
            "card is of another network; train again"
        )


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash a model file: 16 hexadecimal digits of the BLAKE2b of its bytes."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no model {file}")
    with open(file, "rb") as raw:
        return hashlib.file_digest(raw, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def require(
    card: ModelCard,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[ClassInfo] | None = None,
    voxel_size: float | None = None,
    network: str | None = None,
) -> None:
    """Refuse a model that does not fit its intended use.

    Parameters
    ----------
    card
        Card of the model.
    path
        Path of the model, for the message.
    classes
        Names and labels that its classes must have.
    voxel_size
        Voxel size in Å of the tomograms that it will be used on.
    network
        Name of the architecture that it must have.

    Raises
    ------
    InputError
        If it does not fit; the message says what the model is for and what is wanted.
    """
    if classes is not None:
        wanted, there = (
            [(info.name, info.label) for info in sorted(each, key=lambda info: info.label)]
            for each in (classes, card.classes)
        )
        if wanted != there:
            raise InputError(f"the model {path} finds {_listed(there)}, wanted is {_listed(wanted)}")
    if voxel_size is not None and abs(card.voxel_size / voxel_size - 1) > _SAME_VOXEL:
        raise InputError(
            f"the model {path} is for voxels of {card.voxel_size:g} Å, the tomograms have {voxel_size:g} Å"
        )
    if network is not None and card.network != network:
        raise InputError(f"the model {path} holds the network {card.network}, wanted is {network}")


def _listed(classes: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({label})" for name, label in classes)


def _archive(to: IO[bytes], members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # a fixed date, so that the fingerprint depends on the contents only
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def _members(archive: bytes) -> dict[str, bytes]:
    """Read a zip."""
    try:
        return members(archive, "the network")
    except (zipfile.BadZipFile, ModelRefused) as error:
        raise ValueError("not a Keras archive") from error


def _network(file: Path) -> bytes:
    """Read the Keras archive of a model without the card; equal networks give equal bytes."""
    parts = _readable(file, members)
    if CARD not in parts:
        raise _no_model(file)
    del parts[CARD]
    if NETWORK in parts:  # version 1
        return parts[NETWORK]
    archive = io.BytesIO()
    _archive(archive, parts)
    return archive.getvalue()


def _card(file: Path) -> bytes:
    text = _readable(file, lambda at, where: member(at, CARD, where))
    if text is None:
        if "config.json" in _readable(file, names):
            raise InputError(
                f"{file} is a Keras network, but it does not state its classes and voxel size; "
                "tltrain fit writes models, and tltrain import makes one of DeepFinder's weights"
            )
        raise _no_model(file)
    return text


def _readable(file: Path, read: Callable[[Path, object], T]) -> T:
    if not file.is_file():
        raise InputError(f"there is no model {file}")
    try:
        return read(file, file)
    except InputError:  # a ValueError, too
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise _no_model(file) from error


def _no_model(file: Path) -> InputError:
    return InputError(f"{file} is not a model file, or it is damaged; tltrain fit writes one")


def _version(text: bytes) -> int:
    """Read the version of a card, which may have fields of a later version."""

    class Version(BaseModel):
        format_version: int = 0

    try:
        return Version.model_validate_json(text).format_version
    except ValidationError:
        return 0


def _too_new(path: str | os.PathLike[str], version: int) -> InputError:
    return InputError(
        f"the model {path} has format version {version}, this program reads {MODEL_FORMAT_VERSION}; update it"
    )
