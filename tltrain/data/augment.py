"""Augmentations of a patch, after which it is still a possible tomogram of the same classes.

A tomogram is not isotropic. The tilt axis is y and the beam runs along z, so in the plane of kz and kx only
the directions between the first and the last tilt were measured; the rest is the missing wedge. A half turn
about y always leaves it in place. Half turns about x and z exchange positive and negative tilts, and leave it
in place if the tilt range is symmetric. Other rotations do not. Mirrors may leave it in place, too, but turn
each molecule into its mirror image, which does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from catalogs.console import nearest
from catalogs.errors import InputError
from catalogs.intensity import CLIP
from tltrain.data.kernels import finish, put_grey, put_labels, turned_about_z
from tltrain.data.patch_sources import IGNORE
from tltrain.data.spectrum import Filter, noise_volume

Floats = NDArray[np.float32]
Tilts = tuple[float, float]
#: Grey values, float32, and labels, uint8: (z, y, x) of a patch, or of several.
Patch = tuple[Floats, NDArray[np.uint8]]

#: Axes that are reversed by the identity and by half turns about y, x and z, for arrays (z, y, x).
HALF_TURNS: tuple[tuple[int, ...], ...] = ((), (0, 2), (0, 1), (1, 2))
#: Axes that are reversed by mirrors: y and all three of them, which leave any wedge in place, then x and z.
MIRRORS: tuple[tuple[int, ...], ...] = ((1,), (0, 1, 2), (2,), (0,))

#: A tilt range is symmetric if its ends differ by at most this many degrees: one tilt.
_SYMMETRIC = 3.0
#: Tilt range that is assumed if it is not known.
_USUAL: Tilts = (-60.0, 60.0)


@dataclass(frozen=True)
class Effect:
    """One kind of augmentation.

    Attributes
    ----------
    probability
        Probability that a patch is changed; 0 switches the effect off.
    strength
        Largest change; its meaning depends on the effect.
    """

    probability: float
    strength: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """How patches are augmented; grey values are in spreads of the tomogram (``catalogs.intensity``).

    Attributes
    ----------
    half_turns
        A half turn about x, y or z, or none, with equal probability; only about y if the tilt range is not
        symmetric. No strength.
    mirror
        A mirror image. Off by default, because molecules of the wrong hand do not exist. No strength.
    rotation
        A rotation about z by up to ``strength`` degrees in either direction. The missing wedge is rotated,
        too, so this is for tomograms whose tilt axis is not along y. Off by default. Corners from outside the
        patch are 0, and their labels are ignored.
    shift
        A patch is shifted from its centre by up to this share of its edge, along each axis.
    scale
        Grey values are multiplied by a factor from 1 / ``strength`` to ``strength``.
    offset
        Up to this much is added to the grey values or subtracted from them.
    gamma
        Dark values are stretched and bright values are compressed, or the other way round: a power from 1 /
        ``strength`` to ``strength`` of the grey values between the two ends of the normalisation.
    noise
        Noise of up to this standard deviation, at all frequencies that the tilts measure.
    spectrum
        The amplitudes of shells in Fourier space are changed by a smooth random curve; ``strength`` is the
        standard deviation of its logarithm.
    low_pass
        Fine detail is removed: the amplitude is one half at a frequency between ``strength`` and 0.5 cycles
        per voxel.
    wedge
        Up to this many degrees are removed from each end of the tilt range.
    cutout
        A cube of up to this share of the edge is set to a constant, and its labels are ignored.
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
_DRAWS = 6  # random numbers for each effect
_BENDING = ("spectrum", "low_pass", "wedge", "gamma", "cutout", "rotation")
_NO_NOISE = np.zeros((1, 1, 1), np.float32)
_NO_NOISE.setflags(write=False)  # like the other noise

#: Patches are not changed at all, not even shifted.
NO_AUGMENTATION = Augmentation(**{field.name: Effect(0.0) for field in fields(Augmentation)})


def augmentation_of(words: Sequence[str], start: Augmentation | None = None) -> Augmentation:
    """Read augmentation settings as a user writes them.

    Parameters
    ----------
    words
        ``noise=0.5`` sets a probability, ``noise=0.5:0.4`` also the strength; ``none`` switches all off.
        Later words override earlier ones.
    start
        Settings to change; None: the defaults.

    Returns
    -------
    Augmentation

    Raises
    ------
    InputError
        If there is no such effect, or a number is not valid or out of its range.
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
        First and last tilt, degrees, about the axis y; None: unknown, so only reversals that are valid for
        all.
    mirrors
        List the mirrors instead of the rotations.

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
        Random generator. The draws of an effect do not depend on the settings of other effects.
    how
        The settings. ``shift`` is not applied here but where the patch is cut.
    tilts
        First and last tilt of the tomogram, degrees; None: not known.

    Returns
    -------
    tomogram, classes
        The changed patch, of the same shape; the inputs are not modified.
    """
    changes = Changes(draws(rng), how, tilts, len(tomogram))
    patch = np.empty(tomogram.shape, np.float32), np.empty(classes.shape, np.uint8)
    whole = np.ascontiguousarray(tomogram, np.float32), np.ascontiguousarray(classes)
    changes.cut(*whole, np.zeros((1, 3), np.int64), [patch])
    return patch


