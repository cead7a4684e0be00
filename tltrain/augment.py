"""Changes of a patch that leave it a possible tomogram of the same classes; each has its own switch.

A tomogram is not isotropic. The tilt axis is y and the beam runs along z, so that of the directions in the
plane of kz and kx only those between the first and the last tilt were measured: the rest is the missing
wedge. A half turn about y leaves it in place always; half turns about x and z exchange positive and negative
tilts and leave it in place if the tilt range is symmetric. A quarter turn, or a turn by any other angle,
would not. Mirrors may leave it in place too, but turn each molecule into its mirror image, which does not
exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numba
import numpy as np
from numpy.typing import NDArray

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.intensity import CLIP
from tltrain.spectrum import Filter, noise_of
from tltrain.supply import IGNORE

Floats = NDArray[np.float32]
Tilts = tuple[float, float]

#: Axes that are reversed by no turn and by half turns about y, x and z, for arrays (z, y, x).
HALF_TURNS: tuple[tuple[int, ...], ...] = ((), (0, 2), (0, 1), (1, 2))
#: Axes that are reversed by mirrors: y and all three of them, which leave any wedge in place, then x and z.
MIRRORS: tuple[tuple[int, ...], ...] = ((1,), (0, 1, 2), (2,), (0,))

#: A tilt range is symmetric if its ends differ by no more degrees than this: one tilt.
_SYMMETRIC = 3.0
#: What is taken for the tilt range where nobody knows it.
_USUAL: Tilts = (-60.0, 60.0)


@dataclass(frozen=True)
class Effect:
    """One kind of change.

    Attributes
    ----------
    probability
        That a patch is changed; 0 switches the effect off.
    strength
        How far at most; what it means is said with each effect.
    """

    probability: float
    strength: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """What is done to patches; grey values are in spreads of the tomogram (``catalogs.intensity``).

    Attributes
    ----------
    half_turns
        A half turn about x, y or z, or none, all as likely; only about y where the tilt range is not
        symmetric. No strength.
    mirror
        A mirror image. Off: molecules of the wrong hand do not exist. No strength.
    rotation
        A turn about z by up to ``strength`` degrees either way. The missing wedge turns with it, so this is
        for pickers of tomograms whose tilt axis is not along y; off. Corners that turn in from outside are 0
        and their labels ignored.
    shift
        A patch is moved off what it is centred on by up to this share of its edge, along each axis.
    scale
        Grey values are multiplied by a factor from 1 / ``strength`` to ``strength``.
    offset
        Grey values are moved by up to this much.
    gamma
        Dark values are spread and bright ones pressed together, or the other way round: a power from
        1 / ``strength`` to ``strength`` of the grey values between the two ends of the normalisation.
    noise
        Noise of up to this standard deviation, in all directions that were measured.
    spectrum
        The amplitudes of shells in Fourier space are changed by a smooth random curve; ``strength`` is the
        standard deviation of its logarithm.
    low_pass
        Fine detail is taken away: the amplitude falls to half at a frequency between ``strength`` and 0.5
        cycles a voxel.
    wedge
        Up to so many degrees are taken off each end of the tilt range.
    cutout
        A cube of up to this share of the edge is made flat, and its labels ignored.
    """

    half_turns: Effect = Effect(1.0)
    mirror: Effect = Effect(0.0)
    rotation: Effect = Effect(0.0, 180.0)
    shift: Effect = Effect(1.0, 1 / 3)
    scale: Effect = Effect(1.0, 1.25)
    offset: Effect = Effect(1.0, 0.2)
    gamma: Effect = Effect(0.2, 1.5)
    noise: Effect = Effect(1.0, 0.3)
    spectrum: Effect = Effect(0.2, 0.25)
    low_pass: Effect = Effect(0.1, 0.25)
    wedge: Effect = Effect(0.1, 15.0)
    cutout: Effect = Effect(0.0, 0.3)


_NAMES = [field.name for field in fields(Augmentation)]
_DRAWS = 6  # numbers that chance gives each effect

#: Nothing is done to a patch; it is not even moved.
NO_AUGMENTATION = Augmentation(**{field.name: Effect(0.0) for field in fields(Augmentation)})


def augmentation_of(words: Sequence[str], start: Augmentation | None = None) -> Augmentation:
    """Read what a person says of augmentation.

    Parameters
    ----------
    words
        ``noise=0.5`` sets a probability, ``noise=0.5:0.4`` the strength too; ``none`` switches all off.
        Later ones count.
    start
        What they change; None: the defaults.

    Returns
    -------
    Augmentation

    Raises
    ------
    InputError
        If there is no such effect, or a number is none or out of its range.
    """
    result = start or Augmentation()
    names = [field.name for field in fields(Augmentation)]
    for word in words:
        if word == "none":
            result = NO_AUGMENTATION
            continue
        name, _, numbers = word.partition("=")
        if name not in names:
            raise InputError(f"augmentation {name!r} is not known{nearest(name, names)}; {_EXAMPLE}")
        default: Effect = getattr(Augmentation(), name)
        probability, colon, strength = numbers.partition(":")
        try:
            effect = Effect(float(probability), float(strength) if colon else default.strength)
        except ValueError as error:
            raise InputError(f"augmentation {word!r} cannot be understood; {_EXAMPLE}") from error
        if not 0 <= effect.probability <= 1:
            raise InputError(f"augmentation {word!r}: the probability must lie between 0 and 1; {_EXAMPLE}")
        low, high = _LIMITS.get(name, (0.0, np.inf))
        if not low <= effect.strength <= high:
            raise InputError(f"augmentation {word!r}: the strength must lie between {low:g} and {high:g}")
        result = replace(result, **{name: effect})
    return result


_EXAMPLE = "write noise=0.5 (a probability), noise=0.5:0.4 (a strength too) or none"
_LIMITS = {
    "rotation": (0.0, 180.0),
    "shift": (0.0, 0.5),
    "scale": (1.0, 10.0),
    "gamma": (1.0, 10.0),
    "low_pass": (0.02, 0.5),
    "wedge": (0.0, 45.0),
    "cutout": (0.0, 1.0),
}


def symmetries(tilts: Tilts | None, *, mirrors: bool = False) -> tuple[tuple[int, ...], ...]:
    """List the reversals of axes that leave the missing wedge in place.

    Parameters
    ----------
    tilts
        First and last tilt, degrees, about the axis y; None: unknown, so only what is right for all.
    mirrors
        Those that make mirror images, instead of those that turn.

    Returns
    -------
    tuple of tuple of int
        Axes of an array (z, y, x) to reverse.
    """
    symmetric = tilts is not None and abs(tilts[0] + tilts[1]) <= _SYMMETRIC
    return (MIRRORS if mirrors else HALF_TURNS)[: 4 if symmetric else 2]


def augment(
    tomogram: Floats,
    classes: NDArray[np.uint8],
    rng: np.random.Generator,
    how: Augmentation,
    tilts: Tilts | None = None,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Change a patch and its labels together.

    Parameters
    ----------
    tomogram
        (z, y, x) normalised grey values, a cube.
    classes
        (z, y, x) labels.
    rng
        Where the choices come from. An effect's draws do not depend on the other effects' settings.
    how
        What may be done. ``shift`` is not done here but where the patch is cut.
    tilts
        First and last tilt of the tomogram, degrees; None: not known.

    Returns
    -------
    tomogram, classes
        The changed patch, of the same shape; the inputs are left as they are.
    """
    return augment_by(tomogram, classes, draws(rng)[0], how, tilts)


