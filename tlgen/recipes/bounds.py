"""Limits for the numbers in a recipe, and for boxes that are too small for any molecule."""

from __future__ import annotations

import math

from catalogs.usual_values import impossible

# Da, of the smallest molecule that a recipe may ask for; Å³ per Da at 1.35 g/cm³.
_LEAST_MASS, _VOLUME_OF_A_DALTON = 10e3, 1.23
_MOST_MOLECULES = 1_000_000
_FEW = 100  # so few need little time, even if they do not fit


def check_samples(total: int) -> None:
    """Refuse more samples than a corpus can have (ValueError)."""
    if (words := impossible("samples", total)) is not None:
        raise ValueError(f"samples: the number of all of them {words}")


def check_box(name: str, shape: tuple[int, int, int], voxel_size: float) -> None:
    """Refuse a box that is too small for any molecule, or too large for any memory (ValueError).

    Parameters
    ----------
    name
        Key of the recipe with its shape.
    shape, voxel_size
        Voxels along z, y, x, and Å.
    """
    for n in shape:
        if (words := impossible("edge", n * voxel_size)) is not None:
            raise ValueError(f"{name}: each side of the box, its voxels times voxel_size, {words}")


def check_count(
    name: str, count: int, asked: float, room: tuple[str, tuple[int, int, int], float] | None
) -> None:
    """Refuse an impossible number of molecules (ValueError).

    Parameters
    ----------
    name
        Key of the recipe with the number.
    count, asked
        The number, without and with the group's factor on counts.
    room
        The box, with the parameters of :func:`check_box`; None if counts are shares.
    """
    if count > _MOST_MOLECULES:
        raise ValueError(f"{name} must be at most {_MOST_MOLECULES}, not {count}")
    if room is None:
        return
    where, shape, voxel_size = room
    most = int(math.prod(shape) * voxel_size**3 / (_LEAST_MASS * _VOLUME_OF_A_DALTON))
    if asked > max(most, _FEW):
        raise ValueError(
            f"{name}: {asked:g} molecules do not fit into the box of {where}; it holds at most {most} "
            f"small ones, of {_LEAST_MASS / 1e3:.0f} kDa"
        )
