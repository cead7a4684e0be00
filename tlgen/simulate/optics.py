"""The lens and the detector: what both engines share.

Lengths are in Å, spatial frequencies in 1/Å, the beam's energy in keV. Defocus inside this module is
as in :class:`~catalogs.schema.Acquisition`: µm, underfocus positive.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene import Scene
from tlgen.tilts import Tilt

#: m c² of the electron in keV, h c in keV Å and 2 π m e / h² in 1/(V Å²): CODATA 2018, as MULTEM has them.
REST_ENERGY = 510.99906
HC = 12.3984244
MM = 1e7  # in Å
MICROMETRE = 1e4  # in Å

#: Parakeet's microscope, which the recipe does not vary: relative 1/e half widths of the beam's energy,
#: the lens current and the acceleration voltage, and the semi-angle of the illumination in radians.
ENERGY_SPREAD = 2.66e-6
CURRENT_SPREAD = 0.33e-6
VOLTAGE_SPREAD = 0.8e-6
SEMIANGLE = 0.02e-3

#: Volta phase plate: shift in radians outside of a spot of this radius in 1/Å around the direct beam.
PHASE_SHIFT = pi / 2
SPOT_RADIUS = 0.005

#: Two Gaussians (amplitude, centre, width in 1/Å) of the ice's power spectrum, as in the configuration
#: of Template Learning.
ICE_SPECTRUM = ((0.72, 0.0, 0.1), (0.28, 1 / 2.88, 0.5))

# Parakeet's table of the detective quantum efficiency at 300 keV is this cubic in its frequency axis, at
# two rates in electrons a pixel and second (its exposures last one second).
_DQE_RATES = (1.5, 5.0)
_DQE_CUBIC = np.array([[0.95, -0.1333, -0.8661, 0.3711], [0.80, -0.30, -0.56, 0.32]])


def wavelength(voltage: float) -> float:
    """Wavelength in Å of electrons of ``voltage`` kV, relativistic (de Graef 2003, eq. 2.9)."""
    return HC / sqrt(voltage * (2 * REST_ENERGY + voltage))


def interaction(voltage: float) -> float:
    """Phase in radians per V Å of projected potential (Kirkland 2010, eq. 5.6)."""
    return (1 + voltage / REST_ENERGY) * wavelength(voltage) / 47.877645145863056


def defocus_spread(acq: Acquisition) -> float:
    """1/e half width in Å of the defocus that chromatic aberration spreads (Kirkland 2010, eq. 3.41)."""
    spread = sqrt(ENERGY_SPREAD**2 + (2 * CURRENT_SPREAD) ** 2 + VOLTAGE_SPREAD**2)
    return acq.chromatic_aberration * MM * spread


def frequencies(shape: tuple[int, int], pixel_size: float) -> NDArray[np.float64]:
    """Squared spatial frequency in 1/Å² of each Fourier coefficient, (ny, nx), zero first."""
    qy, qx = (scipy.fft.fftfreq(n, pixel_size) for n in shape)
    return np.asarray(qy[:, None] ** 2 + qx[None, :] ** 2)


def transfer(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Contrast transfer of the wave, with the envelopes of partial coherence, without the phase plate.

    The phase is that of defocus and spherical aberration; the envelopes are those of a Gaussian spread
    of defocus and of illumination angles, to first order each (Kirkland 2010, section 5.4.3). MULTEM
    computes the same for its model ``Partial_Coherent_Higher_Order``, which Parakeet uses.

    Returns
    -------
    ndarray, complex64, (ny, nx)
        To multiply the Fourier transform of the wave with, zero frequency first.
    """
    q2 = frequencies(shape, pixel_size)
    lam = wavelength(acq.voltage)
    c10, c30 = -acq.defocus * MICROMETRE, acq.spherical_aberration * MM
    phase = -pi * lam * q2 * (c10 + 0.5 * c30 * lam**2 * q2)
    temporal = 0.5 * pi * defocus_spread(acq) * lam * q2
    spatial = pi * SEMIANGLE * (c10 + c30 * lam**2 * q2)
    envelope = np.exp(-(temporal**2) - spatial**2 * q2)
    return np.asarray(envelope * np.exp(1j * phase), np.complex64)


def phase_plate(shape: tuple[int, int], pixel_size: float) -> NDArray[np.complex64]:
    """Phase factor of a Volta phase plate, (ny, nx): nothing at the direct beam, 90° away from it."""
    q2 = frequencies(shape, pixel_size)
    return np.asarray(np.exp(1j * PHASE_SHIFT * (1 - np.exp(-q2 / (2 * SPOT_RADIUS**2)))), np.complex64)


