"""The target folder of an export, and the export of one sample."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from numpy.typing import DTypeLike

from catalogs import particles
from catalogs.atomic_write import write_bytes
from catalogs.corpus.catalog import Catalog
from catalogs.errors import InputError
from catalogs.particle_formats.base import Context
from catalogs.particle_formats.registry import named
from catalogs.schema import SampleRecord
from catalogs.storage.reader import StoredArray
from catalogs.storage.store import Store, filesystem, in_parallel, open_store
from catalogs.volumes import Contrast, write_mrc


@dataclass(frozen=True)
class Target:
    """A folder on a disk or in a bucket, whose files are written completely or not at all.

    Attributes
    ----------
    store
        Store of the folder.
    copies
        Make copies instead of hard links.
    """

    store: Store
    copies: bool = False

    def put(self, key: str, data: bytes) -> None:
        """Write a file completely or not at all; an existing one is replaced."""
        try:
            if self.store.local is None:  # where objects appear completely
                self.store.write({key: data})
                return
            write_bytes(self.store.local / key, data)
        except Exception as error:  # each storage has its own errors for "no such bucket" or "no permission"
            raise InputError(f"{self.store.at(key)} cannot be written ({error})") from error

    def take(self, source: Store, key: str, name: str) -> None:
        """Export an object of a corpus as a hard link on the same disk, else as a copy."""
        if source.local is not None and self.store.local is not None:
            file = self.store.local / name
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                if self.copies:
                    raise OSError
                os.link(source.local / key, file)
            except OSError:  # another disk, or a file system without hard links
                shutil.copyfile(source.local / key, file)
            return
        kind = self.store.url.split("://")[0]
        if source.local is None and source.url.split("://")[0] == kind:  # the storage makes the copy
            fs, here = filesystem(source.at(key))
            fs.cp_file(
                here, filesystem(self.store.at(name))[1]
            )  # copy() would treat * in a name as a pattern
            return
        self.store.write({name: source.read(key)})


@dataclass(frozen=True)
class Job:
    """One sample to be exported.

    Attributes
    ----------
    catalog, record
        The corpus and the sample.
    target
        The target folder.
    there
        Names of the finished files.
    """

    catalog: Catalog
    record: SampleRecord
    target: Target
    there: frozenset[str]

    @property
    def name(self) -> str:
        """Name of the sample."""
        return self.record.name

    @property
    def group(self) -> Store:
        """The sample's Zarr group."""
        return open_store(self.catalog.sample_url(self.record.sample_id))

    @cached_property
    def arrays(self) -> dict[str, StoredArray]:
        """Volumes of the sample (InputError if it is damaged)."""
        return self.catalog.arrays(self.record.sample_id)

    @cached_property
    def targets(self) -> pd.DataFrame:
        """The particle table without distractors."""
        return particles_of(self.catalog, self.record)

    @property
    def context(self) -> Context:
        """Context for particle lists."""
        return context_of(self.catalog, [self.record])

    def volume(
        self, key: str, array: str, *, dtype: DTypeLike | None = None, contrast: Contrast | None = None
    ) -> bool:
        """Write a volume as MRC unless it exists; return whether it was written."""
        if key in self.there:
            return False
        size = self.record.acquisition.voxel_size
        write_mrc(self.target.store.at(key), self.arrays[array], size, contrast=contrast, dtype=dtype)
        return True

    def particles(self, key: str, layout: str) -> bool:
        """Write the particles of the target classes unless the list exists; return whether it was written."""
        if key in self.there:
            return False
        self.target.put(key, encode(self.targets, key, layout, self.context))
        return True


def particles_of(catalog: Catalog, record: SampleRecord) -> pd.DataFrame:
    """Read the particles of the target classes of a sample, under the sample's name."""
    table = catalog.particles(record.sample_id)
    return table[table["label"] > 0].assign(tomogram=record.name).reset_index(drop=True)


def all_particles(catalog: Catalog, records: list[SampleRecord]) -> pd.DataFrame:
    """Read the particles of the target classes of many samples, in their order."""
    tables = in_parallel(lambda record: particles_of(catalog, record), records)
    return pd.concat(tables, ignore_index=True) if tables else particles.empty()


def context_of(catalog: Catalog, records: list[SampleRecord]) -> Context:
    """Make the context of particle lists: classes, and voxels of the tomograms."""
    return Context(
        voxel_size={record.name: record.acquisition.voxel_size for record in records},
        shape={record.name: record.shape for record in records},
        tomograms={k: record.name for k, record in enumerate(records)},
        classes=tuple(catalog.classes),
        user="tlgen",
    )


def encode(table: pd.DataFrame, key: str, layout: str, context: Context) -> bytes:
    """Make a particle list that is one file."""
    (data,) = named(layout).encode(table, Path(key), context).values()
    return data
