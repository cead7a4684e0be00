"""Corpora: simulated tomograms with their labels, at any path or fsspec URL.

::

    corpus.json                         name, classes, recipe, format version
    commits/<aa>/<id>.json              the record of a sample; the sample exists if and only if this does
    recent/, index/                     how readers find the records; see :mod:`catalogs.corpus.index`
    samples/<aa>/<id>-<attempt>.zarr    the sample; see :mod:`catalogs.corpus.sample_group`
    structures/<digest>.npz             molecules, which scenes refer to by their digest

Writers need no lock. Each writes under a name of its own and then creates the record; the storage lets only
one writer succeed. A writer that dies leaves nothing that readers see.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd
import zarr
from numpy.typing import NDArray

from catalogs.console import DISTRIBUTION, nearest
from catalogs.corpus import copying, index, molecules, repair, sample_group, sample_table, thumbnail
from catalogs.corpus.commit import SAMPLES, check_complete, commit, now
from catalogs.corpus.places import CORPUS, refuse_one_in_the_other, refuse_what_is_there
from catalogs.corpus.sample_group import Sample
from catalogs.corpus.verification import OnProgress, Problem, examine
from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, ClassInfo, SampleRecord
from catalogs.seeds import digest
from catalogs.storage.reader import StoredArray
from catalogs.storage.store import Store, can_create_if_absent, open_store
from catalogs.versions import require_known

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Catalog", "Sample", "read_particles_of", "sample_record_of"]


class Catalog:
    """A corpus, open for reading and writing; made by :meth:`create` or :meth:`open`.

    Attributes
    ----------
    info
        Content of ``corpus.json``.
    """

    def __init__(self, store: Store, info: dict[str, Any]) -> None:
        self.info = info
        self._store = store
        self._view: index.View | None = None
        self._known: dict[str, SampleRecord] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the index that has been read; a worker needs only one sample."""
        return {**self.__dict__, "_view": None, "_known": {}}

    @classmethod
    def create(
        cls, url: str | os.PathLike[str], *, classes: Sequence[ClassInfo], recipe: dict[str, Any], name: str
    ) -> Catalog:
        """Create a corpus, or open an existing one with the same classes.

        Parameters
        ----------
        url
            Path or fsspec URL.
        classes
            Target classes.
        recipe
            The recipe of the corpus, JSON-like, stored for people.
        name
            Name for people.

        Raises
        ------
        InputError
            If there is a corpus with other classes, or the path cannot be written.
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
        digest(info)  # fails on values that JSON cannot hold, before the storage is touched
        try:
            if not store.exists(CORPUS):
                refuse_what_is_there(store)
                info["storage"] = {"create_if_absent": can_create_if_absent(store)}
                store.create(CORPUS, json.dumps(info, indent=1).encode())
        except InputError:
            raise
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
            If there is no corpus, it is damaged, or a newer version of this program wrote it.
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
            require_known(int(info["format_version"]), store.at(CORPUS))
            _ = [ClassInfo.model_validate(entry) for entry in info["classes"]], info["name"], info["recipe"]
            return cls(Store(store.url, conditional=bool(info["storage"]["create_if_absent"])), info)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{store.at(CORPUS)} is damaged; restore it from a copy") from error

    @staticmethod
    def exists(url: str | os.PathLike[str]) -> bool:
        """Return whether there is a corpus at a path or URL (InputError if it cannot be read)."""
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
        """Hash of the name, classes and recipe of the corpus."""
        return digest([self.info["name"], self.info["classes"], self.info["recipe"]])

    @property
    def voxel_size(self) -> float:
        """Voxel size in Å of all samples (InputError if there are none or they differ)."""
        sizes = sorted({float(size) for size in self.samples["voxel_size"].unique()})
        if not sizes:
            raise InputError(f"the corpus at {self.url} has no samples yet; tlgen run makes them")
        if len(sizes) > 1:
            listed = ", ".join(f"{size:g}" for size in sizes)
            raise InputError(f"the corpus at {self.url} has voxel sizes {listed} Å; select one")
        return sizes[0]

    # ------------------------------------------------------------------ samples

    def has(self, sample_id: str) -> bool:
        """Return whether a sample exists, complete."""
        return self._store.exists(index.commit_key(sample_id))

    def record(self, sample_id: str) -> SampleRecord | None:
        """Return the record of a sample, or None if there is none."""
        found = self._view.get(sample_id) if self._view else None
        if found is None and sample_id not in self._known:
            standing = self._standing(sample_id)
            if standing is None:
                return None
            self._known[sample_id] = standing
        return found or self._known[sample_id]

    def sample_ids(self) -> list[str]:
        """Return the sorted ids of all samples, which is faster than their records."""
        return self._find_samples().ids()

    def records(self) -> list[SampleRecord]:
        """Return the records of all samples, by sample id."""
        return self._find_samples().records()

    @property
    def samples(self) -> pd.DataFrame:
        """All samples as a table, with full paths.

        The columns are those of :func:`catalogs.corpus.sample_table.as_table`.
        """
        frame = self._find_samples().frame()
        return frame.assign(path=f"{self.url}/" + frame["path"])

    def query(self, where: str | None) -> pd.DataFrame:
        """Return the samples for which a condition holds.

        Parameters
        ----------
        where
            Such as ``"dose < 100 and defocus > 1 and split == 'train'"``, over the columns of
            :attr:`samples`; None for all.

        Raises
        ------
        InputError
            If the condition is wrong; the message names the nearest column.
        """
        return sample_table.select(self.samples, where)

    def to_xarray(self, where: str | None = None) -> xr.DataTree:
        """Return all samples, or those of a query, as one lazy tree indexed by the parameters.

        Returns
        -------
        xarray.DataTree
            ``samples`` is the table, its variables with their ``units``; a node below ``volumes`` holds those
            of all samples of a shape, over (sample, z, y, x). See :func:`catalogs.corpus.as_xarray.tree`.
        """
        from catalogs.corpus import as_xarray

        about = {"name": self.info["name"], "url": self.url, "classes": [info.name for info in self.classes]}
        return as_xarray.tree(self.query(where), self.arrays, about)

    def split(
        self,
        by: str | Sequence[str] = "sample_id",
        *,
        shares: Mapping[str, float] | None = None,
        hold_out: str | None = None,
        where: str | None = None,
        seed: int = 0,
    ) -> dict[str, pd.DataFrame]:
        """Split the samples; the split is reproducible and does not change when samples are added.

        Parameters
        ----------
        by
            ``sample_id`` splits single samples. With one or several columns, samples with equal values stay
            together, so that a network is tested on parameters that it never saw. ``split`` takes the
            split of the recipe.
        shares
            Name of a part -> its share; by default 80 % ``train``, 10 % ``val``, 10 % ``test``. Shares hold
            on average, because the part of a sample does not depend on other samples.
        hold_out
            A query; all its samples are in ``test``, whatever the shares.
        where
            A query; only its samples are split.
        seed
            Another seed gives another split.

        Returns
        -------
        dict
            Name of the part -> its rows of :attr:`samples`.

        Raises
        ------
        InputError
            If a column, a query or the shares are wrong.
        """
        wanted = shares if shares is not None else {"train": 0.8, "val": 0.1, "test": 0.1}
        return sample_table.split(self.query(where), by, wanted, hold_out, seed)

    def write(self, sample: Sample) -> SampleRecord:
        """Store a sample completely or not at all.

        If several writers store the same sample, one wins; the others remove what they wrote and get the
        winner's record.

        Parameters
        ----------
        sample
            The sample; its ``facts`` are all fields of the record that are not measured here.

        Returns
        -------
        SampleRecord
            Record of the sample that is in the corpus now.

        Raises
        ------
        ValueError
            If the arrays do not fit each other or the facts.
        InputError
            If the tomogram holds values that are not numbers, or is constant.
        """
        standing = self._standing(str(sample.facts["sample_id"]))
        return standing if standing is not None else commit(self._store, sample, self.classes)

    def sample_url(self, sample_id: str) -> str:
        """Path or URL of a sample's Zarr group."""
        return self._store.at(self._record_of(sample_id).path)

    def arrays(self, sample_id: str) -> dict[str, StoredArray]:
        """Open the volumes of a sample, each (z, y, x).

        They are ``tomogram``, ``classes``, ``instances`` and, where it is kept, ``density``.

        Raises
        ------
        InputError
            If there is no such sample, or objects of it are lost, where Zarr alone would read zeros.
        """
        check_complete(self._store, self._record_of(sample_id))
        url = self.sample_url(sample_id)
        group: Any = sample_group.open_group(url)
        paths = sample_group.volumes_in(group)
        return {name: StoredArray(group[path], f"{url}/{path}") for name, path in paths.items()}

    def open_sample(self, sample_id: str) -> xr.Dataset:
        """Open the volumes of a sample lazily, named as in :meth:`arrays`, over z, y, x in Å."""
        from catalogs.corpus import as_xarray

        return as_xarray.open_volumes(self._store, self._record_of(sample_id))

    def thumbnail(self, sample_id: str) -> bytes:
        """Return the thumbnail of a sample as PNG, of at most 128 x 128 pixels.

        It is drawn now if the sample has none, or one that is not such a picture.

        Raises
        ------
        InputError
            If there is no such sample, objects of it are lost, or it is too large to draw.
        """
        record = self._record_of(sample_id)
        try:
            stored = self._store.read(f"{record.path}/{thumbnail.THUMBNAIL}", thumbnail.MOST_BYTES + 1)
        except FileNotFoundError:
            stored = b""
        if thumbnail.is_one(stored):
            return stored
        return thumbnail.draw(self.arrays(sample_id)["tomogram"])

    def particles(self, sample_id: str) -> pd.DataFrame:
        """Read the particle table of a sample, including distractors (label 0)."""
        return sample_group.read_particles(sample_group.open_group(self.sample_url(sample_id)))

    def tilts(self, sample_id: str) -> xr.Dataset:
        """Open the tilt series of a sample lazily: ``angle`` (°), ``dose`` (e/Å²), ``images`` if kept."""
        from catalogs.corpus import as_xarray

        return as_xarray.open_tilts(self._store, self._record_of(sample_id))

    def provenance(self, sample_id: str) -> dict[str, Any]:
        """Read how a sample was made.

        Returns
        -------
        dict
            Includes ``acquisition`` and its ``units``, ``recipe``, ``seed`` and ``seeds``, ``software``,
            ``structures`` (name -> checksum). A sample of format version 1 has no recipe, seeds and units.
        """
        attributes = sample_group.open_group(self.sample_url(sample_id)).attrs
        found: dict[str, Any] = dict(attributes["template_learning"])  # type: ignore[arg-type]
        return found

    # ------------------------------------------------------------------ the corpus as a whole

    def compact(self) -> int:
        """Write a new index if there are new samples; any number of programs may do so at any time.

        The index makes opening a corpus fast, but is never needed: samples are visible at once.

        Returns
        -------
        int
            Number of samples in the corpus.
        """
        self._view = index.compact(self._store, journal=self._journal)
        return len(self._view.ids())

    def verify(self) -> list[str]:
        """Read every object of the corpus and compare it with its record, and the records with the index.

        Returns
        -------
        list of str
            One sentence for each problem; empty if there are none. Samples that are being written now are
            listed as unfinished.
        """
        return [problem.text for problem in self.problems()]

    def problems(self, *, deep: bool = True, on_progress: OnProgress | None = None) -> Iterator[Problem]:
        """Yield problems as they are found; see :func:`catalogs.corpus.verification.examine`."""
        return examine(self._store, deep=deep, journal=self._journal, on_progress=on_progress)

    def plan_repair(
        self, *, grace: float = index.GRACE, deep: bool = True, on_progress: OnProgress | None = None
    ) -> repair.Repairs:
        """Find problems and what :meth:`repair` would do (:func:`catalogs.corpus.repair.plan`)."""
        return repair.plan(
            self._store, grace=grace, deep=deep, journal=self._journal, on_progress=on_progress
        )

    def repair(self, todo: repair.Repairs) -> None:
        """Do what :meth:`plan_repair` found; see :func:`catalogs.corpus.repair.apply`."""
        self._view, self._known = None, {}
        repair.apply(self._store, todo, journal=self._journal)

    def copy_to(
        self,
        url: str | os.PathLike[str],
        where: str | None = None,
        *,
        on_progress: copying.OnProgress | None = None,
    ) -> copying.Copied:
        """Copy the samples for which a query holds to another corpus, which is created if needed.

        Call it again after an interruption, or for new samples; existing copies are not made again.

        Raises
        ------
        InputError
            If the query is wrong, the target cannot be written, or it has other classes.
        """
        ids = [str(sample_id) for sample_id in self.query(where).index]
        refuse_one_in_the_other(self._store, open_store(url))
        target = Catalog.create(
            url, classes=self.classes, recipe=self.info["recipe"], name=str(self.info["name"])
        )
        done = copying.copy(self._store, target._store, ids, on_progress=on_progress)
        target.compact()
        return done

    # ------------------------------------------------------------------ molecules

    def put_molecule(self, digest: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store the arrays of a molecule under its digest, unless they exist."""
        molecules.put(self._store, digest, arrays)

    def has_molecule(self, digest: str) -> bool:
        """Return whether there are arrays under this digest."""
        return molecules.has(self._store, digest)

    def get_molecule(self, digest: str) -> dict[str, NDArray[Any]]:
        """Read the arrays of a molecule (InputError if the digest is unknown)."""
        return dict(molecules.get(self._store, digest))

    # ------------------------------------------------------------------

    @property
    def _journal(self) -> bool:
        """Whether all writers of this corpus announce their samples in ``recent/``."""
        return int(self.info["format_version"]) > 1

    def _find_samples(self) -> index.View:
        self._view = index.find_samples(self._store, self._view, journal=self._journal)
        return self._view

    def _standing(self, sample_id: str) -> SampleRecord | None:
        """Read the current record from the storage."""
        try:
            return index.read_record(self._store, index.commit_key(sample_id))
        except FileNotFoundError:
            return None

    def _record_of(self, sample_id: str) -> SampleRecord:
        if (record := self.record(sample_id)) is not None:
            return record
        near = nearest(sample_id, self.sample_ids())
        raise InputError(f"there is no sample {sample_id} in the corpus {self.url}{near}")


def read_particles_of(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the particle table of a sample, given the path or URL of its Zarr group.

    Raises
    ------
    InputError
        If it is no sample of a corpus.
    """
    group = sample_group.open_group(open_store(path).url)
    if "particles" not in group:
        raise InputError(f"{os.fspath(path)} has no particles: it is not a sample of a corpus")
    return sample_group.read_particles(group)


def sample_record_of(path: str | os.PathLike[str]) -> SampleRecord | None:
    """Find the record of a sample, given the path or URL of its Zarr group; None outside of a corpus."""
    root, _, inside = open_store(path).url.rpartition(f"/{SAMPLES}/")
    sample_id = inside.rpartition("/")[2].partition("-")[0]
    if not root or not open_store(root).exists(CORPUS):
        return None
    record = Catalog.open(root).record(sample_id)
    return record if record and record.path == f"{SAMPLES}/{inside}" else None
