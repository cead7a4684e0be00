"""All records of a corpus in one Parquet file, as they were at a moment; the file never changes.

One row a sample, sorted by its id: the columns of :mod:`catalogs.sample_table`, and the whole record as
JSON in the column ``record``. Any reader of Parquet can query it (``path`` is relative to the corpus).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from catalogs import sample_table
from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, SampleRecord
from catalogs.versions import parse_record, require_known

if TYPE_CHECKING:
    import pyarrow as pa

_RECORD = "record"
_VERSION = b"template_learning.format_version"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A snapshot that has been read.

    Attributes
    ----------
    sequence
        Its number; the highest is the newest.
    where
        Path or URL of the file, for messages.
    table
        All of it.
    """

    sequence: int
    where: str
    table: pa.Table
    _parsed: dict[str, SampleRecord] = field(default_factory=dict)

    @cached_property
    def paths(self) -> dict[str, str]:
        """Sample id -> path of the group, relative to the corpus."""
        columns = (self.table.column(name).to_pylist() for name in ("sample_id", "path"))
        return dict(zip(*columns, strict=True))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {sample_id: row for row, sample_id in enumerate(self.paths)}

    def record(self, sample_id: str) -> SampleRecord:
        """Return the record of a sample that is in the snapshot."""
        if sample_id not in self._parsed:
            text = self.table.column(_RECORD)[self._rows[sample_id]].as_py()
            self._parsed[sample_id] = parse_record(text, self.where)
        return self._parsed[sample_id]

    def records(self, without: Iterable[str] = ()) -> Iterator[SampleRecord]:
        """Yield the records of all samples but some, by sample id."""
        leave = set(without)
        for sample_id, text in zip(self.paths, self.table.column(_RECORD), strict=True):
            if sample_id not in leave:
                if sample_id not in self._parsed:
                    self._parsed[sample_id] = parse_record(text.as_py(), self.where)
                yield self._parsed[sample_id]

    def frame(self, without: Iterable[str] = ()) -> pd.DataFrame:
        """Return the table of all samples but some, as :func:`catalogs.sample_table.as_table` does."""
        leave = set(without)
        names = self.table.column_names
        if names != ["sample_id", *sample_table.COLUMNS, _RECORD]:  # written by an older program
            return sample_table.as_table(self.records(leave))
        frame: pd.DataFrame = self.table.drop_columns([_RECORD]).to_pandas().set_index("sample_id")
        return frame[~frame.index.isin(list(leave))] if leave else frame


def encode(base: Snapshot | None, without: Iterable[str], fresh: Mapping[str, SampleRecord]) -> bytes:
    """Write the snapshot that follows another one.

    Parameters
    ----------
    base
        The one before, if there is one.
    without
        Samples of it that are no more.
    fresh
        New or changed records, by sample id.

    Returns
    -------
    bytes
        A Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    new = sample_table.as_table(fresh.values())
    new[_RECORD] = [record.model_dump_json() for record in fresh.values()]
    tables = [new]
    if base is not None:
        leave = {*without, *fresh}
        old = base.frame(leave)
        kept: Any = base.table.select(["sample_id", _RECORD]).to_pandas().set_index("sample_id")[_RECORD]
        tables.append(old.assign(**{_RECORD: kept.reindex(old.index)}))
    joined = sample_table.join(tables)
    table = pa.Table.from_pandas(joined.reset_index(), preserve_index=False)
    table = table.replace_schema_metadata({_VERSION: str(FORMAT_VERSION)})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", compression_level=6, row_group_size=20_000)
    return file.getvalue()


def decode(data: bytes, sequence: int, where: str) -> Snapshot:
    """Read a snapshot.

    Raises
    ------
    NewerFormat
        If it was written by a newer version of this program.
    InputError
        If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        version = int((table.schema.metadata or {})[_VERSION])
        if version <= FORMAT_VERSION:
            table.select(["sample_id", "path", _RECORD])
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(f"the index {where} is damaged; tlgen repair writes a new one") from error
    require_known(version, where)
    return Snapshot(sequence, where, table)
