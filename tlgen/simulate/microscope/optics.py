"""The lens, the energy filter and the detector, as both engines use them.

Lengths are in Å, spatial frequencies in 1/Å, and the beam's energy in keV. Defocus is in µm with underfocus
positive, as in :class:`~catalogs.schema.Acquisition`.
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

#: m c² of the electron in keV, and h c in keV Å, with the values that MULTEM uses.
REST_ENERGY = 510.99906
HC = 12.3984244
MM = 1e7  # in Å
MICROMETRE = 1e4  # in Å

#: Power spectrum of the ice as two Gaussians (amplitude, centre and width in 1/Å): from the configuration of
#: Template Learning (``paper``), and Parakeet's default (``parakeet``).
ICE_SPECTRA = {
    "paper": ((0.72, 0.0, 0.1), (0.28, 1 / 2.88, 0.5)),
    "parakeet": ((0.199, 0.0, 0.731), (0.801, 1 / 2.88, 0.081)),
}


def wavelength(voltage: float) -> float:
    """Relativistic wavelength in Å of electrons at ``voltage`` kV (de Graef 2003, eq. 2.9)."""
    return HC / sqrt(voltage * (2 * REST_ENERGY + voltage))


def interaction(voltage: float) -> float:
    """Interaction constant: phase in radians per V Å of projected potential (Kirkland 2010, eq. 5.6)."""
    return (1 + voltage / REST_ENERGY) * wavelength(voltage) / 47.877645145863056


def defocus_spread(acq: Acquisition) -> float:
    """1/e half width in Å of the defocus spread by chromatic aberration (Kirkland 2010, eq. 3.41)."""
    spread = sqrt(acq.energy_spread**2 + (2 * acq.current_spread) ** 2 + acq.voltage_spread**2) * 1e-6
    return acq.chromatic_aberration * MM * spread


def frequencies(shape: tuple[int, int], pixel_size: float) -> NDArray[np.float64]:
    """Squared spatial frequency in 1/Å² of each Fourier coefficient, (ny, nx), zero frequency first."""
    qy, qx = _axes(shape, pixel_size)
    return np.asarray(qy**2 + qx**2)


def _axes(shape: tuple[int, int], pixel_size: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spatial frequencies in 1/Å along y, (ny, 1), and x, (1, nx)."""
    qy, qx = (scipy.fft.fftfreq(n, pixel_size) for n in shape)
    return qy[:, None], qx[None, :]


