"""What samples are called: as their recipe names them, not by the hash of what determines them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from catalogs.schema import SampleRecord


def names_for_people(records: Iterable[SampleRecord]) -> dict[str, str]:
    """Name samples as the recipe does, ``held-out-000``, by id; where several have a name, with their ids."""
    named = {record.sample_id: record.name for record in records}
    often = Counter(named.values())
    return {
        sample_id: name if often[name] == 1 else f"{name}-{sample_id[:8]}"
        for sample_id, name in named.items()
    }
