"""A corpus: simulated tomograms with their labels, at any path or fsspec URL.

::

    corpus.json                         name, classes, recipe, format version
    commits/<aa>/<id>.json              the record of a sample; it exists if, and only if, this does
    samples/<aa>/<id>-<attempt>.zarr    the sample; see :mod:`catalogs.sample_group`
    structures/<digest>.npz             molecules that scenes name by their digest

Writers need no lock. Each writes under a name that only it has, then creates the record, which the
storage lets exactly one of them do. A writer that dies leaves nothing that a reader sees.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from catalogs import index, molecules, sample_group
from catalogs.commit import SAMPLES, commit, look_whole, now
from catalogs.console import DISTRIBUTION, nearest
from catalogs.errors import InputError
from catalogs.sample_group import Sample
from catalogs.schema import FORMAT_VERSION, ClassInfo, SampleRecord
from catalogs.seeds import digest
from catalogs.store import Store, can_create_if_absent, open_store, zarr_store
from catalogs.verification import problems

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Catalog", "Sample", "read_particles_of", "sample_record_of"]

CORPUS = "corpus.json"


class Catalog:
    """A corpus that is open for reading and writing; make one by :meth:`create` or :meth:`open`.

    Attributes
    ----------
    info
        What ``corpus.json`` says.
    """

    def __init__(self, store: Store, info: dict[str, Any]) -> None:
        self.info = info
        self._store = store
        self._known: dict[str, SampleRecord] = {}

    @classmethod
    def create(
        cls, url: str | os.PathLike[str], *, classes: Sequence[ClassInfo], recipe: dict[str, Any], name: str
    ) -> Catalog:
        """Create a corpus, or open the one that is there if it has the same classes.

        Parameters
        ----------
        url
            Path or fsspec URL.
        classes
            Target classes.
        recipe
            What it is made by, JSON-like; kept for people.
        name
            For people.

        Raises
        ------
        InputError
            If there is a corpus with other classes, or the place cannot be written.
        """
        store = open_store(url)
        info: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "created": now(),
            "classes": [entry.model_dump() for entry in classes],
            "recipe": recipe,
            "software": {DISTRIBUTION: version(DISTRIBUTION), "zarr": zarr.__version__},
        }
        digest(info)  # raises on what JSON cannot say, before the storage is touched
        try:
            if not store.exists(CORPUS):
                info["storage"] = {"create_if_absent": can_create_if_absent(store)}
                store.create(CORPUS, json.dumps(info, indent=1).encode())
        except Exception as error:  # every storage has its own words for "no such bucket", "no right to"
            raise InputError(f"no corpus can be written at {url} ({error})") from error
        catalog = cls.open(url)
        if catalog.classes != list(classes):
            theirs = ", ".join(info.name for info in catalog.classes)
            raise InputError(f"the corpus at {url} has other classes ({theirs}); give another place")
        return catalog

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Catalog:
        """Open a corpus.

        Raises
        ------
        InputError
            If there is none, it is damaged, or it was written by a newer version of this program.
        """
        store = open_store(url)
        try:
            data = store.read(CORPUS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"there is no corpus at {url}: it has no {CORPUS}; tlgen run makes one"
            ) from error
        except Exception as error:  # as above: access, credentials, network
            raise InputError(f"the corpus at {url} cannot be read ({error})") from error
        try:
            info = json.loads(data)
            made_by = int(info["format_version"])
            if made_by > FORMAT_VERSION:
                raise InputError(
                    f"{store.at(CORPUS)} has format version {made_by}, this program reads {FORMAT_VERSION};"
                    " update this program"
                )
            return cls(Store(store.url, conditional=bool(info["storage"]["create_if_absent"])), info)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{store.at(CORPUS)} is damaged; restore it from a copy") from error

    @staticmethod
    def exists(url: str | os.PathLike[str]) -> bool:
        """Tell whether there is a corpus at a path or URL; InputError if it cannot be looked at."""
        store = open_store(url)
        try:
            return store.exists(CORPUS)
        except Exception as error:  # every storage has its own words for "no such bucket", "no right to"
            raise InputError(f"{url} cannot be read ({error})") from error

    @property
    def url(self) -> str:
        """Absolute path or URL."""
        return self._store.url

    @property
    def classes(self) -> list[ClassInfo]:
        """Target classes."""
        return [ClassInfo.model_validate(entry) for entry in self.info["classes"]]

    @property
    def digest(self) -> str:
        """Hash of what the corpus is made by: its name, classes and recipe."""
        return digest([self.info["name"], self.info["classes"], self.info["recipe"]])

    @property
    def voxel_size(self) -> float:
        """Voxel size in Å of all samples; InputError if there are none or they differ."""
        sizes = sorted({record.acquisition.voxel_size for record in self.records()})
        if not sizes:
            raise InputError(f"the corpus at {self.url} has no samples yet; tlgen run makes them")
        if len(sizes) > 1:
            listed = ", ".join(f"{size:g}" for size in sizes)
            raise InputError(f"the corpus at {self.url} has voxel sizes {listed} Å; select one")
        return sizes[0]

    # ------------------------------------------------------------------ samples

    def has(self, sample_id: str) -> bool:
        """Tell whether a sample is there, whole."""
        return self._store.exists(index.commit_key(sample_id))

    def record(self, sample_id: str) -> SampleRecord | None:
        """Return the record of a sample, or None if it is not there."""
        key = index.commit_key(sample_id)
        if key not in self._known:
            try:
                self._known[key] = index.read_record(self._store, key)
            except FileNotFoundError:
                return None
        return self._known[key]

    def records(self) -> list[SampleRecord]:
        """Return the records of all samples that are there now, by sample id."""
        self._known = index.read_records(self._store, self._known)
        return list(self._known.values())

    @property
    def samples(self) -> pd.DataFrame:
        """All samples as a table; its columns are in :func:`catalogs.index.as_table`."""
        records = self.records()
        return index.as_table(records, [self._store.at(record.path) for record in records])

    def query(self, where: str | None) -> pd.DataFrame:
        """Return the samples for which an expression holds.

        Parameters
        ----------
        where
            Such as ``"dose < 100 and defocus > 1 and split == 'train'"``, over the columns of
            :attr:`samples`; None for all.

        Raises
        ------
        InputError
            If the expression is wrong; the sentence names the nearest column.
        """
        return index.select(self.samples, where)

    def write(self, sample: Sample) -> SampleRecord:
        """Store a sample: whole, or not at all.

        Of several writers of one sample, one wins; the others remove what they wrote and get the
        winner's record.

        Parameters
        ----------
        sample
            Its ``facts`` hold all fields of the record that are not measured here.

        Returns
        -------
        SampleRecord
            Of the sample that is in the corpus now.

        Raises
        ------
        ValueError
            If the arrays do not fit each other or the facts.
        InputError
            If the tomogram holds values that are not numbers, or is constant.
        """
        standing = self.record(str(sample.facts["sample_id"]))
        return standing if standing is not None else commit(self._store, sample, self.classes)

    def sample_url(self, sample_id: str) -> str:
        """Path or URL of a sample's Zarr group."""
        return self._store.at(self._record_of(sample_id).path)

    def arrays(self, sample_id: str) -> dict[str, zarr.Array[Any]]:
        """Open the volumes of a sample: ``tomogram``, ``classes`` and ``instances``, each (z, y, x).

        Raises
        ------
        InputError
            If there is no such sample or objects of it are lost; Zarr alone would read zeros.
        """
        look_whole(self._store, self._record_of(sample_id))
        group = _open_group(self.sample_url(sample_id))
        found: dict[str, Any] = {name: group[path] for name, path in sample_group.ARRAYS.items()}
        return found

    def open_sample(self, sample_id: str) -> xr.Dataset:
        """Open a sample lazily: ``tomogram``, ``classes``, ``instances`` over z, y, x in Å."""
        import xarray as xr

        record = self._record_of(sample_id)
        look_whole(self._store, record)
        store = zarr_store(self._store.at(record.path))
        variables = {}
        for name, path in sample_group.ARRAYS.items():
            group, _, array = path.rpartition("/")
            opened = xr.open_dataset(  # type: ignore[no-untyped-call,unused-ignore]
                store, engine="zarr", group=group, chunks=None, consolidated=False, mask_and_scale=False
            )
            variables[name] = opened[array]
        steps = dict(zip("zyx", record.shape, strict=True))
        places = {axis: np.arange(n) * record.acquisition.voxel_size for axis, n in steps.items()}
        return xr.Dataset(variables, coords=places, attrs={"sample_id": sample_id, "name": record.name})

    def particles(self, sample_id: str) -> pd.DataFrame:
        """Read the particle table of a sample, distractors (label 0) among it."""
        return sample_group.read_particles(_open_group(self.sample_url(sample_id)))

    def verify(self) -> list[str]:
        """Read every object of the corpus and compare it with its record.

        Returns
        -------
        list of str
            One sentence a problem; empty if all is well. Samples that are being written at this moment
            are listed as unfinished.
        """
        return problems(self._store)

    # ------------------------------------------------------------------ molecules

    def put_molecule(self, digest: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the arrays of a molecule under its digest, unless they are there."""
        molecules.put(self._store, digest, arrays)

    def has_molecule(self, digest: str) -> bool:
        """Tell whether there are arrays under this digest."""
        return molecules.has(self._store, digest)

    def get_molecule(self, digest: str) -> dict[str, NDArray[Any]]:
        """Read the arrays of a molecule; InputError if there is none of this digest."""
        return dict(molecules.get(self._store, digest))

    # ------------------------------------------------------------------

    def _record_of(self, sample_id: str) -> SampleRecord:
        record = self.record(sample_id)
        if record is None:
            near = nearest(sample_id, (known.sample_id for known in self.records()))
            raise InputError(f"there is no sample {sample_id} in the corpus {self.url}{near}")
        return record


def read_particles_of(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the particle table of a sample, given the path or URL of its Zarr group.

    Raises
    ------
    InputError
        If it is no sample of a corpus.
    """
    group = _open_group(open_store(path).url)
    if "particles" not in group:
        raise InputError(f"{os.fspath(path)} has no particles: it is not a sample of a corpus")
    return sample_group.read_particles(group)


def sample_record_of(path: str | os.PathLike[str]) -> SampleRecord | None:
    """Find the record of a sample, given the path or URL of its Zarr group; None outside of a corpus."""
    url = open_store(path).url
    root, _, inside = url.rpartition(f"/{SAMPLES}/")
    sample_id = inside.rpartition("/")[2].partition("-")[0]
    if not root or not open_store(root).exists(CORPUS):
        return None
    record = Catalog.open(root).record(sample_id)
    return record if record is not None and record.path == f"{SAMPLES}/{inside}" else None


def _open_group(url: str) -> zarr.Group:
    from zarr.errors import GroupNotFoundError

    try:
        return zarr.open_group(zarr_store(url), mode="r", zarr_format=3)
    except (GroupNotFoundError, FileNotFoundError, ValueError) as error:
        raise InputError(f"{url} is not a sample of a corpus") from error
