"""The distractors of the template-learning paper: PDB entries with frequencies."""

from __future__ import annotations

import csv
from pathlib import Path


def paper_distractors() -> dict[str, int]:
    """List the paper's 100 distractors: PDB id -> how often each is tried for one tomogram.

    Harastani et al., Nature Communications (2025), doi:10.1038/s41467-025-63895-0.
    """
    with Path(__file__).with_name("distractors.csv").open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["id"]: int(row["frequency"]) for row in rows}
