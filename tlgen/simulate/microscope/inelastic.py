"""Losses by scattering to angles that the grid cannot represent, which are missing from the image.

An atom scatters some electrons to frequencies beyond those of the grid, and the lens does not pass most of
them. The effect on the average amplitude is of second order. If the fine structure of a phase grating is
averaged out, ``<exp(i σ V)>`` is ``exp(i σ <V>)`` times ``exp(-σ² (<V²> - <V>²) / 2)``. For independent
atoms, the variance is the sum of ``∫ |V(q)|² d²q`` beyond the grid over all atoms. Dense matter therefore
becomes darker: by some percent of the defocus contrast for protein, and by more for gold.

Parakeet's contrast has no such losses, because its atoms are without the cores that scatter to large angles.
Atoms are taken as independent, as everywhere in this engine; in protein, bonds reduce the effect by a tenth.
The part that the lens does pass is spread over hundreds of Å and is neglected.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Acquisition
from tlgen.simulate.microscope import optics

# fmt: off
# By atomic number from 1: ∫ f² d²q of Lobato & Van Dyck's scattering factor f beyond 0.1 and beyond 0.5 1/Å.
_BEYOND = (
    (0.177, 0.0804), (0.275, 0.186), (1.54, 0.386), (2.63, 0.763), (3.42, 1.27), (3.96, 1.81), (4.34, 2.32),
    (4.62, 2.77), (4.8, 3.16), (4.93, 3.48), (7.34, 3.92), (9.62, 4.51), (12.2, 5.26), (14.3, 6.17),
    (15.9, 7.21), (17.2, 8.31), (18.2, 9.44), (19.1, 10.6), (23.8, 11.6), (28.4, 12.7), (29.7, 13.8),
    (30.6, 14.9), (31.3, 16), (30.1, 16.9), (32.3, 17.9), (32.7, 18.8), (33, 19.6), (33.3, 20.4),
    (31.2, 20.9), (33.4, 21.7), (36.6, 22.6), (39.5, 23.8), (42.1, 25), (44.4, 26.4), (46.3, 27.9),
    (48.1, 29.4), (54.8, 30.9), (61.4, 32.4), (64.9, 34.1), (67.7, 35.9), (67.8, 37.8), (69.7, 39.6),
    (71.3, 41.4), (72.6, 43.2), (73.7, 44.9), (71.2, 46.6), (74.8, 48.1), (78.6, 49.8), (83.6, 51.5),
    (88.4, 53.2), (92.8, 55.1), (96.7, 57.2), (100.2, 59.38), (103.4, 61.66), (113.1, 63.94),
    (122.7, 66.07), (128.3, 68.46), (125, 69.63), (125.7, 71.25), (126.3, 72.78), (126.8, 74.25),
    (126.9, 75.55), (127.5, 76.94), (131.4, 78.69), (128.2, 79.49), (128.4, 80.67), (128.4, 81.71),
    (128.5, 82.74), (128.3, 83.64), (128, 84.43), (131.7, 85.97), (135, 87.72), (137.8, 89.62),
    (140.3, 91.63), (142.8, 93.7), (144.9, 95.81), (142.1, 98), (146.2, 100), (147.2, 102.2),
    (151.5, 104.3), (157.4, 106.4), (163.9, 108.6), (169.9, 111), (175.1, 113.5), (179.8, 116.1),
    (184.6, 118.9), (196.1, 121.6), (207.5, 124.3), (215.7, 127.1), (223.1, 130.1), (221.5, 132.7),
    (223.7, 135.3), (225.5, 137.9), (222.5, 140.2), (223.8, 142.6), (229.1, 145.1), (230.3, 147.3),
    (226.9, 149.2), (227.9, 151.3), (228.2, 153.2), (228.9, 155.2), (229, 156.9), (234.4, 159.1),
)
# fmt: on
_FROM, _TO = 0.1, 0.5  # 1/Å
# V Å²; projected potential of an atom at a frequency over its scattering factor (Kirkland 2010, eq. 5.9).
_POTENTIAL = 47.878
_HYDROGEN, _OXYGEN = 1, 8


def of_atoms(acq: Acquisition, step: float) -> NDArray[np.float32] | None:
    """Half of the cross-section in Å², by atomic number, for scattering beyond a grid of ``step`` Å.

    The transmitted amplitude is ``exp(-sum / area)``. None for a contrast without such losses.
    """
    if acq.contrast != "physical":
        return None
    near, far = np.array(_BEYOND).T
    # The limit is a circle with the same area as the square of the grid's frequencies. 1 / ∫ is taken as
    # linear in q², as for a screened Coulomb potential, to 2 % for light elements and to 12 % for all.
    frequency = 1 / (sqrt(pi) * step)
    share = (frequency**2 - _FROM**2) / (_TO**2 - _FROM**2)
    beyond = 1 / ((1 - share) / near + share / far)
    half = (optics.interaction(acq.voltage) * _POTENTIAL) ** 2 / 2 * beyond
    return np.concatenate([[0], half]).astype(np.float32)


def of_water(acq: Acquisition, step: float) -> float:
    """Sum :func:`of_atoms` over the atoms of a water molecule, Å²."""
    each = of_atoms(acq, step)
    return 0.0 if each is None else float(2 * each[_HYDROGEN] + each[_OXYGEN])
