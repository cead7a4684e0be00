"""Numbers of a recipe that no machine would come to the end of, and boxes in which nothing can stand."""

from __future__ import annotations

import math

from catalogs.plausible import impossible

# Da, of the smallest thing that is asked for as a molecule; Å³ that a Da takes at 1.35 g/cm³.
_LEAST_MASS, _VOLUME_OF_A_DALTON = 10e3, 1.23
_MOST_MOLECULES = 1_000_000
_FEW = 100  # so many cost nothing, whether they fit or not


def check_samples(total: int) -> None:
    """Refuse more samples than a corpus can have (ValueError)."""
    if (words := impossible("samples", total)) is not None:
        raise ValueError(f"samples: the number of all of them {words}")


def check_box(name: str, shape: tuple[int, int, int], voxel_size: float) -> None:
    """Refuse a box in which no molecule can stand, or that no memory holds (ValueError).

    Parameters
    ----------
    name
        Of the key that says its shape.
    shape, voxel_size
        Voxels along z, y, x, and Å.
    """
    for n in shape:
        if (words := impossible("edge", n * voxel_size)) is not None:
            raise ValueError(f"{name}: each side of the box, its voxels times voxel_size, {words}")


def check_count(
    name: str, count: int, asked: float, room: tuple[str, tuple[int, int, int], float] | None
) -> None:
    """Refuse a number of molecules that cannot be (ValueError).

    Parameters
    ----------
    name
        Of the key that says it.
    count, asked
        What it says; and with the factor of the group's counts.
    room
        Where they shall stand, as :func:`check_box` takes it; None where counts are shares.
    """
    if count > _MOST_MOLECULES:
        raise ValueError(f"{name} must be at most {_MOST_MOLECULES}, not {count}")
    if room is None:
        return
    where, shape, voxel_size = room
    most = int(math.prod(shape) * voxel_size**3 / (_LEAST_MASS * _VOLUME_OF_A_DALTON))
    if asked > max(most, _FEW):
        raise ValueError(
            f"{name}: {asked:g} molecules have no room in the box of {where}; even of small ones, of "
            f"{_LEAST_MASS / 1e3:.0f} kDa, it holds no more than {most}"
        )
