"""The words of a corpus: how a sample was acquired, and the record that makes it findable.

Units are part of the schema: ``Acquisition.model_json_schema()`` carries a ``unit`` for every
randomized parameter.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Version of the layout on disk. A reader refuses a newer one, reads older ones (:mod:`catalogs.versions`).
#:
#: 1. A record names every object of its sample. The tilt images are an object each.
#: 2. A record vouches for the sample's root, which names all other objects; ``recent/`` and ``index/``.
FORMAT_VERSION = 2

Split = Literal["train", "val", "test"]

#: What a sample's id, and the path of its group in a corpus, look like.
SAMPLE_ID = r"[0-9a-f]{16}"
SAMPLE_PATH = rf"samples/[0-9a-f]{{2}}/{SAMPLE_ID}-[0-9a-z]+\.zarr"
#: Text that is printed: without characters that would steer a terminal.
SHOWN = r"^[^\x00-\x1f\x7f-\x9f]*$"


def is_key(key: str) -> bool:
    """Tell whether a key is one below a group: relative, and without ``..``."""
    return bool(key) and "\0" not in key and all(part not in ("", ".", "..") for part in key.split("/"))


def _contrast(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("parakeet", "physical")):
        raise ValueError(f"must be parakeet, physical or a number (times Parakeet's), not {value}")
    return value


#: Which contrast images show: a word, or so many times Parakeet's.
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
        If it is none, an angle is not below 90°, or a dose is not positive.
    """
    pairs = [word.split(":") for word in text.replace(",", " ").split()]
    try:
        angles = [float(pair[0]) for pair in pairs]
        doses = [float(pair[1]) for pair in pairs if len(pair) > 1]
    except ValueError:
        raise ValueError(f"tilt_series: {text[:60]!r} is no list such as 0:3 3:3 -3:3.2") from None
    if not pairs or any(len(pair) > 2 for pair in pairs):
        raise ValueError(f"tilt_series: {text[:60]!r} is no list such as 0:3 3:3 -3:3.2")
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
    """Every parameter of a simulated tilt series that domain randomization may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: str = Field(
        "multislice",
        pattern=r"^[A-Za-z][\w.-]*$",
        description="What simulates the images: multislice, parakeet, or an engine that a package adds.",
    )
    device: Literal["cpu", "gpu", "auto"] = Field(
        "cpu", description="Where images are computed; auto: on a GPU where there is one."
    )
    voxel_size: float = Field(8.0, gt=0, json_schema_extra=_unit("Å"), description="Of the tomogram.")
    pixel_size: float = Field(
        1.0, gt=0, json_schema_extra=_unit("Å"), description="Of the images before binning to voxel_size."
    )
    voltage: float = Field(300.0, gt=0, json_schema_extra=_unit("kV"))
    spherical_aberration: float = Field(2.7, ge=0, json_schema_extra=_unit("mm"))
    chromatic_aberration: float = Field(2.7, ge=0, json_schema_extra=_unit("mm"))
    defocus: float = Field(
        2.5, json_schema_extra=_unit("µm"), description="Underfocus is positive, as microscopists say it."
    )
    astigmatism: float = Field(
        0.0, ge=0, json_schema_extra=_unit("µm"), description="Largest underfocus less the smallest one."
    )
    astigmatism_angle: float = Field(
        0.0,
        ge=-180,
        le=180,
        json_schema_extra=_unit("°"),
        description="From the image's x towards its y, where the underfocus is largest.",
    )
    beam_tilt_x: float = Field(
        0.0,
        ge=-20,
        le=20,
        json_schema_extra=_unit("mrad"),
        description="Of the beam against the lens's axis.",
    )
    beam_tilt_y: float = Field(0.0, ge=-20, le=20, json_schema_extra=_unit("mrad"))
    energy_spread: float = Field(
        2.66, ge=0, json_schema_extra=_unit("ppm"), description="1/e half width of the beam's energy."
    )
    current_spread: float = Field(
        0.33, ge=0, json_schema_extra=_unit("ppm"), description="1/e half width of the lens current."
    )
    voltage_spread: float = Field(
        0.8, ge=0, json_schema_extra=_unit("ppm"), description="1/e half width of the acceleration voltage."
    )
    illumination_semiangle: float = Field(
        0.02, ge=0, json_schema_extra=_unit("mrad"), description="Of the beam's cone, its source's size."
    )
    aperture: float = Field(
        0.0, ge=0, json_schema_extra=_unit("mrad"), description="Of the objective, semi-angle; 0: none."
    )
    phase_plate: bool = Field(False, description="A Volta phase plate that shifts the phase.")
    phase_shift: float = Field(
        90.0, ge=0, le=180, json_schema_extra=_unit("°"), description="By the phase plate."
    )
    phase_plate_radius: float = Field(
        0.005, gt=0, json_schema_extra=_unit("1/Å"), description="Of the spot around the direct beam."
    )
    amplitude_contrast: float = Field(
        0.0, ge=0, lt=1, description="Share of the contrast that is of amplitude, as CTF programs count it."
    )
    energy_filter: bool = Field(
        False, description="Only electrons that lost no energy are counted: fewer, the longer their path."
    )
    mean_free_path: float = Field(
        3150.0, gt=0, json_schema_extra=_unit("Å"), description="Of energy loss in ice, for energy_filter."
    )
    dose: float = Field(100.0, gt=0, json_schema_extra=_unit("e/Å²"), description="Over the whole series.")
    tilt_min: float = Field(-60.0, ge=-89, le=89, json_schema_extra=_unit("°"))
    tilt_max: float = Field(60.0, ge=-89, le=89, json_schema_extra=_unit("°"))
    tilt_step: float = Field(2.0, gt=0, json_schema_extra=_unit("°"))
    tilt_scheme: Literal["dose_symmetric", "bidirectional", "unidirectional", "listed"] = Field(
        "dose_symmetric",
        description="The order in which the tilts are taken; damage follows it. listed: as tilt_series says.",
    )
    tilt_start: float = Field(
        0.0,
        ge=-89,
        le=89,
        json_schema_extra=_unit("°"),
        description="The first tilt of a dose-symmetric or bidirectional series, from which others step.",
    )
    tilt_first: Literal["negative", "positive"] = Field(
        "negative", description="The side that the series goes to first, or begins at if unidirectional."
    )
    tilt_group: int = Field(
        1, ge=1, description="Tilts that a dose-symmetric series takes on one side before it changes sides."
    )
    tilt_series: str = Field(
        "",
        description="angle:dose of each image in the order in which they were taken, instead of a scheme,"
        " e.g. `0:3 3:3 -3:3.2`. In a recipe also a .mdoc, .tlt, .rawtlt or tomograms.star file.",
    )
    shift_error: float = Field(
        0.0, ge=0, json_schema_extra=_unit("Å"), description="Standard deviation along x and y of each image."
    )
    rotation_error: float = Field(
        0.0, ge=0, le=10, json_schema_extra=_unit("°"), description="Standard deviation, of each image."
    )
    tilt_axis_error: float = Field(
        0.0,
        ge=-10,
        le=10,
        json_schema_extra=_unit("°"),
        description="From where the tilt axis is assumed to where it is, from y towards -x.",
    )
    tilt_angle_error: float = Field(
        0.0, ge=0, le=10, json_schema_extra=_unit("°"), description="Standard deviation, of each tilt."
    )
    tilt_angle_offset: float = Field(
        0.0,
        ge=-30,
        le=30,
        json_schema_extra=_unit("°"),
        description="From the assumed tilts to the true ones, the same for all.",
    )
    binning: Literal["average", "fourier"] = Field(
        "average",
        description="How pixels become voxels: as the mean of each square, or by cropping the Fourier"
        " transform. Both leave the specimen where it is.",
    )
    ice_density: float = Field(0.94, ge=0, json_schema_extra=_unit("g/cm³"), description="0: no ice.")
    ice_spectrum: Literal["paper", "parakeet"] = Field(
        "paper", description="Of the random ice: as the paper set it, or Parakeet's own default."
    )
    ice_tilt: float = Field(
        0.0,
        ge=-30,
        le=30,
        json_schema_extra=_unit("°"),
        description="Of the layer of ice against the box, about the tilt axis; it grows to hold the box.",
    )
    ice_wedge: float = Field(
        0.0,
        ge=-20,
        le=20,
        json_schema_extra=_unit("°"),
        description="Between the faces of the ice: it grows thicker along x, from the box's thickness on.",
    )
    vacuum: float = Field(
        0.0,
        ge=0,
        le=5000,
        json_schema_extra=_unit("Å"),
        description="The tomogram reaches so far above and below the box: its faces are those of the ice.",
    )
    contamination: float = Field(
        0.0,
        ge=0,
        json_schema_extra=_unit("1/µm²"),
        description="Lumps of ice that stand on each face of the ice; they have no label.",
    )
    contamination_size: float = Field(
        200.0, gt=0, json_schema_extra=_unit("Å"), description="Of the lumps' diameters, the mean."
    )
    slice_thickness: float = Field(
        5.0, gt=0, json_schema_extra=_unit("Å"), description="Of Parakeet's multislice; multislice has slabs."
    )
    padding: int = Field(
        64, ge=0, json_schema_extra=_unit("Å"), description="At least this much on each side of the image."
    )
    damage: float = Field(
        0.08, ge=0, json_schema_extra=_unit("Å² per e/Å²"), description="Growth of the B factor with dose."
    )
    dqe: bool = Field(True, description="The detector's quantum efficiency lowers the counts.")
    detector: str = Field(
        "parakeet",
        description="parakeet: its table as it applies it; counting: the same table on its own axis; pixel:"
        " a perfect one; or a STAR or CSV file with the detector's MTF, DQE or both.",
    )
    detector_curve: str = Field(
        "", description="What the detector's file says, so that a sample needs the file no longer."
    )
    parakeet_faults: Literal["corrected", "as_published"] = Field(
        "corrected",
        description="as_published: Parakeet's ice misplaced along the beam and ending at the image's edge,"
        " and a lens that spreads one edge over the other.",
    )
    contrast: Contrast = Field(
        "parakeet",
        description="As Parakeet's images at 1 Å a pixel show it; physical: of independent atoms, about 1.8"
        " times that; a number: so many times Parakeet's. Only multislice has others than parakeet.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_listed(cls, fields: Any) -> Any:
        """Let a list of tilts speak for range, step and scheme, and for the dose where nothing else does."""
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        if fields.get("tilt_scheme") == "continuous":  # the word of older recipes and corpora
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
        if self.tilt_step > (self.tilt_max - self.tilt_min) * (1 + 1e-9):  # binary fractions
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", description="No underscore: copick forbids it.")
    label: int = Field(ge=1, le=255, description="Its value in the class volume; 0 is background.")
    radius: float = Field(
        gt=0,
        le=1e5,
        allow_inf_nan=False,
        json_schema_extra=_unit("Å"),
        description="Of the solid sphere of equal radius of gyration.",
    )
    is_particle: bool = Field(
        True, description="False for what is labelled but not picked: membranes, gold, carbon."
    )


class Intensity(BaseModel):
    """Robust centre and spread of a tomogram's grey values; the one definition of normalisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    centre: float = Field(description="Median.")
    spread: float = Field(gt=0, description="Half of the distance from the 16th to the 84th percentile.")


