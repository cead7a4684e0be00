"""Names of samples for people: those of the recipe instead of ids, which are hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from catalogs.schema import SampleRecord


def names_for_people(records: Iterable[SampleRecord]) -> dict[str, str]:
    """Return id -> name in the recipe, ``held-out-000``; ids are added where several share a name."""
    named = {record.sample_id: record.name for record in records}
    often = Counter(named.values())
    return {
        sample_id: name if often[name] == 1 else f"{name}-{sample_id[:8]}"
        for sample_id, name in named.items()
    }
