"""The lens, the energy filter and the detector: what both engines share.

Lengths are in Å, spatial frequencies in 1/Å, the beam's energy in keV. Defocus inside this module is
as in :class:`~catalogs.schema.Acquisition`: µm, underfocus positive.
"""

from __future__ import annotations

from math import asin, cos, pi, radians, sin, sqrt

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from catalogs.seeds import generator
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import detectors, ice
from tlgen.tilts.scheme import Tilt

#: m c² of the electron in keV, h c in keV Å and 2 π m e / h² in 1/(V Å²): CODATA 2018, as MULTEM has them.
REST_ENERGY = 510.99906
HC = 12.3984244
MM = 1e7  # in Å
MICROMETRE = 1e4  # in Å

#: Two Gaussians (amplitude, centre, width in 1/Å) of the ice's power spectrum: as in the configuration of
#: Template Learning, and Parakeet's own default.
ICE_SPECTRA = {
    "paper": ((0.72, 0.0, 0.1), (0.28, 1 / 2.88, 0.5)),
    "parakeet": ((0.199, 0.0, 0.731), (0.801, 1 / 2.88, 0.081)),
}


def wavelength(voltage: float) -> float:
    """Wavelength in Å of electrons of ``voltage`` kV, relativistic (de Graef 2003, eq. 2.9)."""
    return HC / sqrt(voltage * (2 * REST_ENERGY + voltage))


def interaction(voltage: float) -> float:
    """Phase in radians per V Å of projected potential (Kirkland 2010, eq. 5.6)."""
    return (1 + voltage / REST_ENERGY) * wavelength(voltage) / 47.877645145863056


def defocus_spread(acq: Acquisition) -> float:
    """1/e half width in Å of the defocus that chromatic aberration spreads (Kirkland 2010, eq. 3.41)."""
    spread = sqrt(acq.energy_spread**2 + (2 * acq.current_spread) ** 2 + acq.voltage_spread**2) * 1e-6
    return acq.chromatic_aberration * MM * spread


def frequencies(shape: tuple[int, int], pixel_size: float) -> NDArray[np.float64]:
    """Squared spatial frequency in 1/Å² of each Fourier coefficient, (ny, nx), zero first."""
    qy, qx = _axes(shape, pixel_size)
    return np.asarray(qy**2 + qx**2)


