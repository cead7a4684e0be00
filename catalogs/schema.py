"""The terms of a corpus: the acquisition of a sample, and its record in the index.

Units are part of the schema: ``Acquisition.model_json_schema()`` has a ``unit`` for every randomized
parameter.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Version of the layout on disk; newer versions are refused, older ones read (:mod:`catalogs.versions`).
#:
#: 1. A record lists every object of its sample. Each tilt image is an object.
#: 2. A record has the checksum of the sample's root, which lists all other objects; ``recent/``, ``index/``.
FORMAT_VERSION = 2

Split = Literal["train", "val", "test"]

#: Patterns of a sample's id and of the path of its group in a corpus.
SAMPLE_ID = r"[0-9a-f]{16}"
SAMPLE_PATH = rf"samples/[0-9a-f]{{2}}/{SAMPLE_ID}-[0-9a-z]+\.zarr"
#: Text that is printed: without control characters.
SHOWN = r"^[^\x00-\x1f\x7f-\x9f]*$"


def is_key(key: str) -> bool:
    """Return whether a key lies below a group: relative, and without ``..``."""
    return bool(key) and "\0" not in key and all(part not in ("", ".", "..") for part in key.split("/"))


def _contrast(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("parakeet", "physical")):
        raise ValueError(f"must be parakeet, physical or a number (times Parakeet's), not {value}")
    return value


#: Contrast of the images: a word, or a multiple of Parakeet's.
Contrast = Annotated[
    Literal["parakeet", "physical"] | Annotated[float, Field(gt=0, allow_inf_nan=False)],
    BeforeValidator(_contrast),
]


def units(model: type[BaseModel]) -> dict[str, str]:
    """Return the unit of each field of a model that has one."""
    properties = model.model_json_schema()["properties"]
    return {name: field["unit"] for name, field in properties.items() if "unit" in field}


def parse_tilt_series(text: str) -> tuple[list[float], list[float]]:
    """Read a list of tilts: ``angle`` or ``angle:dose`` of each, in the order in which they were taken.

    Returns
    -------
    angles, doses
        Degrees, and e/Å² of each image; no doses if the list has none.

    Raises
    ------
    ValueError
        If it is not such a list, an angle is not below 90°, or a dose is not positive.
    """
    pairs = [word.split(":") for word in text.replace(",", " ").split()]
    try:
        angles = [float(pair[0]) for pair in pairs]
        doses = [float(pair[1]) for pair in pairs if len(pair) > 1]
    except ValueError:
        raise ValueError(f"tilt_series: {text[:60]!r} is not a list such as 0:3 3:3 -3:3.2") from None
    if not pairs or any(len(pair) > 2 for pair in pairs):
        raise ValueError(f"tilt_series: {text[:60]!r} is not a list such as 0:3 3:3 -3:3.2")
    if doses and len(doses) != len(angles):
        raise ValueError(f"tilt_series: {len(angles)} angles and {len(doses)} doses; give all doses or none")
    for angle in angles:
        if not abs(angle) < 90:
            raise ValueError(f"tilt_series: a tilt of {angle:g}° is impossible; tilts are below 90°")
    if not all(0 < dose < math.inf for dose in doses):
        raise ValueError("tilt_series: each dose must be positive")
    return angles, doses


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


class Acquisition(BaseModel):
    """Parameters of a simulated tilt series, which domain randomization may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: str = Field(
        "multislice",
        pattern=r"^[A-Za-z][\w.-]*$",
        description="Engine that simulates the images: multislice, parakeet, or one that a package adds.",
    )
    device: Literal["cpu", "gpu", "auto"] = Field(
        "cpu", description="Device that computes the images; auto: a GPU if there is one."
    )
    voxel_size: float = Field(
        8.0, gt=0, json_schema_extra=_unit("Å"), description="Voxel size of the tomogram."
    )
    pixel_size: float = Field(
        1.0,
        gt=0,
        json_schema_extra=_unit("Å"),
        description="Pixel size of the images before binning to voxel_size.",
    )
    voltage: float = Field(300.0, gt=0, json_schema_extra=_unit("kV"))
    spherical_aberration: float = Field(2.7, ge=0, json_schema_extra=_unit("mm"))
    chromatic_aberration: float = Field(2.7, ge=0, json_schema_extra=_unit("mm"))
    defocus: float = Field(2.5, json_schema_extra=_unit("µm"), description="Defocus; underfocus is positive.")
    astigmatism: float = Field(
        0.0, ge=0, json_schema_extra=_unit("µm"), description="Largest minus smallest underfocus."
    )
    astigmatism_angle: float = Field(
        0.0,
        ge=-180,
        le=180,
        json_schema_extra=_unit("°"),
        description="Direction of the largest underfocus, from the image's x towards its y.",
    )
    beam_tilt_x: float = Field(
        0.0,
        ge=-20,
        le=20,
        json_schema_extra=_unit("mrad"),
        description="Tilt of the beam against the axis of the lens.",
    )
    beam_tilt_y: float = Field(0.0, ge=-20, le=20, json_schema_extra=_unit("mrad"))
    energy_spread: float = Field(
        2.66, ge=0, json_schema_extra=_unit("ppm"), description="Spread of the beam's energy, 1/e half width."
    )
    current_spread: float = Field(
        0.33, ge=0, json_schema_extra=_unit("ppm"), description="Spread of the lens current, 1/e half width."
    )
    voltage_spread: float = Field(
        0.8,
        ge=0,
        json_schema_extra=_unit("ppm"),
        description="Spread of the acceleration voltage, 1/e half width.",
    )
    illumination_semiangle: float = Field(
        0.02,
        ge=0,
        json_schema_extra=_unit("mrad"),
        description="Convergence of the beam, from the size of its source.",
    )
    aperture: float = Field(
        0.0,
        ge=0,
        json_schema_extra=_unit("mrad"),
        description="Semi-angle of the objective aperture; 0: none.",
    )
    phase_plate: bool = Field(False, description="A Volta phase plate that shifts the phase.")
    phase_shift: float = Field(
        90.0, ge=0, le=180, json_schema_extra=_unit("°"), description="Phase shift by the phase plate."
    )
    phase_plate_radius: float = Field(
        0.005, gt=0, json_schema_extra=_unit("1/Å"), description="Radius of its spot around the direct beam."
    )
    amplitude_contrast: float = Field(
        0.0, ge=0, lt=1, description="Amplitude contrast, as CTF programs define it."
    )
    energy_filter: bool = Field(
        False, description="Count only electrons that lost no energy; the longer their path, the fewer."
    )
    mean_free_path: float = Field(
        3150.0,
        gt=0,
        json_schema_extra=_unit("Å"),
        description="Mean free path of energy loss in ice, for energy_filter.",
    )
    dose: float = Field(100.0, gt=0, json_schema_extra=_unit("e/Å²"), description="Dose of the whole series.")
    tilt_min: float = Field(-60.0, ge=-89, le=89, json_schema_extra=_unit("°"))
    tilt_max: float = Field(60.0, ge=-89, le=89, json_schema_extra=_unit("°"))
    tilt_step: float = Field(2.0, gt=0, json_schema_extra=_unit("°"))
    tilt_scheme: Literal["dose_symmetric", "bidirectional", "unidirectional", "listed"] = Field(
        "dose_symmetric",
        description="Order of the tilts, which radiation damage follows. listed: that of tilt_series.",
    )
    tilt_start: float = Field(
        0.0,
        ge=-89,
        le=89,
        json_schema_extra=_unit("°"),
        description="First tilt of a dose-symmetric or bidirectional series.",
    )
    tilt_first: Literal["negative", "positive"] = Field(
        "negative", description="Side to which the series goes first, or where a unidirectional one begins."
    )
    tilt_group: int = Field(
        1, ge=1, description="Tilts on one side before a dose-symmetric series changes sides."
    )
    tilt_series: str = Field(
        "",
        description="angle:dose of each image in the order in which they were taken, instead of a scheme,"
        " e.g. `0:3 3:3 -3:3.2`. In a recipe also a .mdoc, .tlt, .rawtlt or tomograms.star file.",
    )
    shift_error: float = Field(
        0.0,
        ge=0,
        json_schema_extra=_unit("Å"),
        description="Shift of each image along x and y, standard deviation.",
    )
    rotation_error: float = Field(
        0.0,
        ge=0,
        le=10,
        json_schema_extra=_unit("°"),
        description="Rotation of each image, standard deviation.",
    )
    tilt_axis_error: float = Field(
        0.0,
        ge=-10,
        le=10,
        json_schema_extra=_unit("°"),
        description="Error of the tilt axis: from the assumed to the true axis, from y towards -x.",
    )
    tilt_angle_error: float = Field(
        0.0,
        ge=0,
        le=10,
        json_schema_extra=_unit("°"),
        description="Error of each tilt angle, standard deviation.",
    )
    tilt_angle_offset: float = Field(
        0.0,
        ge=-30,
        le=30,
        json_schema_extra=_unit("°"),
        description="Error of all tilt angles alike: from the assumed to the true ones.",
    )
    binning: Literal["average", "fourier"] = Field(
        "average",
        description="Binning of pixels to voxels: by the mean of each square, or by cropping the Fourier"
        " transform. Both leave the specimen where it is.",
    )
    ice_density: float = Field(
        0.94, ge=0, json_schema_extra=_unit("g/cm³"), description="Density of the ice; 0: no ice."
    )
    ice_spectrum: Literal["paper", "parakeet"] = Field(
        "paper", description="Parameters of the random ice: those of the paper, or Parakeet's defaults."
    )
    ice_tilt: float = Field(
        0.0,
        ge=-30,
        le=30,
        json_schema_extra=_unit("°"),
        description="Tilt of the ice layer against the box, about the tilt axis; it grows to hold the box.",
    )
    ice_wedge: float = Field(
        0.0,
        ge=-20,
        le=20,
        json_schema_extra=_unit("°"),
        description="Angle between the faces of the ice, which gets thicker along x.",
    )
    vacuum: float = Field(
        0.0,
        ge=0,
        le=5000,
        json_schema_extra=_unit("Å"),
        description="How far the tomogram reaches above and below the box, whose faces are those of the ice.",
    )
    contamination: float = Field(
        0.0,
        ge=0,
        json_schema_extra=_unit("1/µm²"),
        description="Lumps of ice on each face of the ice; they have no label.",
    )
    contamination_size: float = Field(
        200.0, gt=0, json_schema_extra=_unit("Å"), description="Mean diameter of the lumps."
    )
    slice_thickness: float = Field(
        5.0,
        gt=0,
        json_schema_extra=_unit("Å"),
        description="Slice thickness of Parakeet's multislice; the engine multislice has slabs.",
    )
    padding: int = Field(
        64, ge=0, json_schema_extra=_unit("Å"), description="Least padding on each side of the image."
    )
    damage: float = Field(
        0.08, ge=0, json_schema_extra=_unit("Å² per e/Å²"), description="Growth of the B factor with dose."
    )
    dqe: bool = Field(True, description="Apply the detector's quantum efficiency.")
    detector: str = Field(
        "parakeet",
        description="parakeet: its table, as it applies it; counting: the same table on its own axis; pixel:"
        " a perfect one; or a STAR or CSV file with the detector's MTF, DQE or both.",
    )
    detector_curve: str = Field(
        "", description="Content of the detector's file, so that the sample no longer needs the file."
    )
    parakeet_faults: Literal["corrected", "as_published"] = Field(
        "corrected",
        description="as_published: Parakeet's ice misplaced along the beam and ending at the image's edge,"
        " and a lens that spreads one edge over the other.",
    )
    contrast: Contrast = Field(
        "parakeet",
        description="As Parakeet's images at 1 Å a pixel show it; physical: of independent atoms, about 1.8"
        " times that; a number: that many times Parakeet's. Only multislice can use "
        "values other than parakeet.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_listed(cls, fields: Any) -> Any:
        """Derive range, step and scheme from a list of tilts, and the dose if it is not given."""
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        if fields.get("tilt_scheme") == "continuous":  # the name in older recipes and corpora
            fields["tilt_scheme"] = "unidirectional"
        text = fields.get("tilt_series")
        if isinstance(text, str) and text.strip():
            angles, doses = parse_tilt_series(text)
            turns = sorted(set(angles))
            steps = sorted(b - a for a, b in pairwise(turns)) or [1.0]
            fields |= {"tilt_scheme": "listed", "tilt_min": turns[0], "tilt_max": turns[-1]}
            fields |= {"tilt_start": angles[0], "tilt_step": round(steps[len(steps) // 2], 4)}
            fields |= {"tilt_first": "negative", "tilt_group": 1}
            if doses:
                fields.setdefault("dose", round(sum(doses), 4))
        elif fields.get("tilt_scheme") == "listed":
            raise ValueError("tilt_scheme: listed needs tilt_series, the list")
        return fields

    @model_validator(mode="after")
    def _tilts_make_sense(self) -> Acquisition:
        if self.tilt_series.strip():
            return self
        if self.tilt_min >= self.tilt_max:
            raise ValueError("tilt_min must be smaller than tilt_max")
        if self.tilt_step > (self.tilt_max - self.tilt_min) * (1 + 1e-9):  # rounding of binary fractions
            raise ValueError("tilt_step must fit between tilt_min and tilt_max")
        outwards = self.tilt_scheme in ("dose_symmetric", "bidirectional")
        farthest = max(self.tilt_start - self.tilt_min, self.tilt_max - self.tilt_start)
        inside = self.tilt_min <= self.tilt_start <= self.tilt_max
        if outwards and inside and self.tilt_step > farthest * (1 + 1e-9):
            raise ValueError("tilt_step must fit between tilt_start and tilt_min or tilt_max")
        if self.tilt_start and not self.tilt_min <= self.tilt_start <= self.tilt_max:
            raise ValueError("tilt_start must lie between tilt_min and tilt_max")
        return self


class ClassInfo(BaseModel):
    """One target class of a corpus or a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$",
        description="Name of the class; no underscore, which copick forbids.",
    )
    label: int = Field(ge=1, le=255, description="Value of the class in the class volume; 0 is background.")
    radius: float = Field(
        gt=0,
        le=1e5,
        allow_inf_nan=False,
        json_schema_extra=_unit("Å"),
        description="Radius of the solid sphere with the same radius of gyration.",
    )
    is_particle: bool = Field(
        True, description="False for classes that are labelled but not picked: membranes, gold, carbon."
    )


class Intensity(BaseModel):
    """Robust centre and spread of a tomogram's grey values, by which they are normalised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    centre: float = Field(description="Median.")
    spread: float = Field(gt=0, description="Half of the distance from the 16th to the 84th percentile.")


class SampleRecord(BaseModel):
    """One row of the index: what a sample is, how it was made and where it is stored.

    The record is written after everything else, in one atomic step; a sample without it does not exist.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    sample_id: str = Field(pattern=f"^{SAMPLE_ID}$", description="Hash of what determines the sample.")
    name: str = Field(pattern=SHOWN, description="Name for people, e.g. demo-007.")
    path: str = Field(
        pattern=f"^{SAMPLE_PATH}$", description="Path of the sample's Zarr group, relative to the corpus."
    )
    split: Split
    created: str = Field(description="UTC, ISO 8601.")
    seed: int
    acquisition: Acquisition
    shape: tuple[int, int, int] = Field(description="Voxels along z, y, x.")
    n_tilts: int
    n_particles: int = Field(description="Number of particles of the target classes.")
    n_distractors: int
    class_counts: dict[str, int]
    structures: dict[str, str] = Field(description="Name of each structure in the scene -> its checksum.")
    occupancy: float = Field(description="Share of the box that molecules fill (1.35 g/cm³).")
    intensity: Intensity = Field(description="Grey values of the tomogram, for normalisation.")
    seconds: dict[str, float] = Field(description="CPU seconds by stage.")
    software: dict[str, str] = Field(description="Versions of the software that made it.")
    checksums: dict[str, str] = Field(
        description="Object in the group -> BLAKE2b-128 of its bytes. Since version 2 only of zarr.json,"
        " whose attributes hold those of all others: a record stays small whatever its sample holds."
    )
    n_objects: int = Field(description="Number of objects of the group on disk.")
    n_bytes: int = Field(description="Size of the group on disk.")

    @model_validator(mode="after")
    def _is_of_this_sample(self) -> SampleRecord:
        """Refuse a record that names objects outside of its sample; it may come from a stranger."""
        if not self.path.startswith(f"samples/{self.sample_id[:2]}/{self.sample_id}-"):
            raise ValueError("the path is that of another sample")
        if not all(is_key(key) for key in self.checksums):
            raise ValueError("a checksum is of an object outside of the sample")
        return self