def ice_power(q2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power spectrum of Parakeet's ice, to a factor, at squared frequencies in 1/Å²."""
    q = np.sqrt(q2)
    return np.asarray(sum(a * np.exp(-0.5 * ((q - m) / s) ** 2) for a, m, s in ICE_SPECTRUM))


def quantum_efficiency(shape: tuple[int, int], sampling: float, rate: float) -> NDArray[np.float32]:
    """Parakeet's detective quantum efficiency for the half plane that ``rfft2`` gives, (ny, nx // 2 + 1).

    Parakeet reads its table at cycles a pixel where the table counts fractions of Nyquist, so the
    second half of the curve is never used; and it multiplies the image itself, before the counts are
    drawn, so the mean falls too. Both are kept: they are what Parakeet's detector does.

    Parameters
    ----------
    shape
        Of the image, (ny, nx).
    sampling
        Pixels of the detector that one sample of the image is wide.
    rate
        Electrons a pixel of the detector and second.
    """
    qy, qx = (f(n, sampling) for f, n in zip((scipy.fft.fftfreq, scipy.fft.rfftfreq), shape, strict=True))
    frequency = np.sqrt(qy[:, None] ** 2 + qx[None, :] ** 2)
    share = np.clip((rate - _DQE_RATES[0]) / (_DQE_RATES[1] - _DQE_RATES[0]), 0, 1)
    cubic = (1 - share) * _DQE_CUBIC[0] + share * _DQE_CUBIC[1]
    return np.asarray(np.polynomial.polynomial.polyval(frequency, cubic), np.float32)


def detect(image: NDArray[np.float32], sampling: float, acq: Acquisition, tilt: Tilt) -> NDArray[np.float32]:
    """Apply the detector's efficiency, if the acquisition has it, to a mean intensity (ny, nx).

    ``sampling`` is as in :func:`quantum_efficiency`.
    """
    if not acq.dqe:
        return image
    rate = tilt.dose * acq.pixel_size**2  # an exposure lasts one second
    efficiency = quantum_efficiency((image.shape[0], image.shape[1]), sampling, rate)
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(image) * efficiency, image.shape), np.float32)


def b_factor(acq: Acquisition, tilt: Tilt) -> float:
    """B factor in Å² of the damage at the end of a tilt: Parakeet's 8 π² x sensitivity x dose."""
    return 8 * pi**2 * acq.damage * tilt.dose_after


def binning(acq: Acquisition, pixel_size: float) -> int:
    """How many pixels of ``pixel_size`` Å make one of the tomogram's along each axis.

    Raises
    ------
    InputError
        If it is not a whole number.
    """
    factor = round(acq.voxel_size / pixel_size)
    if factor < 1 or abs(factor * pixel_size - acq.voxel_size) > 1e-6 * acq.voxel_size:
        raise InputError(
            f"voxel_size: {acq.voxel_size:g} Å is not a whole multiple of pixel_size, {pixel_size:g} Å, "
            "so the images cannot be binned to it; change one of them"
        )
    return factor


def check_voxel_size(scene: Scene, acq: Acquisition) -> None:
    """Refuse a scene that was packed for another voxel size; InputError says both."""
    if abs(scene.voxel_size - acq.voxel_size) > 1e-6 * acq.voxel_size:
        raise InputError(
            f"voxel_size: the scene was packed at {scene.voxel_size:g} Å and the acquisition asks for "
            f"{acq.voxel_size:g} Å; give both the same"
        )


def bin_mean(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Average ``factor`` x ``factor`` pixels."""
    ny, nx = image.shape[0] // factor, image.shape[1] // factor
    return np.asarray(image.reshape(ny, factor, nx, factor).mean(axis=(1, 3)), np.float32)


def counts(mean: NDArray[np.float32], dose: float, seed: int, tilt: Tilt) -> NDArray[np.float32]:
    """Draw the electrons that each pixel of ``dose`` (electrons where the intensity is 1) counts.

    A sum of independent Poisson counts is a Poisson count of the summed mean, so drawing once a binned
    pixel has the distribution of drawing in Parakeet's 1 Å pixels and binning then.
    """
    rng = generator(seed, "counts", tilt.index)
    return rng.poisson(np.clip(mean, 0, None) * dose).astype(np.float32)