def transfer(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Transfer function of the wave, with the envelopes of partial coherence and without the phase plate.

    The phase includes defocus, spherical aberration and the terms of :func:`aberrations`. The envelopes are
    those of Gaussian distributions of defocus and of illumination angles, each to first order (Kirkland
    2010, section 5.4.3). MULTEM computes the same for ``Partial_Coherent_Higher_Order``, the model that
    Parakeet uses.

    Returns
    -------
    ndarray, complex64, (ny, nx)
        Factor on the Fourier transform of the wave, zero frequency first.
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
    """Factor of astigmatism, beam tilt, amplitude contrast and aperture on the wave: (ny, nx), or None.

    - Astigmatism: the underfocus along an azimuth is ``defocus + astigmatism / 2 cos 2(azimuth - angle)``
      (Rohou & Grigorieff, J. Struct. Biol. 192, 216, 2015).
    - Beam tilt: the beam passes the lens off its axis, so the wave aberration is evaluated around another
      frequency. Its constant and its linear part are left out, because the linear part is a shift of the
      whole image, which alignment removes. Coma and a little defocus and astigmatism remain (Glaeser et al.,
      J. Struct. Biol. 174, 1, 2011). The envelopes are not changed by beam tilt.
    - Amplitude contrast: the phase of the scattered wave is shifted against the direct beam by the arcsine
      of the amplitude contrast, as if the potential had an imaginary part of this share (Reimer & Kohl 2008,
      section 6.2).
    - Aperture: higher frequencies are removed.
    """
    tilted = acq.beam_tilt_x or acq.beam_tilt_y
    if not (acq.astigmatism or tilted or acq.amplitude_contrast or acq.aperture):
        return None
    lam = wavelength(acq.voltage)
    qy, qx = _axes(shape, pixel_size)
    q2 = qy**2 + qx**2
    c30 = acq.spherical_aberration * MM * lam**2
    half, twice = acq.astigmatism / 2 * MICROMETRE, 2 * radians(acq.astigmatism_angle)

    # Half of the gradient of q² cos 2(azimuth - angle). The envelope of the illumination depends on the
    # gradient of the whole phase.
    ax, ay = qx * cos(twice) + qy * sin(twice), qx * sin(twice) - qy * cos(twice)
    astigmatic = qx * ax + qy * ay
    phase = pi * lam * half * astigmatic
    slope = -acq.defocus * MICROMETRE + c30 * q2
    steeper = half**2 * (ax**2 + ay**2) - 2 * half * slope * astigmatic
    envelope = np.exp(-((pi * acq.illumination_semiangle * 1e-3) ** 2) * steeper)
    if tilted:
        tx, ty = acq.beam_tilt_x * 1e-3 / lam, acq.beam_tilt_y * 1e-3 / lam
        t2, along = tx**2 + ty**2, qx * tx + qy * ty
        # (q + t)⁴ without q⁴, t⁴ and the part linear in q; (q + t)² leaves no other terms
        quartic = 4 * q2 * along + 2 * t2 * q2 + 4 * along**2
        phase = phase - pi * lam * 0.5 * c30 * quartic
    if acq.amplitude_contrast:
        phase = phase + asin(acq.amplitude_contrast) * (q2 > 0)
    factor = envelope * np.exp(1j * phase)
    if acq.aperture:
        factor = factor * (q2 <= (acq.aperture * 1e-3 / lam) ** 2)
    return np.asarray(factor, np.complex64)


def phase_plate(shape: tuple[int, int], pixel_size: float, acq: Acquisition) -> NDArray[np.complex64]:
    """Phase factor of a Volta phase plate, (ny, nx): no shift of the direct beam, full shift away from it."""
    q2 = frequencies(shape, pixel_size)
    shift = radians(acq.phase_shift)
    return np.asarray(np.exp(1j * shift * (1 - np.exp(-q2 / (2 * acq.phase_plate_radius**2)))), np.complex64)


def ice_power(q2: NDArray[np.float64], acq: Acquisition) -> NDArray[np.float64]:
    """Power spectrum of Parakeet's ice, up to a constant factor, at squared frequencies in 1/Å²."""
    q = np.sqrt(q2)
    spectrum = ICE_SPECTRA[acq.ice_spectrum]
    return np.asarray(sum(a * np.exp(-0.5 * ((q - m) / s) ** 2) for a, m, s in spectrum))


def quantum_efficiency(shape: tuple[int, int], sampling: float, rate: float) -> NDArray[np.float32]:
    """Parakeet's detective quantum efficiency for the half plane of ``rfft2``, (ny, nx // 2 + 1).

    The table's axis is a fraction of Nyquist, but Parakeet reads it at cycles per pixel, so the second half
    of the curve is never used. Parakeet also multiplies the image itself by it, before counts are drawn, so
    the mean decreases too. Both are reproduced here, because Parakeet's detector works this way. (The
    detector ``counting`` does neither.)

    Parameters
    ----------
    shape
        Shape of the image, (ny, nx).
    sampling
        Width of an image sample in detector pixels.
    rate
        Electrons per detector pixel and second.
    """
    return detectors.parakeets_table(_cycles(shape, sampling), rate).astype(np.float32)


def _cycles(shape: tuple[int, int], sampling: float) -> NDArray[np.float64]:
    """Frequencies in cycles per detector pixel for the half plane of ``rfft2``."""
    qy, qx = (f(n, sampling) for f, n in zip((scipy.fft.fftfreq, scipy.fft.rfftfreq), shape, strict=True))
    return np.asarray(np.sqrt(qy[:, None] ** 2 + qx[None, :] ** 2))


def detection(
    shape: tuple[int, int], sampling: float, acq: Acquisition, tilt: Tilt
) -> NDArray[np.float32] | None:
    """Factor of the detector on the half plane of a mean intensity, before counts are drawn from it.

    ``shape`` (ny, nx) and ``sampling`` are as in :func:`quantum_efficiency`. None for a perfect detector.
    """
    if not acq.dqe:
        return None
    rate = tilt.dose * acq.pixel_size**2  # an exposure lasts one second
    curve = detectors.curve(acq, rate)
    return (
        quantum_efficiency(shape, sampling, rate) if curve is None else curve.before(_cycles(shape, sampling))
    )


def detect(image: NDArray[np.float32], sampling: float, acq: Acquisition, tilt: Tilt) -> NDArray[np.float32]:
    """Apply the detector's response to a mean intensity (ny, nx), before counts are drawn from it.

    ``sampling`` is as in :func:`quantum_efficiency`.
    """
    shape = (image.shape[0], image.shape[1])
    factor = detection(shape, sampling, acq, tilt)
    if factor is None:
        return image
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(image) * factor, shape), np.float32)


