"""A model on disk: one file ``NAME.tlm``, a zip of the network and of the card that says what it is."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalogs.calibration import Calibration
from catalogs.errors import InputError
from catalogs.schema import ClassInfo

#: Version of the model file. A reader refuses a newer one.
MODEL_FORMAT_VERSION = 1

CARD = "card.json"
NETWORK = "network.keras"


class ModelCard(BaseModel):
    """What a picker must know about a network, and a person about where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = MODEL_FORMAT_VERSION
    name: str
    created: str = Field(description="UTC, ISO 8601.")
    voxel_size: float = Field(gt=0, json_schema_extra={"unit": "Å"}, description="Of the tomograms it knows.")
    contrast: Literal["dark", "bright"] = Field("dark", description="How protein looks in them.")
    classes: list[ClassInfo] = Field(min_length=1)
    normalisation: str = Field(description="Of the grey values; catalogs.intensity.NORMALISATION.")
    network: str = Field(description="Name of the architecture.")
    n_parameters: int
    pooling: int = Field(ge=1, json_schema_extra={"unit": "voxels"}, description="Product of all poolings.")
    halo: int = Field(
        ge=0,
        json_schema_extra={"unit": "voxels"},
        description="The network sees this far on each side; a multiple of pooling.",
    )
    patch: int = Field(ge=1, json_schema_extra={"unit": "voxels"}, description="Edge of a training patch.")
    thresholds: dict[str, float] = Field(description="Class -> least probability of its voxels.")
    training: dict[str, Any] = Field(description="Settings and final metrics.")
    provenance: dict[str, Any] = Field(description="Corpus, its digest, the samples, software.")
    calibration: dict[str, Calibration] = Field(
        default_factory=dict, description="Class -> what its scores mean; tlpick calibrate writes it."
    )


def write_model(path: str | os.PathLike[str], card: ModelCard, network: bytes) -> None:
    """Write a model file, whole or not at all; equal contents give equal bytes.

    Parameters
    ----------
    path
        Ends in ``.tlm`` by convention.
    card
        What it is.
    network
        Bytes of the Keras file.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(unfinished, "wb") as raw:
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                # A fixed date: the fingerprint must speak of the contents only.
                archive.writestr(_entry(CARD), card.model_dump_json(indent=1))
                archive.writestr(_entry(NETWORK), network)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read what a model is.

    Raises
    ------
    InputError
        If it is not a model file, or one of a newer version of this program.
    """
    text = _member(Path(path), CARD)
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        version = _version(text)
        if version > MODEL_FORMAT_VERSION:
            raise _too_new(path, version) from error
        first = error.errors()[0]
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
    write_model(to, card, _member(Path(path), NETWORK))


def read_network(path: str | os.PathLike[str], to: Path) -> Path:
    """Unpack the Keras network of a model.

    Parameters
    ----------
    path
        Of the model.
    to
        An existing folder.

    Returns
    -------
    Path
        Of ``network.keras`` in that folder.

    Raises
    ------
    InputError
        If it is not a model file.
    """
    unpacked = Path(to) / NETWORK
    unpacked.write_bytes(_member(Path(path), NETWORK))
    return unpacked


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash a model file: 16 hexadecimal digits of the BLAKE2b of its bytes."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no model {file}")
    with open(file, "rb") as raw:
        return hashlib.file_digest(raw, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


def _member(file: Path, name: str) -> bytes:
    if not file.is_file():
        raise InputError(f"there is no model {file}")
    try:
        with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{file} is not a model file, or it is damaged; tltrain fit writes one") from error


def _version(text: bytes) -> int:
    """Read the version of a card that may have fields from the future."""

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