def draws(rng: np.random.Generator, n: int = 1) -> NDArray[np.float64]:
    """Draw all random numbers for ``n`` patches: (n, ...), an item each."""
    return rng.random((n, len(_NAMES), _DRAWS))


class Changes:
    """The changes of some patches of one tomogram.

    Parameters
    ----------
    dice
        (n, ...) from :func:`draws`.
    how
        The settings.
    tilts
        First and last tilt of the tomogram, degrees; None: not known.
    edge
        Of a patch in voxels.
    """

    def __init__(self, dice: NDArray[np.float64], how: Augmentation, tilts: Tilts | None, edge: int) -> None:
        self._how, self._tilts, self._edge = how, tilts or _USUAL, edge
        self._dice = {name: dice[:, k] for k, name in enumerate(_NAMES)}
        self._done = {name: self._dice[name][:, 0] < getattr(how, name).probability for name in _NAMES}
        self.turned = self._reversals(tilts)
        one = np.ones(len(dice), np.float32)
        self.factors = np.where(self._done["scale"], how.scale.strength ** self._signed("scale"), one)
        self.offsets = np.where(self._done["offset"], how.offset.strength * self._signed("offset"), 0 * one)
        self.noise, self.at = _NO_NOISE, np.zeros((len(dice), 3), np.int64)
        self.sigmas = 0 * one
        if self._done["noise"].any():
            self.noise = noise_volume(edge, self._tilts)
            chosen = self._dice["noise"]
            self.at = (chosen[:, 2:5] * (len(self.noise) - edge + 1)).astype(np.int64)
            sign = np.where(chosen[:, 5] < 0.5, 1, -1)
            self.sigmas = np.where(self._done["noise"], sign * how.noise.strength * chosen[:, 1], self.sigmas)
        #: Patches with changes that are not sums; they are finished one by one.
        self.bent = np.any([self._done[name] for name in _BENDING], axis=0)

    def _signed(self, name: str) -> NDArray[np.float64]:
        """Numbers from -1 to 1 that say how far an effect goes."""
        signed: NDArray[np.float64] = 2 * self._dice[name][:, 1] - 1
        return signed

    def _reversals(self, tilts: Tilts | None) -> NDArray[np.bool_]:
        """Choose the axes of each patch that are reversed: (n, 3)."""
        reversed_ = np.zeros((len(self._done["mirror"]), 3), np.bool_)
        for name, mirrors in (("half_turns", False), ("mirror", True)):
            axes = symmetries(tilts, mirrors=mirrors)
            table = np.array([[axis in chosen for axis in range(3)] for chosen in axes])
            which = (self._dice[name][:, 1] * len(axes)).astype(np.int64)
            reversed_ ^= table[which] & self._done[name][:, None]
        return reversed_

    def cut(
        self,
        tomogram: Floats,
        classes: NDArray[np.uint8],
        corners: NDArray[np.int64],
        patches: Sequence[Patch],
    ) -> None:
        """Cut the patches out of a block, changed.

        Parameters
        ----------
        tomogram, classes
            (z, y, x) normalised grey values and labels of the block.
        corners
            (n, 3) first voxel of each patch in the block.
        patches
            n patches to be written.
        """
        zero = np.zeros(3, np.int64)
        cutting = Cutting(self, corners, (zero, np.array(tomogram.shape, np.int64)), patches)
        cutting.grey(zero, tomogram, (np.float32(0), np.float32(1), np.float32(np.inf)))
        cutting.labels(zero, classes)
        cutting.finish()

    def bend(self, k: int, grey: Floats, labels: NDArray[np.uint8]) -> None:
        """Apply to patch ``k`` the changes that are not sums, in place."""
        how, done, dice = self._how, self._done, {name: d[k] for name, d in self._dice.items()}
        content = self._in_fourier_space(k, grey)
        if done["gamma"][k]:
            content = _gamma(content, how.gamma.strength ** float(2 * dice["gamma"][1] - 1))
        finish(
            content, np.float32(self.factors[k]), np.float32(self.offsets[k]), np.float32(self.sigmas[k]),
            self.noise, self.at[k], grey,
        )  # fmt: skip
        if done["cutout"][k]:
            _cut_out(grey, labels, how.cutout.strength, dice["cutout"][1:])
        if done["rotation"][k]:
            angle = np.deg2rad(how.rotation.strength * (2 * dice["rotation"][1] - 1))
            grey[...], labels[...] = turned_about_z(grey, labels, np.cos(angle), np.sin(angle), IGNORE)

    def _in_fourier_space(self, k: int, grey: Floats) -> Floats:
        """Apply all changes of amplitudes in one Fourier transform."""
        how, done, dice = self._how, self._done, self._dice
        change = Filter(grey.shape)
        if done["spectrum"][k]:
            change.curve(how.spectrum.strength, dice["spectrum"][k, 1:])
        if done["low_pass"][k]:
            lowest = how.low_pass.strength
            change.low_pass(lowest + (0.5 - lowest) * float(dice["low_pass"][k, 1]))
        if done["wedge"][k]:
            first, last = how.wedge.strength * dice["wedge"][k, 1:3]
            change.keep_tilts(self._tilts[0] + float(first), self._tilts[1] - float(last))
        return change(grey)


