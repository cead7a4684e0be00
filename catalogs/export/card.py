"""The dataset card of a corpus: a README.md with a header for Hugging Face and a text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import yaml

from catalogs import citation
from catalogs.amounts import data_size
from catalogs.corpus import sample_table
from catalogs.corpus.catalog import Catalog
from catalogs.schema import Acquisition, SampleRecord

#: Marker in every card; files with it may be overwritten.
MARK = "<!-- written by tlgen export --croissant; changes will be lost -->"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST_WORDS = 8  # largest number of values of a parameter that are listed


def summary(catalog: Catalog, samples: pd.DataFrame) -> str:
    """Describe a corpus in two sentences."""
    names = ", ".join(info.name for info in catalog.classes)
    sizes = sorted({float(size) for size in samples["voxel_size"].unique()})
    voxels = " or ".join(f"{size:g}" for size in sizes)
    return (
        f"{len(samples)} simulated cryo-electron tomograms with voxels of {voxels} Å, their tilt series, "
        f"and the class, instance, position and orientation of every molecule in them. "
        f"Classes: {names}. Made by Template Learning under domain randomization."
    )


def card(
    catalog: Catalog,
    records: Sequence[SampleRecord],
    samples: pd.DataFrame,
    licence: str,
    creators: Sequence[str],
    url: str,
) -> str:
    """Write the dataset card.

    Parameters
    ----------
    catalog, records, samples
        The corpus, its records, and its table.
    licence, creators, url
        Information from its owner.
    """
    head = {
        "license": licence.lower() if "://" not in licence else "other",
        "pretty_name": str(catalog.info["name"]),
        "task_categories": ["image-segmentation", "object-detection"],
        "tags": ["cryo-ET", "simulation", "biology", "zarr", "ome-zarr"],
        "size_categories": [next((word for most, word in _SIZES if len(samples) < most), "n>1M")],
    }
    lines = [
        "---", yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "---", MARK, "",
        f"# {catalog.info['name']}", "", summary(catalog, samples), "",
        *_counts(catalog, records, samples), "", *_parameters(samples), "", *_layout(), "",
        *_making(records), "", "## Licence and citation", "",
        f"Licence: {licence}." + (f" Made by {', '.join(creators)}." if creators else "")
        + (f" Home: <{url}>." if url else ""),
        "", "Please cite the paper of the method:", "", f"> {citation.cite()}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(each).replace("|", "\\|").replace("\n", " ") for each in row) + " |"


def _counts(catalog: Catalog, records: Sequence[SampleRecord], samples: pd.DataFrame) -> Iterator[str]:
    yield "## What is in it"
    yield ""
    splits = sorted(samples["split"].unique(), key=["train", "val", "test"].index)
    labelled: dict[str, Counter[str]] = {split: Counter() for split in splits}
    for record in records:
        labelled[record.split].update(record.class_counts)
    rows: list[list[Any]] = [["samples", "", *(int((samples["split"] == split).sum()) for split in splits)]]
    rows += [
        [info.name, f"{info.label}, {info.radius:g}", *(labelled[split][info.name] for split in splits)]
        for info in catalog.classes
    ]
    others = samples.groupby("split")["n_distractors"].sum()
    rows.append(["distractors", "0", *(int(others[split]) for split in splits)])
    yield from _table(["", "label, radius (Å)", *splits], rows)
    yield ""
    yield f"Together {data_size(samples['n_bytes'].sum())} on disk."


def _parameters(samples: pd.DataFrame) -> Iterator[str]:
    yield "## Parameters"
    yield ""
    varying, same = [], []
    for name, field in Acquisition.model_fields.items():
        values = samples[name]
        words = sorted({str(value) for value in values})
        if len(words) == 1:
            same.append((name, words[0] or "none", sample_table.UNITS.get(name, "")))
            continue
        numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if numbers:
            shown = f"{values.min():g} to {values.max():g}, mean {values.mean():.4g}"
        elif len(words) <= _MOST_WORDS:
            shown = ", ".join(f"{word or 'none'} ({(values.astype(str) == word).sum()})" for word in words)
        else:
            shown = f"{len(words)} different ones"
        varying.append((name, shown, sample_table.UNITS.get(name, ""), field.description or ""))
    if varying:
        yield "What domain randomization varied:"
        yield ""
        yield from _table(["parameter", "values", "unit", "meaning"], varying)
        yield ""
    yield "The same for all samples: " + ", ".join(f"{n} {v} {u}".strip() for n, v, u in same) + "."
    yield ""
    yield "`samples.parquet` has all of them for each sample; `croissant.json` says what each column means."


def _layout() -> Iterator[str]:
    yield "## How to read it"
    yield ""
    yield "Each sample is a Zarr 3 group and a valid OME-Zarr 0.5 image, `samples/<aa>/<id>-<attempt>.zarr`:"
    yield ""
    yield from _table(
        ["array", "axes", "type", "unit", "what"],
        [
            ("`0`", "z, y, x", "float32", "", "tomogram; molecules are dark"),
            ("`labels/classes/0`", "z, y, x", "uint8", "", "class of each voxel; 0 is background"),
            ("`labels/instances/0`", "z, y, x", "uint16", "", "molecule of each voxel; 0 is background"),
            ("`density/0`", "z, y, x", "float32", "Da/Å³", "density of the scene, where it was kept"),
            ("`particles/position`", "particle, xyz", "float64", "Å", "centre; voxel 0's centre is 0 Å"),
            ("`particles/quaternion`", "particle, xyzw", "float64", "", "active, particle to tomogram"),
            ("`particles/...`", "particle", "", "", "class, label, instance, structure, variant"),
            ("`tilts/angle`", "tilt", "float32", "°", "of each image"),
            ("`tilts/dose`", "tilt", "float32", "e/Å²", "accumulated before the image"),
            ("`tilts/images`", "tilt, y, x", "float32", "electrons", "where they were kept"),
        ],
    )
    yield ""
    yield "```python"
    yield "import pandas, xarray"
    yield ""
    yield 'samples = pandas.read_parquet("samples.parquet")'
    yield 'tomogram = xarray.open_zarr(samples["path"][0], consolidated=False)["0"]'
    yield "```"


def _making(records: Sequence[SampleRecord]) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    software: Counter[str] = Counter()
    for record in records:
        software.update({f"{name} {number}" for name, number in record.software.items() if name != "device"})
    hours = sum(sum(record.seconds.values()) for record in records) / 3600
    structures = sorted({name for record in records for name in record.structures})
    yield f"Software: {', '.join(sorted(software))}. It took {hours:.3g} core-hours."
    yield ""
    yield f"Structures: {', '.join(structures)}."
    yield ""
    yield (
        "The attribute `template_learning` of each sample's group holds its recipe, seeds, every parameter "
        "with its unit, checksums of the structures and of every object."
    )