def b_factor(acq: Acquisition, tilt: Tilt) -> float:
    """B factor in Å² of the damage at the end of a tilt: 8 π² x sensitivity x dose, as in Parakeet."""
    return 8 * pi**2 * acq.damage * tilt.dose_after


def binning(acq: Acquisition, pixel_size: float) -> int:
    """Binning factor from pixels of ``pixel_size`` Å to the tomogram's voxels.

    Raises
    ------
    InputError
        If the factor is not a whole number.
    """
    factor = round(acq.voxel_size / pixel_size)
    if factor < 1 or abs(factor * pixel_size - acq.voxel_size) > 1e-6 * acq.voxel_size:
        raise InputError(
            f"voxel_size: {acq.voxel_size:g} Å is not a whole multiple of pixel_size, {pixel_size:g} Å, "
            "so the images cannot be binned to it; change one of them"
        )
    return factor


def check_voxel_size(scene: Scene, acq: Acquisition) -> None:
    """Refuse a scene that was packed for another voxel size; the InputError gives both sizes."""
    if abs(scene.voxel_size - acq.voxel_size) > 1e-6 * acq.voxel_size:
        raise InputError(
            f"voxel_size: the scene was packed at {scene.voxel_size:g} Å and the acquisition has "
            f"{acq.voxel_size:g} Å; use the same for both"
        )


def energy_filtered(
    image: NDArray[np.float32], scene: Scene, acq: Acquisition, tilt: Tilt
) -> NDArray[np.float32]:
    """Remove electrons that lost energy from a mean intensity (ny, nx), if there is an energy filter."""
    share = ice.zero_loss_share(scene, acq, tilt.angle)
    return image if share is None else image * share


def counts(
    mean: NDArray[np.float32], dose: float, seed: int, tilt: Tilt, acq: Acquisition
) -> NDArray[np.float32]:
    """Draw the electron counts of each pixel; ``dose`` is the mean count where the intensity is 1.

    A sum of independent Poisson counts is a Poisson count of the summed mean. Drawing once per binned pixel
    therefore has the same distribution as drawing in Parakeet's 1 Å pixels and binning afterwards. If the
    detector's noise is not white, the counts are filtered (:mod:`tlgen.simulate.microscope.detectors`).
    """
    rng = generator(seed, "counts", tilt.index)
    drawn = rng.poisson(np.clip(mean, 0, None) * dose).astype(np.float32)
    curve = detectors.curve(acq, tilt.dose * acq.pixel_size**2)
    if curve is None or curve.white:
        return drawn
    shape = (drawn.shape[0], drawn.shape[1])
    factor = curve.after(_cycles(shape, acq.voxel_size / acq.pixel_size))
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(drawn) * factor, shape), np.float32)
