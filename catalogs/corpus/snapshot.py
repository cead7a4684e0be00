"""Snapshots: all records of a corpus at one time, in one Parquet file that never changes.

There is one row per sample, sorted by id, with the columns of :mod:`catalogs.corpus.sample_table` and the
record as JSON in the columns ``record`` and ``checksums_of_structures``. The latter is separate because most
samples of a corpus share it. Any Parquet reader can query the file (``path`` is relative to the corpus).
After reading, the records stay compressed in memory until they are used.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from catalogs.corpus import sample_table
from catalogs.errors import InputError
from catalogs.schema import FORMAT_VERSION, SAMPLE_ID, SampleRecord
from catalogs.versions import parse_record, require_known

_TEXT = ("record", "checksums_of_structures")
_VERSION = b"template_learning.format_version"
_PATH = re.compile(rf"samples/(?P<folder>[0-9a-f]{{2}})/(?P<id>{SAMPLE_ID})-[0-9a-z]+\.zarr")
_LEAST_ROW, _RATIO, _LEAST_UNPACKED = 8, 200, 64 << 20  # bytes, and how far a file may be compressed
_ROWS = 1000  # rows of a group, which is unpacked to read one record


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A snapshot that has been read.

    Attributes
    ----------
    sequence
        Number of the snapshot; the highest is the newest.
    where
        Path or URL of the file, for messages.
    data
        Content of the file.
    table
        The columns of the file without the records, with the index ``sample_id``.
    """

    sequence: int
    where: str
    data: bytes
    table: pd.DataFrame

    @cached_property
    def paths(self) -> dict[str, str]:
        """Sample id -> path of the group, relative to the corpus."""
        return dict(zip(self.table.index, self.table["path"], strict=True))

    def record(self, sample_id: str) -> SampleRecord:
        """Return the record of a sample that is in the snapshot."""
        row = int(self.table.index.get_indexer(pd.Index([sample_id]))[0])
        return self._parse(sample_id, *self._texts(row // _ROWS)[row % _ROWS])

    def records(self, without: Iterable[str] = ()) -> Iterator[SampleRecord]:
        """Yield the records of all samples except some, by sample id."""
        return (self._parse(i, *texts) for i, texts in self.texts(without))

    def texts(self, without: Iterable[str] = ()) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the id and stored record of all samples except some, by sample id."""
        leave = set(without)
        for row, sample_id in enumerate(self.table.index):
            if sample_id not in leave:
                yield sample_id, self._texts(row // _ROWS)[row % _ROWS]

    def frame(self, without: Iterable[str] = ()) -> pd.DataFrame:
        """Return the table of all samples except some (:func:`catalogs.corpus.sample_table.as_table`)."""
        leave = list(without)
        if list(self.table.columns) != sample_table.COLUMNS:  # written by an older program
            return sample_table.as_table(self.records(leave))
        return self.table[~self.table.index.isin(leave)] if leave else self.table

    @cached_property
    def _texts(self) -> Any:
        def read(group: int) -> list[tuple[str, str]]:
            import pyarrow as pa
            import pyarrow.parquet as pq

            file = pq.ParquetFile(pa.BufferReader(self.data))
            table = file.read_row_group(group, columns=list(_TEXT), use_threads=False)
            return list(zip(*(table.column(name).to_pylist() for name in _TEXT), strict=True))

        return lru_cache(4)(read)

    def _parse(self, sample_id: str, record: str, structures: str) -> SampleRecord:
        parsed = parse_record(record, self.where)
        if (parsed.sample_id, parsed.path) != (sample_id, self.paths[sample_id]):
            raise InputError(f"the index {self.where} is damaged; tlgen repair writes a new one")
        # one dictionary for all samples that share it, which may be 100,000
        return parsed.model_copy(update={"structures": _shared(structures)})


@lru_cache(1024)
def _shared(structures: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(structures)
    return found


def _fits(sample_id: object, path: object) -> bool:
    match = _PATH.fullmatch(path) if isinstance(path, str) else None
    return match is not None and match["id"] == sample_id and match["id"].startswith(match["folder"])


def encode(base: Snapshot | None, without: Iterable[str], fresh: Mapping[str, SampleRecord]) -> bytes:
    """Write the next snapshot.

    Parameters
    ----------
    base
        The previous snapshot, if any.
    without
        Samples of it that no longer exist.
    fresh
        New or changed records, by sample id.

    Returns
    -------
    bytes
        A Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    leave = {*without, *fresh}
    tables = [sample_table.as_table(fresh.values()), *([base.frame(leave)] if base else [])]
    frame = sample_table.join(tables).reset_index()
    kept = base.texts(leave) if base else iter(())
    columns = pa.Schema.from_pandas(frame, preserve_index=False)
    schema = pa.schema([*columns, *((name, pa.string()) for name in _TEXT)], {_VERSION: str(FORMAT_VERSION)})
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd", compression_level=6) as writer:
        for start in range(0, len(frame), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            # both are sorted by sample id, so the old records come in the order in which they are needed
            texts = [_texts_of(fresh[i]) if i in fresh else next(kept)[1] for i in part["sample_id"]]
            whole = part.assign(**dict(zip(_TEXT, zip(*texts, strict=True), strict=True)))
            table = pa.Table.from_pandas(whole, schema, preserve_index=False, nthreads=1)
            writer.write_table(table, row_group_size=_ROWS)
    return file.getvalue()


def _texts_of(record: SampleRecord) -> tuple[str, str]:
    rest = record.model_copy(update={"structures": {}})
    return rest.model_dump_json(), json.dumps(record.structures, sort_keys=True, ensure_ascii=False)


def _refuse_bombs(stated: Any, size: int) -> None:
    """Refuse a file that states more than it can hold (ValueError).

    A row has at least an id and the random end of a path, and texts of records compress to a twentieth.
    """
    unpacked = sum(stated.row_group(k).total_byte_size for k in range(stated.num_row_groups))
    rows = [stated.row_group(k).num_rows for k in range(stated.num_row_groups)]
    if sum(rows) * _LEAST_ROW > size or unpacked > max(_LEAST_UNPACKED, _RATIO * size):
        raise ValueError(f"it states {sum(rows)} rows and {unpacked} bytes")


def decode(data: bytes, sequence: int, where: str) -> Snapshot:
    """Read a snapshot.

    Raises
    ------
    NewerFormat
        If a newer version of this program wrote it.
    InputError
        If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        version = int((file.schema_arrow.metadata or {})[_VERSION])
        require_known(version, where)
        _refuse_bombs(file.metadata, len(data))
        if missing := {"sample_id", "path", *_TEXT} - set(file.schema_arrow.names):
            raise KeyError(missing)
        names = [name for name in file.schema_arrow.names if name not in _TEXT]
        # Arrow's threads may still end when the program does, which then aborts now and then (arrow#34314)
        read = file.read(columns=names, use_threads=False)
        table = read.to_pandas(use_threads=False).set_index("sample_id")
        wrong = [path for i, path in zip(table.index, table["path"], strict=True) if not _fits(i, path)]
        if wrong or not table.index.is_unique:
            raise ValueError(f"{wrong[:1]} is not the path of a sample")
    except InputError:
        raise
    except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"the index {where} is damaged; tlgen repair writes a new one") from error
    return Snapshot(sequence, where, data, table)
