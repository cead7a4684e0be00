"""How strongly atoms and ice scatter, and how much ice an atom displaces.

There are two tables, each for all elements from hydrogen to lawrencium:

- The potentials in MULTEM's images at 1 Å per pixel. MULTEM samples the projected potential of Lobato & Van
  Dyck (Acta Cryst. A 70, 636, 2014) at the pixel centres, flattens the core within one pixel, and cuts the
  potential off at a finite radius. Parakeet's ice is reduced to a third in every pixel and slice where that
  potential is not zero. An atom keeps about half of its potential (carbon 74 of 120 V Å³). The remaining
  potential was measured with MULTEM for every element, over 144 positions within a pixel;
  ``tests/tlgen/simulate/test_multislice.py`` repeats some of the measurements.
- The physical potentials: the integral of the same potential and its squared radius, from the value and the
  curvature of Lobato & Van Dyck's scattering factors at zero angle (the integral is 47.878 V Å² times the
  factor, Kirkland 2010, eq. 5.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import Contrast

# fmt: off
# By atomic number from 1, at 1 Å: integral in V Å³, mean squared radius in Å², area that is not zero in Å².
_AT_ONE_ANGSTROM = (
    (15.4, 0.585, 13.2), (6.3, 0.406, 12.5), (137.9, 1.806, 48.2), (118.7, 1.013, 31.0),
    (96.4, 0.762, 24.4), (74.1, 0.623, 19.8), (53.9, 0.523, 15.9), (39.2, 0.461, 13.0), (28.6, 0.423, 12.5),
    (20.9, 0.395, 12.5), (168.8, 1.959, 54.5), (188.0, 1.305, 40.9), (216.5, 1.181, 40.3),
    (206.6, 0.946, 33.5), (183.6, 0.764, 27.2), (159.3, 0.644, 22.8), (135.9, 0.561, 19.6),
    (114.4, 0.501, 16.9), (318.0, 2.572, 88.2), (360.0, 1.953, 70.7), (324.9, 1.720, 62.8),
    (294.4, 1.571, 57.5), (267.6, 1.432, 52.3), (203.2, 1.376, 49.2), (225.7, 1.297, 46.5),
    (209.5, 1.236, 43.9), (193.6, 1.187, 41.7), (179.2, 1.141, 39.7), (133.8, 1.094, 36.5),
    (160.7, 0.961, 32.8), (209.8, 1.060, 37.2), (220.9, 0.949, 34.5), (214.9, 0.831, 30.5),
    (203.9, 0.737, 27.1), (191.0, 0.666, 24.6), (177.4, 0.610, 22.3), (401.6, 2.437, 90.8),
    (463.3, 1.931, 74.5), (438.3, 1.657, 65.7), (410.4, 1.459, 59.1), (334.1, 1.280, 54.5),
    (308.3, 1.180, 50.8), (329.4, 1.175, 48.9), (262.8, 1.071, 46.6), (243.2, 1.034, 44.9),
    (159.2, 0.476, 17.0), (208.6, 1.007, 42.9), (233.1, 0.992, 40.8), (287.6, 1.154, 46.3),
    (305.5, 1.078, 42.9), (308.9, 0.965, 38.8), (305.5, 0.853, 34.5), (297.7, 0.776, 31.2),
    (287.3, 0.712, 28.6), (543.1, 2.224, 84.9), (627.2, 2.037, 79.7), (605.7, 1.740, 70.1),
    (582.9, 1.710, 68.6), (562.4, 1.895, 73.7), (542.9, 1.904, 76.2), (527.0, 1.891, 75.3),
    (509.9, 1.860, 73.6), (493.8, 1.832, 72.2), (481.5, 1.588, 64.2), (465.0, 1.789, 69.8),
    (451.4, 1.764, 68.6), (438.3, 1.745, 67.9), (423.5, 1.724, 66.8), (411.7, 1.678, 64.5),
    (392.9, 1.598, 61.4), (390.0, 1.388, 54.9), (376.4, 1.238, 49.8), (364.7, 0.996, 39.7),
    (349.5, 0.912, 36.5), (336.2, 0.839, 33.7), (317.6, 0.776, 31.1), (298.5, 0.712, 28.4),
    (254.2, 0.624, 24.3), (236.1, 0.571, 22.0), (246.7, 0.743, 32.7), (329.4, 1.124, 47.9),
    (342.3, 1.012, 42.6), (339.0, 0.876, 36.8), (299.0, 0.713, 29.5), (352.8, 0.775, 32.2),
    (350.0, 0.719, 29.9), (553.6, 1.840, 79.2), (646.0, 1.813, 76.1), (670.5, 1.619, 69.0),
    (652.4, 1.399, 60.7), (614.8, 1.495, 64.2), (589.3, 1.450, 62.1), (568.1, 1.419, 60.9),
    (534.5, 1.542, 65.2), (514.2, 1.521, 64.1), (506.6, 1.344, 57.0), (491.3, 1.333, 56.3),
    (458.0, 1.456, 60.5), (441.0, 1.429, 58.9), (424.3, 1.407, 57.6), (408.8, 1.386, 56.4),
    (392.6, 1.357, 54.9), (413.7, 1.271, 51.9),
)
# By atomic number from 1: integral in V Å³, mean squared radius of the projected potential in Å².
_PHYSICAL = (
    (25.3, 0.420), (20.0, 0.184), (157.3, 1.701), (146.2, 0.872), (133.8, 0.592), (120.2, 0.437),
    (107.7, 0.328), (97.1, 0.256), (87.4, 0.202), (79.1, 0.162), (228.8, 1.570), (249.4, 1.047),
    (282.0, 0.969), (279.4, 0.756), (266.6, 0.590), (251.5, 0.471), (234.8, 0.377), (219.4, 0.309),
    (430.2, 1.854), (474.7, 1.382), (445.8, 1.187), (420.4, 1.050), (397.8, 0.945), (354.4, 0.978),
    (359.4, 0.790), (343.0, 0.729), (328.0, 0.680), (314.3, 0.637), (268.2, 0.603), (290.4, 0.582),
    (340.4, 0.725), (355.4, 0.647), (356.2, 0.551), (350.9, 0.469), (340.9, 0.397), (330.3, 0.340),
    (564.1, 1.907), (627.7, 1.526), (606.5, 1.248), (583.1, 1.069), (535.0, 1.005), (519.7, 0.934),
    (502.8, 0.866), (485.3, 0.805), (467.1, 0.747), (363.0, 0.326), (415.1, 0.557), (442.1, 0.540),
    (499.6, 0.691), (526.8, 0.668), (535.4, 0.599), (534.0, 0.529), (525.9, 0.462), (516.8, 0.408),
    (790.5, 1.926), (874.7, 1.633), (852.5, 1.353), (832.5, 1.505), (813.2, 1.457), (794.9, 1.414),
    (777.4, 1.373), (760.9, 1.344), (744.7, 1.302), (734.5, 1.105), (714.5, 1.232), (700.3, 1.201),
    (686.8, 1.177), (673.7, 1.150), (661.2, 1.130), (649.1, 1.118), (645.7, 0.951), (633.9, 0.820),
    (619.8, 0.723), (605.0, 0.647), (591.8, 0.586), (578.4, 0.536), (506.1, 0.403), (535.2, 0.484),
    (506.3, 0.388), (525.1, 0.405), (579.8, 0.543), (626.9, 0.611), (649.5, 0.589), (653.8, 0.535),
    (649.5, 0.476), (646.0, 0.430), (896.1, 1.556), (984.5, 1.415), (980.8, 1.184), (968.3, 1.011),
    (945.4, 1.069), (928.3, 1.029), (911.4, 0.995), (872.4, 1.039), (855.2, 1.004), (854.7, 0.894),
    (841.3, 0.872), (807.1, 0.914), (792.1, 0.886), (777.2, 0.867), (763.0, 0.840), (748.6, 0.828),
    (761.2, 0.761),
)
# fmt: on

_AT_1A = np.array([(0.0, 0.0, 0.0), *_AT_ONE_ANGSTROM], np.float32)
_AS_IT_IS = np.array([(0.0, 0.0), *_PHYSICAL], np.float32)

#: Elements with scattering factors: those that Lobato & Van Dyck, and therefore MULTEM, tabulate.
KNOWN_ELEMENTS = range(1, len(_AT_1A))

#: Radius in Å of the disc in which an atom displaces ice, indexed by atomic number.
COVER_RADIUS = np.sqrt(_AT_1A[:, 2] / np.pi)

#: Parakeet's ice: mean inner potential in V Å³ per water molecule, and variance of its projection in V² Å⁴
#: per molecule (Parkhurst et al., Open Biology 11, 210160, 2021; MULTEM's constants). The other two numbers
#: are the shares of both that remain at 1 Å per pixel.
_ICE_MEAN, _MEAN_LEFT = 145.59, 0.4882256
_ICE_VARIANCE, _VARIANCE_LEFT = 10195.82, 0.0653799
#: Water molecules per Å³ at 1 g/cm³.
WATER = 6.02214076e23 / 18.01528 * 1e-24
#: Share of the ice that an atom displaces where it is.
DISPLACED = 2 / 3


@dataclass(frozen=True, eq=False)
class Scattering:
    """The potentials for one setting of ``contrast``.

    Attributes
    ----------
    integral
        (104,) V Å³, by atomic number.
    squared_radius
        (104,) mean squared radius of the projected potential, Å², by atomic number.
    ice_mean, ice_variance
        For a water molecule in ice: mean potential in V Å³, and variance of its projection in V² Å⁴.
    """

    integral: NDArray[np.float32]
    squared_radius: NDArray[np.float32]
    ice_mean: float
    ice_variance: float


@lru_cache(maxsize=16)
def scattering(contrast: Contrast = "parakeet") -> Scattering:
    """Look up the potentials for a contrast.

    Parameters
    ----------
    contrast
        ``parakeet``: the contrast of Parakeet's images at 1 Å per pixel. ``physical``: the potentials of
        independent atoms; the fluctuations of the ice keep their strength relative to the ice's mean. A
        number: a multiple of Parakeet's contrast.
    """
    ice = _ICE_MEAN * _MEAN_LEFT, _ICE_VARIANCE * _VARIANCE_LEFT
    if contrast == "physical":
        return Scattering(_AS_IT_IS[:, 0], _AS_IT_IS[:, 1], _ICE_MEAN, ice[1] / _MEAN_LEFT**2)
    factor = 1.0 if contrast == "parakeet" else float(contrast)
    return Scattering(_AT_1A[:, 0] * np.float32(factor), _AT_1A[:, 1], ice[0] * factor, ice[1] * factor**2)