class SampleRecord(BaseModel):
    """One row of the index: what a sample is, how it was made and where it lies.

    The record is written after everything else, in one atomic step; a sample without it does not exist.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    sample_id: str = Field(pattern=f"^{SAMPLE_ID}$", description="Hash of what determines the sample.")
    name: str = Field(pattern=SHOWN, description="For people, e.g. demo-007.")
    path: str = Field(
        pattern=f"^{SAMPLE_PATH}$", description="Of the sample's Zarr group, relative to the corpus."
    )
    split: Split
    created: str = Field(description="UTC, ISO 8601.")
    seed: int
    acquisition: Acquisition
    shape: tuple[int, int, int] = Field(description="Voxels along z, y, x.")
    n_tilts: int
    n_particles: int = Field(description="Of the target classes.")
    n_distractors: int
    class_counts: dict[str, int]
    structures: dict[str, str] = Field(description="Name of each structure in the scene -> its checksum.")
    occupancy: float = Field(description="Share of the box that molecules fill (1.35 g/cm³).")
    intensity: Intensity = Field(description="Of the tomogram, for normalisation.")
    seconds: dict[str, float] = Field(description="CPU seconds by stage.")
    software: dict[str, str] = Field(description="Versions of what made it.")
    checksums: dict[str, str] = Field(
        description="Object in the group -> BLAKE2b-128 of its bytes. Since version 2 only of zarr.json,"
        " whose attributes hold those of all others: a record stays small whatever its sample holds."
    )
    n_objects: int = Field(description="Of the group on disk.")
    n_bytes: int = Field(description="Of the group on disk.")

    @model_validator(mode="after")
    def _is_of_this_sample(self) -> SampleRecord:
        """Refuse a record that names what is no part of its sample: it may come from anywhere."""
        if not self.path.startswith(f"samples/{self.sample_id[:2]}/{self.sample_id}-"):
            raise ValueError("the path is that of another sample")
        if not all(is_key(key) for key in self.checksums):
            raise ValueError("a checksum is of an object outside of the sample")
        return self