def _axes(shape: tuple[int, int], pixel_size: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spatial frequencies in 1/Å along y, (ny, 1), and x, (1, nx)."""
    qy, qx = (scipy.fft.fftfreq(n, pixel_size) for n in shape)
    return qy[:, None], qx[None, :]


def transfer(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Contrast transfer of the wave, with the envelopes of partial coherence, without the phase plate.

    The phase is that of defocus, spherical aberration and what :func:`aberrations` adds; the envelopes are
    those of a Gaussian spread of defocus and of illumination angles, to first order each (Kirkland 2010,
    section 5.4.3). MULTEM computes the same for its model ``Partial_Coherent_Higher_Order``, which Parakeet
    uses.

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
    spatial = pi * acq.illumination_semiangle * 1e-3 * (c10 + c30 * lam**2 * q2)
    envelope = np.exp(-(temporal**2) - spatial**2 * q2)
    lens = np.asarray(envelope * np.exp(1j * phase), np.complex64)
    more = aberrations(shape, pixel_size, acq)
    return lens if more is None else lens * more


def aberrations(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64] | None:
    """Factor of astigmatism, beam tilt, amplitude contrast and aperture on the wave, (ny, nx), if any is on.

    - Astigmatism: the underfocus along an azimuth is ``defocus + astigmatism / 2 cos 2(azimuth - angle)``
      (Rohou & Grigorieff, J. Struct. Biol. 192, 216, 2015).
    - Beam tilt: the lens is passed off its axis, so the wave aberration is taken around another frequency.
      Its constant and its linear part, a shift of the whole image that alignment takes out, are left out;
      what remains is coma and a little defocus and astigmatism (Glaeser et al., J. Struct. Biol. 174, 1,
      2011). The envelopes stay as they are without it.
    - Amplitude contrast: the scattered wave is shifted by its arcsine against the direct beam, as if the
      potential had an imaginary part of that share (Reimer & Kohl 2008, section 6.2).
    - Aperture: nothing passes beyond it.
    """
    tilted = acq.beam_tilt_x or acq.beam_tilt_y
    if not (acq.astigmatism or tilted or acq.amplitude_contrast or acq.aperture):
        return None
    lam = wavelength(acq.voltage)
    qy, qx = _axes(shape, pixel_size)
    q2 = qy**2 + qx**2
    c30 = acq.spherical_aberration * MM * lam**2
    half, twice = acq.astigmatism / 2 * MICROMETRE, 2 * radians(acq.astigmatism_angle)

    # the gradient of q² cos 2(azimuth - angle), halved; the envelope of the illumination follows that of all
    ax, ay = qx * cos(twice) + qy * sin(twice), qx * sin(twice) - qy * cos(twice)
    astigmatic = qx * ax + qy * ay
    phase = pi * lam * half * astigmatic
    slope = -acq.defocus * MICROMETRE + c30 * q2
    steeper = half**2 * (ax**2 + ay**2) - 2 * half * slope * astigmatic
    envelope = np.exp(-((pi * acq.illumination_semiangle * 1e-3) ** 2) * steeper)
    if tilted:
        tx, ty = acq.beam_tilt_x * 1e-3 / lam, acq.beam_tilt_y * 1e-3 / lam
        t2, along = tx**2 + ty**2, qx * tx + qy * ty
        # (q + t)⁴ without q⁴, t⁴ and the part that is linear in q; of squares nothing remains
        quartic = 4 * q2 * along + 2 * t2 * q2 + 4 * along**2
        phase = phase - pi * lam * 0.5 * c30 * quartic
    if acq.amplitude_contrast:
        phase = phase + asin(acq.amplitude_contrast) * (q2 > 0)
    factor = envelope * np.exp(1j * phase)
    if acq.aperture:
        factor = factor * (q2 <= (acq.aperture * 1e-3 / lam) ** 2)
    return np.asarray(factor, np.complex64)


def phase_plate(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Phase factor of a Volta phase plate, (ny, nx): nothing at the direct beam, its shift away from it."""
    q2 = frequencies(shape, pixel_size)
    shift = radians(acq.phase_shift)
    return np.asarray(np.exp(1j * shift * (1 - np.exp(-q2 / (2 * acq.phase_plate_radius**2)))), np.complex64)


def ice_power(q2: NDArray[np.float64], acq: Acquisition) -> NDArray[np.float64]:
    """Power spectrum of Parakeet's ice, to a factor, at squared frequencies in 1/Å²."""
    q = np.sqrt(q2)
    spectrum = ICE_SPECTRA[acq.ice_spectrum]
    return np.asarray(sum(a * np.exp(-0.5 * ((q - m) / s) ** 2) for a, m, s in spectrum))


def quantum_efficiency(shape: tuple[int, int], sampling: float, rate: float) -> NDArray[np.float32]:
    """Parakeet's detective quantum efficiency for the half plane that ``rfft2`` gives, (ny, nx // 2 + 1).

    Parakeet reads its table at cycles a pixel where the table counts fractions of Nyquist, so the
    second half of the curve is never used; and it multiplies the image itself, before the counts are
    drawn, so the mean falls too. Both are kept: they are what Parakeet's detector does. (The detector
    ``counting`` does neither.)

    Parameters
    ----------
    shape
        Of the image, (ny, nx).
    sampling
        Pixels of the detector that one sample of the image is wide.
    rate
        Electrons a pixel of the detector and second.
    """
    return detectors.parakeets_table(_cycles(shape, sampling), rate).astype(np.float32)


def _cycles(shape: tuple[int, int], sampling: float) -> NDArray[np.float64]:
    """Cycles a pixel of the detector for the half plane that ``rfft2`` gives."""
    qy, qx = (f(n, sampling) for f, n in zip((scipy.fft.fftfreq, scipy.fft.rfftfreq), shape, strict=True))
    return np.asarray(np.sqrt(qy[:, None] ** 2 + qx[None, :] ** 2))


def detection(
    shape: tuple[int, int], sampling: float, acq: Acquisition, tilt: Tilt
) -> NDArray[np.float32] | None:
    """Find what the detector multiplies a mean intensity's half plane by before counts are drawn from it.

    ``shape`` (ny, nx) and ``sampling`` are as in :func:`quantum_efficiency`; None for a perfect detector.
    """
    if not acq.dqe:
        return None
    rate = tilt.dose * acq.pixel_size**2  # an exposure lasts one second
    curve = detectors.curve(acq, rate)
    return (
        quantum_efficiency(shape, sampling, rate) if curve is None else curve.before(_cycles(shape, sampling))
    )


def detect(image: NDArray[np.float32], sampling: float, acq: Acquisition, tilt: Tilt) -> NDArray[np.float32]:
    """Apply what the detector does to a mean intensity (ny, nx) before counts are drawn from it.

    ``sampling`` is as in :func:`quantum_efficiency`.
    """
    shape = (image.shape[0], image.shape[1])
    factor = detection(shape, sampling, acq, tilt)
    if factor is None:
        return image
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(image) * factor, shape), np.float32)


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


def energy_filtered(
    image: NDArray[np.float32], scene: Scene, acq: Acquisition, tilt: Tilt
) -> NDArray[np.float32]:
    """Take the electrons that lost energy from a mean intensity (ny, nx) in the scene's voxels, if asked."""
    share = ice.zero_loss_share(scene, acq, tilt.angle)
    return image if share is None else image * share


def counts(
    mean: NDArray[np.float32], dose: float, seed: int, tilt: Tilt, acq: Acquisition
) -> NDArray[np.float32]:
    """Draw the electrons that each pixel of ``dose`` (electrons where the intensity is 1) counts.

    A sum of independent Poisson counts is a Poisson count of the summed mean, so drawing once a binned
    pixel has the distribution of drawing in Parakeet's 1 Å pixels and binning then. A detector whose noise
    is not white colours what was drawn (:mod:`tlgen.simulate.microscope.detectors`).
    """
    rng = generator(seed, "counts", tilt.index)
    drawn = rng.poisson(np.clip(mean, 0, None) * dose).astype(np.float32)
    curve = detectors.curve(acq, tilt.dose * acq.pixel_size**2)
    if curve is None or curve.white:
        return drawn
    shape = (drawn.shape[0], drawn.shape[1])
    factor = curve.after(_cycles(shape, acq.voxel_size / acq.pixel_size))
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(drawn) * factor, shape), np.float32)
