"""What is to be packed: which molecules, and how many.

A request names a molecule. A fill defines the numbers: as counts, as a ratio between groups such as targets
and distractors, as a mass concentration, or as many as fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

#: mg/ml in one dalton per cubic angstrom.
MG_PER_ML = 1660.53907


@dataclass(frozen=True)
class Request:
    """A molecule to be packed.

    Attributes
    ----------
    digest
        Of the molecule, in the library.
    count
        How many to place, if they fit; read by :class:`Counts` only.
    priority
        Molecules are placed roughly from the biggest to the smallest; 1 more priority lets a molecule
        go with those of *e* times its volume.
    share
        Relative number of molecules among those of the same group; read by all fills but :class:`Counts`.
    group
        What the molecule counts as, such as ``ribosome`` or ``distractor``: ratios are between groups, and
        the result is summed up by group.
    """

    digest: str
    count: int = 0
    priority: float = 0.0
    share: float = 1.0
    group: str = ""


@dataclass(frozen=True)
class Counts:
    """Place the ``count`` of each request, if they fit."""


@dataclass(frozen=True)
class Ratio:
    """Place a number of molecules, divided between the groups in a ratio.

    Attributes
    ----------
    parts
        Relative number of molecules by group: ``{"ribosome": 1, "distractor": 3}``.
    molecules
        Of all groups together.
    """

    parts: Mapping[str, float]
    molecules: int


@dataclass(frozen=True)
class Concentration:
    """Place molecules up to a concentration in the box.

    Attributes
    ----------
    mg_per_ml
        Mass of all molecules over the volume of the box; a cytoplasm holds 200 to 400 mg/ml.
    parts
        Relative number of molecules by group; without it, the requests' shares count over all groups.
    """

    mg_per_ml: float
    parts: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Saturation:
    """Place molecules until no more fit.

    They are drawn by their shares; one that did not fit in ``patience`` orientations is not drawn again. So
    the box has the requested composition until the largest molecules no longer fit, and is then filled with
    smaller ones.

    Attributes
    ----------
    parts
        Relative number of molecules by group; without it, the requests' shares count over all groups.
    at_least
        Volume of molecules (at 1.35 g/cm³, over that of the box) in the first draw, which is placed from
        big to small. More packs tighter, and gives more of the box to big molecules.
    """

    parts: Mapping[str, float] | None = None
    at_least: float = 0.2


Fill = Counts | Ratio | Concentration | Saturation


@dataclass(frozen=True)
class Achieved:
    """The result for a group of requests.

    Attributes
    ----------
    group
        Its name.
    asked
        Molecules asked for; None if as many as fit.
    placed
        Molecules placed.
    asked_mg_per_ml
        Concentration asked for, over the box; None if as much as fits.
    mg_per_ml
        Concentration reached.
    """

    group: str
    asked: int | None
    placed: int
    asked_mg_per_ml: float | None
    mg_per_ml: float


def check(fill: Fill, requests: Sequence[Request]) -> None:
    """Refuse a fill or requests that are not valid.

    Raises
    ------
    InputError
        A number is negative or not finite, a ratio names a group that no request has, or nothing has a share.
    """
    for request in requests:
        if request.count < 0:
            raise InputError(
                f"the count of molecule {request.digest} must be zero or more, not {request.count}"
            )
        if not (np.isfinite(request.share) and request.share >= 0):
            raise InputError(
                f"the share of molecule {request.digest} must be zero or more, not {request.share}"
            )
        if not np.isfinite(request.priority):
            raise InputError(f"the priority of molecule {request.digest} must be finite")
    if isinstance(fill, Ratio) and fill.molecules < 0:
        raise InputError(f"the number of molecules to place must be zero or more, not {fill.molecules}")
    if isinstance(fill, Concentration) and not (np.isfinite(fill.mg_per_ml) and fill.mg_per_ml >= 0):
        raise InputError(f"the concentration must be zero or more mg/ml, not {fill.mg_per_ml}")
    if isinstance(fill, Saturation) and not (np.isfinite(fill.at_least) and 0 < fill.at_least <= 1):
        raise InputError(f"at_least must be a share of the box in (0, 1], not {fill.at_least}")
    if not isinstance(fill, Counts) and fill.parts is not None:
        _check_parts(fill.parts, requests)


def _check_parts(parts: Mapping[str, float], requests: Sequence[Request]) -> None:
    shares: dict[str, float] = {}
    for request in requests:
        shares[request.group] = shares.get(request.group, 0.0) + request.share
    for group, part in parts.items():
        if not (np.isfinite(part) and part >= 0):
            raise InputError(f"the ratio's part of {group!r} must be zero or more, not {part}")
        if part > 0 and not shares.get(group):
            known = ", ".join(repr(name) for name in shares) or "none"
            raise InputError(f"the ratio names {group!r}, but no molecule is of that group; groups: {known}")
    for group in shares:
        if group not in parts:
            raise InputError(f"the ratio has no part for {group!r}; give one, or 0")
    if requests and not sum(parts.values()) > 0:
        raise InputError("all parts of the ratio are zero; give at least one group a part")


def weights(fill: Fill, requests: Sequence[Request]) -> NDArray[np.float64]:
    """Return the relative number of molecules of each request; they sum to 1, or are all 0."""
    parts = None if isinstance(fill, Counts) else fill.parts
    share = np.array([request.share for request in requests], np.float64)
    if isinstance(fill, Counts):
        share = np.array([request.count for request in requests], np.float64)
    if parts is not None:
        groups = [request.group for request in requests]
        for group in set(groups):
            own = np.array([g == group for g in groups])
            total = share[own].sum()
            share[own] *= parts[group] / total if total > 0 else 0.0
    total = share.sum()
    return share / total if total > 0 else share


def counts(
    fill: Fill,
    requests: Sequence[Request],
    masses: NDArray[np.float64],
    box: float,
    rng: np.random.Generator,
) -> NDArray[np.int64] | None:
    """Compute the number of molecules of each request.

    Parameters
    ----------
    fill
        What is asked for.
    requests
        What is asked for.
    masses
        (n,) Da that each request's molecule adds to the box.
    box
        Volume in Å³.
    rng
        Decides which numbers are rounded up and which down.

    Returns
    -------
    ndarray or None
        (n,) count of each request; None if as many as fit.
    """
    if isinstance(fill, Counts):
        return np.array([request.count for request in requests], np.int64)
    if isinstance(fill, Saturation):
        return None
    share = weights(fill, requests)
    if isinstance(fill, Ratio):
        return rounded(fill.molecules * share, rng)
    mass = float(share @ masses)
    number = fill.mg_per_ml / MG_PER_ML * box / mass if mass > 0 else 0.0
    return rounded(number * share, rng)


def rounded(numbers: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Round numbers up or down so that each is right on average and their sum is right (Madow's sampling).

    With many variants of a molecule each share is far below 1, and plain rounding would leave out most.
    """
    order = rng.permutation(len(numbers))
    edges = np.concatenate([[0.0], np.cumsum(numbers[order])]) + rng.uniform()
    result = np.zeros(len(numbers), np.int64)
    result[order] = np.diff(np.floor(edges)).astype(np.int64)
    return result