def draws(rng: np.random.Generator, n: int = 1) -> NDArray[np.float64]:
    """Draw all that chance decides about ``n`` patches: (n, ...), an item each for :func:`augment_by`."""
    return rng.random((n, len(_NAMES), _DRAWS))


def augment_by(
    tomogram: Floats,
    classes: NDArray[np.uint8],
    draw: NDArray[np.float64],
    how: Augmentation,
    tilts: Tilts | None = None,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Change a patch and its labels together, as :func:`augment` does, by numbers of :func:`draws`."""
    dice = dict(zip(_NAMES, draw, strict=True))

    def wanted(name: str) -> bool:
        return bool(dice[name][0] < getattr(how, name).probability)

    def signed(name: str, n: int = 1) -> float:
        return float(2 * dice[name][n] - 1) * float(getattr(how, name).strength)

    known = tilts or _USUAL
    grey = _in_fourier_space(tomogram, how, known, dice)
    if wanted("gamma"):
        grey = _gamma(grey, how.gamma.strength ** float(2 * dice["gamma"][1] - 1))

    axes: tuple[int, ...] = ()
    if wanted("half_turns"):
        turns = symmetries(tilts)
        axes = turns[int(dice["half_turns"][1] * len(turns))]
    if wanted("mirror"):
        mirrors = symmetries(tilts, mirrors=True)
        mirror = mirrors[int(dice["mirror"][1] * len(mirrors))]
        axes = tuple(sorted(set(axes) ^ set(mirror)))
    grey, classes = np.flip(grey, axes), np.flip(classes, axes)

    factor = how.scale.strength ** float(2 * dice["scale"][1] - 1) if wanted("scale") else 1.0
    offset = signed("offset") if wanted("offset") else 0.0
    noise, sigma = None, 0.0
    if wanted("noise"):
        noise, sign = noise_of(grey.shape, known, dice["noise"][2:])
        sigma = sign * how.noise.strength * float(dice["noise"][1])
    changed = _finished(grey, np.float32(factor), np.float32(offset), noise, np.float32(sigma))
    if wanted("cutout"):
        changed, classes = _cut_out(changed, classes, how.cutout.strength, dice["cutout"][1:])
    if wanted("rotation"):
        changed, classes = _rotate(changed, classes, np.deg2rad(signed("rotation")))
    return changed, classes


def _in_fourier_space(
    tomogram: Floats, how: Augmentation, tilts: Tilts, dice: dict[str, NDArray[np.float64]]
) -> Floats:
    """Do what is done to amplitudes, all of it in one transform."""
    change = Filter(tomogram.shape)
    if dice["spectrum"][0] < how.spectrum.probability:
        change.curve(how.spectrum.strength, dice["spectrum"][1:])
    if dice["low_pass"][0] < how.low_pass.probability:
        lowest = how.low_pass.strength
        change.low_pass(lowest + (0.5 - lowest) * float(dice["low_pass"][1]))
    if dice["wedge"][0] < how.wedge.probability:
        first, last = how.wedge.strength * dice["wedge"][1:3]
        change.keep_tilts(tilts[0] + float(first), tilts[1] - float(last))
    return change(tomogram)


def _gamma(grey: Floats, power: float) -> Floats:
    """Bend the scale of grey values; 0 stays 0, and small differences around it stay what they are."""
    place = (np.clip(grey, -CLIP, CLIP) + np.float32(CLIP)) / np.float32(2 * CLIP)  # the middle is a half
    bent = np.power(place, np.float32(power), dtype=np.float32)
    bent -= np.float32(0.5**power)
    bent *= np.float32(2 * CLIP / (power * 0.5 ** (power - 1)))
    return bent


def _cut_out(
    grey: Floats, classes: NDArray[np.uint8], strength: float, dice: NDArray[np.float64]
) -> tuple[Floats, NDArray[np.uint8]]:
    """Make a cube flat; nobody is asked what is in it."""
    size = np.array(grey.shape)
    edge = np.maximum((size * strength * dice[0]).astype(np.int64), 1)
    corner = (dice[1:4] * (size - edge + 1)).astype(np.int64)
    box = tuple(slice(int(a), int(a + e)) for a, e in zip(corner, edge, strict=True))
    classes = classes.copy()
    grey[box], classes[box] = 0, IGNORE
    return grey, classes


def _rotate(grey: Floats, classes: NDArray[np.uint8], angle: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Turn a patch about the z axis through its middle; +x turns towards +y."""
    return _turned(
        np.ascontiguousarray(grey), np.ascontiguousarray(classes), np.cos(angle), np.sin(angle), IGNORE
    )


def _finished(
    grey: Floats, factor: np.float32, offset: np.float32, noise: Floats | None, sigma: np.float32
) -> Floats:
    """Compute ``factor * grey + offset + sigma * noise`` into a new array, in one pass."""
    return _scaled(grey, factor, offset) if noise is None else _noisy(grey, factor, offset, noise, sigma)


@numba.njit(cache=True, nogil=True)
def _scaled(grey: Floats, factor: np.float32, offset: np.float32) -> Floats:
    new = np.empty(grey.shape, np.float32)
    for z in range(grey.shape[0]):
        for y in range(grey.shape[1]):
            for x in range(grey.shape[2]):
                new[z, y, x] = factor * grey[z, y, x] + offset
    return new


@numba.njit(cache=True, nogil=True)
def _noisy(grey: Floats, factor: np.float32, offset: np.float32, noise: Floats, sigma: np.float32) -> Floats:
    new = np.empty(grey.shape, np.float32)
    for z in range(grey.shape[0]):
        for y in range(grey.shape[1]):
            for x in range(grey.shape[2]):
                new[z, y, x] = factor * grey[z, y, x] + offset + sigma * noise[z, y, x]
    return new


@numba.njit(cache=True, nogil=True)
def _turned(
    grey: Floats, classes: NDArray[np.uint8], cos: float, sin: float, outside: int
) -> tuple[Floats, NDArray[np.uint8]]:
    """Interpolate by cubic convolution (Keys, IEEE Trans. ASSP 29, 1153, 1981), labels by the nearest."""
    n_z, n_y, n_x = grey.shape
    new, labels = np.zeros_like(grey), np.full_like(classes, outside)
    wy, wx = np.empty(4, np.float32), np.empty(4, np.float32)
    for i in range(n_y):
        for j in range(n_x):
            dy, dx = i - (n_y - 1) / 2, j - (n_x - 1) / 2
            y, x = cos * dy - sin * dx + (n_y - 1) / 2, sin * dy + cos * dx + (n_x - 1) / 2
            ny, nx = int(np.rint(y)), int(np.rint(x))
            if ny < 0 or nx < 0 or ny >= n_y or nx >= n_x:
                continue
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            _keys(y - y0, wy)
            _keys(x - x0, wx)
            for a in range(4):
                row = min(max(y0 - 1 + a, 0), n_y - 1)
                for b in range(4):
                    column = min(max(x0 - 1 + b, 0), n_x - 1)
                    weight = wy[a] * wx[b]
                    for z in range(n_z):
                        new[z, i, j] += weight * grey[z, row, column]
            for z in range(n_z):
                labels[z, i, j] = classes[z, ny, nx]
    return new, labels


@numba.njit(inline="always")
def _keys(t: float, w: Floats) -> None:
    w[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    w[1] = (1.5 * t - 2.5) * t * t + 1.0
    w[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    w[3] = (0.5 * t - 0.5) * t * t
