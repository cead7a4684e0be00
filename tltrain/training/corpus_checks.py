"""Check that a corpus has targets, and that its sizes are plausible."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.errors import InputError
from catalogs.schema import ClassInfo, SampleRecord
from catalogs.usual_values import doubt, doubts_of_model, refuse_unusual


def check_samples(
    classes: Sequence[ClassInfo], train: Sequence[SampleRecord], val: Sequence[SampleRecord]
) -> None:
    """Refuse samples without a single particle of a target.

    Parameters
    ----------
    classes
        Of the corpus.
    train, val
        Samples for training and for validation; there may be none of the latter.

    Raises
    ------
    InputError
        There is no target to learn, or no score to choose the best network.
    """
    wanted = [info.name for info in classes if info.is_particle]
    for records, what, way_out in (
        (train, "to train on", "tlgen ls shows what they hold, and tlgen pack what would stand in a box"),
        (val, "that validate", "validate on others by --hold-out"),
    ):
        if records and not any(record.class_counts.get(name) for record in records for name in wanted):
            names, n = ", ".join(wanted), len(records)
            raise InputError(f"none of the {n} samples {what} holds a particle of {names}; {way_out}")


def check_usual(
    classes: Sequence[ClassInfo],
    voxel_size: float,
    learning_rate: float | None,
    yes: bool,
    called: str = "the corpus",
) -> None:
    """Refuse unusual values, which are most often in a wrong unit, unless the user means them.

    Parameters
    ----------
    classes
        Of the corpus or the model.
    voxel_size
        Of its tomograms, Å.
    learning_rate
        The learning rate that the user asks for; None: the default.
    yes
        Whether the user means the unusual values.
    called
        What has the classes.

    Raises
    ------
    InputError
        It says what is unusual and how to continue.
    """
    radii = {info.name: info.radius for info in classes if info.is_particle}
    found = doubts_of_model(voxel_size, radii, called)
    if learning_rate is not None:
        found.append(doubt("learning_rate", learning_rate, called="`learning_rate`"))
    refuse_unusual(found, yes)
