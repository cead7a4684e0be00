"""Metadata for publishing a corpus: ``croissant.json``, a dataset card, a table of samples.

Croissant (mlcommons.org/croissant, version 1.0) is the JSON-LD that Hugging Face, Kaggle, OpenML and Google
Dataset Search read. The card is the ``README.md`` that Hugging Face and Zenodo show. Everything comes from
the corpus except the licence and the creators, which its owner must give.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from catalogs import citation
from catalogs.corpus import sample_table
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.export import card
from catalogs.export.target import Target
from catalogs.schema import Acquisition, SampleRecord
from catalogs.storage.store import open_store

CROISSANT, CARD, TABLE = "croissant.json", "README.md", "samples.parquet"
_STANDARD = "http://mlcommons.org/croissant/1.0"
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
# Names of the standard.
_CR = (
    "citeAs", "column", "equivalentProperty", "extract",
    "field", "fileProperty", "fileObject", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _CR},
}
_MEANING = {
    "sample_id": SampleRecord.model_fields["sample_id"].description,
    "name": "Of the sample, for people.",
    "path": "Of the sample's Zarr group, relative to the corpus.",
    "split": "train, val or test.",
    "created": "UTC, ISO 8601.",
    "seed": "Of the sample's random streams.",
    "n_tilts": "Images of the tilt series.",
    "n_particles": SampleRecord.model_fields["n_particles"].description,
    "n_distractors": "Molecules of no class.",
    "structures": "Names of the structures in the scene.",
    "occupancy": SampleRecord.model_fields["occupancy"].description,
    "centre": "Median of the tomogram's grey values.",
    "spread": "Half of the distance from the 16th to the 84th percentile of the grey values.",
    "cpu_seconds": "What it took to make, on one core.",
    "n_bytes": "Of the sample on disk.",
}
#: What the objects of a sample are: name of the set, what lies below a sample's group, and its meaning.
_SETS = (
    ("tomograms", "0/**", "Tomograms (z, y, x), float32, molecules dark; OME-Zarr 0.5 metadata"),
    ("class-volumes", "labels/classes/0/**", "Class of each voxel (z, y, x), uint8, 0 is background"),
    ("instance-volumes", "labels/instances/0/**", "Molecule of each voxel (z, y, x), uint16"),
    ("particle-tables", "particles/**", "Class, position (Å) and orientation of each molecule"),
    ("tilt-series", "tilts/**", "Angle (°), dose (e/Å²) and image of each tilt"),
)


@dataclass(frozen=True)
class Owner:
    """Information that a corpus does not contain.

    Attributes
    ----------
    licence
        Licence: an SPDX identifier, such as ``CC-BY-4.0``, or a URL.
    creators
        Names of the creators.
    url
        Address of the published corpus.
    """

    licence: str
    creators: Sequence[str] = ()
    url: str = ""

    @property
    def licence_url(self) -> str:
        """The licence as a URL."""
        if "://" in self.licence:
            return self.licence
        return f"https://spdx.org/licenses/{self.licence}.html"


def publish(
    corpus: str | os.PathLike[str], owner: Owner, to: str | os.PathLike[str] | None = None
) -> list[str]:
    """Write ``croissant.json``, ``README.md`` and ``samples.parquet`` of a corpus.

    Parameters
    ----------
    corpus
        Path or URL.
    owner
        Licence and creators.
    to
        Folder or its URL; by default the corpus itself, where the paths lead to the samples.

    Returns
    -------
    list of str
        Paths or URLs of what was written.

    Raises
    ------
    InputError
        If there is no corpus or no sample in it, the licence is invalid, the folder cannot be written, or it
        has a README.md that this function did not write.
    """
    if not ("://" in owner.licence or _SPDX.fullmatch(owner.licence)):
        raise InputError(
            f"`licence={owner.licence}`: give the licence's identifier, such as CC-BY-4.0, or a URL"
        )
    catalog = Catalog.open(corpus)
    records = catalog.records()
    if not records:
        raise InputError(f"the corpus at {catalog.url} has no samples yet; tlgen run makes them")
    target = Target(open_store(catalog.url if to is None else to))
    _keep_other_cards(target)
    samples = sample_table.as_table(records)
    table = _parquet(samples)
    content = croissant(catalog, samples, owner, table)
    files = {
        TABLE: table,
        CROISSANT: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(),
        CARD: card.card(catalog, records, samples, owner.licence, owner.creators, owner.url).encode(),
    }
    for name, data in files.items():
        target.put(name, data)
    return [target.store.at(name) for name in files]


def croissant(catalog: Catalog, samples: pd.DataFrame, owner: Owner, table: bytes) -> dict[str, Any]:
    """Describe a corpus in the Croissant format.

    Parameters
    ----------
    catalog, samples
        The corpus, and its table with relative paths.
    owner
        Licence and creators.
    table
        The Parquet table beside the description.
    """
    content: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": str(catalog.info["name"]),
        "conformsTo": _STANDARD,
        "description": card.summary(catalog, samples),
        "license": owner.licence_url,
        "datePublished": datetime.now(UTC).date().isoformat(),
        "version": "1.0.0",
        "keywords": ["cryo-ET", "simulation", "segmentation", "particle picking"],
        "citeAs": citation.cite("bibtex"),
        "distribution": _distribution(table),
        "recordSet": [_samples(samples), _classes(catalog, samples)],
    }
    if owner.creators:
        content["creator"] = [{"@type": "sc:Person", "name": name} for name in owner.creators]
    if owner.url:
        content["url"] = owner.url
    return content


def _parquet(samples: pd.DataFrame) -> bytes:
    """Write the table as Parquet, which keeps types; an id may look like a number in CSV."""
    words = samples.select_dtypes("object").columns
    raw = io.BytesIO()
    samples.astype(dict.fromkeys(words, str)).reset_index().to_parquet(raw, index=False)
    return raw.getvalue()


def _distribution(table: bytes) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": TABLE,
            "name": TABLE,
            "description": "One row a sample: where it lies, its parameters, counts and costs.",
            "contentUrl": TABLE,
            "contentSize": f"{len(table)} B",
            "encodingFormat": "application/x-parquet",
            "sha256": hashlib.sha256(table).hexdigest(),
        }
    ]
    for name, below, meaning in _SETS:
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": name,
                "name": name,
                "description": f"{meaning}. Zarr 3 arrays.",
                "encodingFormat": "application/vnd.zarr; version=3",
                "includes": f"samples/*/*.zarr/{below}",
            }
        )
    return files


def meaning(name: str) -> str:
    """Describe a column of the table of samples, with its unit."""
    field = Acquisition.model_fields.get(name)
    words = (field.description if field is not None else _MEANING.get(name)) or ""
    unit = sample_table.UNITS.get(name)
    return " ".join([words, f"In {unit}."] if unit else [words]).strip() or name


def _samples(samples: pd.DataFrame) -> dict[str, Any]:
    columns = samples.reset_index()
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "The samples, with every parameter that domain randomization may vary.",
        "key": {"@id": "samples/sample_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"samples/{name}",
                "name": f"samples/{name}",
                "description": meaning(str(name)),
                "dataType": _type(columns[name]),
                "source": {"fileObject": {"@id": TABLE}, "extract": {"column": str(name)}},
            }
            for name in columns.columns
        ],
    }


def _type(column: pd.Series[Any]) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "sc:Boolean"
    if pd.api.types.is_integer_dtype(column):
        return "sc:Integer"
    return "sc:Float" if pd.api.types.is_float_dtype(column) else "sc:Text"


def _classes(catalog: Catalog, samples: pd.DataFrame) -> dict[str, Any]:
    fields = {
        "name": ("sc:Text", "Of the class."),
        "label": ("sc:Integer", "Its value in the class volumes; 0 is background."),
        "radius": ("sc:Float", "Of the solid sphere of equal radius of gyration. In Å."),
    }
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "What voxels and particles are labelled as.",
        "key": {"@id": "classes/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"classes/{name}", "name": f"classes/{name}", "description": words,
             "dataType": kind}
            for name, (kind, words) in fields.items()
        ],
        "data": [
            {f"classes/{name}": getattr(info, name) for name in fields} for info in catalog.classes
        ],
    }  # fmt: skip


def _keep_other_cards(target: Target) -> None:
    """Refuse a folder with a README that was not written here."""
    try:
        [there] = target.store.read_those_there([CARD])
    except OSError as error:
        raise InputError(f"{target.store.url} cannot be read ({error})") from error
    if there is not None and card.MARK.encode() not in there:
        raise InputError(
            f"{target.store.at(CARD)} is not one that tlgen export wrote; move it, or give another `to`"
        )
