"""The facts shown on the page of a sample."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from typing import Any

from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.particles import DISTRACTOR
from catalogs.schema import Acquisition, SampleRecord
from catalogs.schema import units as units_of
from tlgen.scene.view import class_colours

_DIGITS = 2  # decimals of positions in Å


def facts(catalog: Catalog, sample_id: str) -> dict[str, Any]:
    """Gather everything about a sample except its voxels, as values for JSON.

    Raises
    ------
    InputError
        If there is no such sample, or it is damaged.
    """
    record = catalog.record(sample_id)
    if record is None:
        raise InputError(f"there is no sample {sample_id} in the corpus {catalog.url}")
    tilts = catalog.tilts(sample_id)
    url = catalog.sample_url(sample_id)
    return {
        "id": sample_id,
        "name": record.name,
        "corpus": catalog.info["name"],
        "shape": list(record.shape),
        "voxel_size": record.acquisition.voxel_size,
        "volumes": list(catalog.arrays(sample_id)),
        "classes": _classes(catalog, record),
        "particles": _particles(catalog, sample_id),
        "tilts": {
            "angle": [round(float(angle), 3) for angle in tilts["angle"].values],
            "dose": [round(float(dose), 3) for dose in tilts["dose"].values],
            "images": "images" in tilts,
        },
        "parameters": _parameters(record.acquisition),
        "record": record.model_dump(mode="json", exclude={"acquisition", "checksums"}),
        "napari": f"napari --plugin napari-ome-zarr {shlex.quote(url)}",
        "neuroglancer": find_spec("neuroglancer") is not None,
    }


def _classes(catalog: Catalog, record: SampleRecord) -> list[dict[str, Any]]:
    """List the classes, followed by the distractors as a class with label 0."""
    classes = sorted(catalog.classes, key=lambda info: info.label)
    colours = class_colours([info.name for info in classes])
    rows: list[dict[str, Any]] = [
        {
            "name": info.name,
            "label": info.label,
            "radius": info.radius,
            "count": record.class_counts.get(info.name, 0),
            "colour": "rgb({},{},{})".format(*colours[info.name]),
        }
        for info in classes
    ]
    grey = "rgb({},{},{})".format(*colours[DISTRACTOR])
    rows.append(
        {"name": DISTRACTOR, "label": 0, "radius": None, "count": record.n_distractors, "colour": grey}
    )
    return rows


def _particles(catalog: Catalog, sample_id: str) -> dict[str, list[Any]]:
    table = catalog.particles(sample_id)
    found: dict[str, list[Any]] = {
        axis: [round(place, _DIGITS) for place in table[axis].tolist()] for axis in "xyz"
    }
    return found | {name: table[name].tolist() for name in ("label", "structure", "variant")}


def _parameters(acquisition: Acquisition) -> list[dict[str, Any]]:
    units = units_of(Acquisition)
    return [
        {
            "name": name,
            "value": getattr(acquisition, name),
            "unit": units.get(name, ""),
            "about": field.description or "",
        }
        for name, field in Acquisition.model_fields.items()
    ]