def _gamma(grey: Floats, power: float) -> Floats:
    """Change grey values nonlinearly; 0 stays 0, and small differences around it do not change."""
    place = (np.clip(grey, -CLIP, CLIP) + np.float32(CLIP)) / np.float32(2 * CLIP)  # the middle is a half
    bent = np.power(place, np.float32(power), dtype=np.float32)
    bent -= np.float32(0.5**power)
    bent *= np.float32(2 * CLIP / (power * 0.5 ** (power - 1)))
    return bent


def _cut_out(grey: Floats, classes: NDArray[np.uint8], strength: float, dice: NDArray[np.float64]) -> None:
    """Set a cube to a constant, and its labels to ignored."""
    size = np.array(grey.shape)
    edge = np.maximum((size * strength * dice[0]).astype(np.int64), 1)
    corner = (dice[1:4] * (size - edge + 1)).astype(np.int64)
    box = tuple(slice(int(a), int(a + e)) for a, e in zip(corner, edge, strict=True))
    grey[box], classes[box] = 0, IGNORE


class Cutting:
    """The patches of one block, which are filled piece by piece, without assembling the block.

    Parameters
    ----------
    changes
        What is done to the patches.
    corners
        (n, 3) first voxel of each patch in the tomogram.
    box
        First voxel of the block, and the one after its last.
    patches
        n patches to be written. Parts of a patch outside of the block are 0.
    """

    def __init__(
        self,
        changes: Changes,
        corners: NDArray[np.int64],
        box: tuple[NDArray[np.int64], NDArray[np.int64]],
        patches: Sequence[Patch],
    ) -> None:
        self._changes, self._corners, self._box, self._patches = changes, corners, box, patches
        self._begin = [
            np.array([volume.ctypes.data for volume in of], np.int64) for of in zip(*patches, strict=True)
        ]
        bent, zero = changes.bent, np.zeros(len(patches), np.float32)
        self._factors = np.where(bent, zero + 1, changes.factors).astype(np.float32)
        self._offsets = np.where(bent, zero, changes.offsets).astype(np.float32)
        self._sigmas = np.where(bent, zero, changes.sigmas).astype(np.float32)
        self._edge = len(patches[0][0])
        beyond = (corners < box[0]).any(axis=1) | (corners + self._edge > box[1]).any(axis=1)
        for k in np.flatnonzero(beyond).tolist():
            grey, labels = patches[k]
            finish(
                np.zeros_like(grey), self._factors[k], self._offsets[k], self._sigmas[k],
                changes.noise, changes.at[k], grey,
            )  # fmt: skip
            labels[...] = 0

    def grey(
        self, first: NDArray[np.int64], piece: Floats, normal: tuple[np.float32, np.float32, np.float32]
    ) -> bool:
        """Add a piece of the tomogram; returns whether all its values are finite.

        Parameters
        ----------
        first
            (3,) its first voxel.
        piece
            (z, y, x) grey values.
        normal
            Centre and scale by which they become normalised, and where they are clipped.
        """
        changes = self._changes
        return put_grey(
            piece, first, *self._box, normal, self._corners, changes.turned, self._factors, self._offsets,
            self._sigmas, changes.noise, changes.at, self._begin[0], self._edge,
        )  # fmt: skip

    def labels(self, first: NDArray[np.int64], piece: NDArray[np.uint8]) -> None:
        """Add a piece of the label volume."""
        put_labels(piece, first, *self._box, self._corners, self._changes.turned, self._begin[1], self._edge)

    def finish(self) -> None:
        """Apply the changes that need complete patches."""
        for k in np.flatnonzero(self._changes.bent).tolist():
            self._changes.bend(k, *self._patches[k])
