"""What augmentation does to a patch: each effect by itself, and none beyond what it says."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from catalogs.errors import InputError
from catalogs.intensity import CLIP, Intensity, normalise
from catalogs.seeds import generator
from tltrain.data.augment import (
    HALF_TURNS,
    MIRRORS,
    NO_AUGMENTATION,
    Augmentation,
    Effect,
    augment,
    augmentation_of,
    symmetries,
)
from tltrain.data.patch_sources import IGNORE
from tltrain.data.spectrum import noise_volume, wedge

N = 33
RANGES = ((-60, 60), (-60, 40), (-30, 60), (-48, 51))


def seen_by(tilts, n=N):
    """Which directions a tilt series measures, written down by itself: angle from kx towards kz."""
    kz, ky, kx = np.meshgrid(*(np.fft.fftfreq(n),) * 3, indexing="ij")
    angle = (np.rad2deg(np.arctan2(kz, kx)) + 90) % 180 - 90  # a direction and its opposite are the same
    beyond = (angle < tilts[0]) | (angle > tilts[1])
    return ~(beyond & (np.hypot(kz, kx) > 0)), np.hypot(np.hypot(kz, kx), ky)


def patch(seed=0, tilts=(-60, 60), n=N):
    """Noise without the missing wedge, and labels of its darkest voxels."""
    rng = np.random.default_rng(seed)
    seen, _ = seen_by(tilts, n)
    grey = np.fft.ifftn(np.fft.fftn(rng.standard_normal((n, n, n))) * seen).real.astype(np.float32)
    return grey / grey.std(), (grey < np.percentile(grey, 5)).astype(np.uint8)


def in_wedge(grey, tilts):
    """Share of the power that lies deep in the missing wedge."""
    outside = ~seen_by((tilts[0] - 4, tilts[1] + 4), grey.shape[0])[0]
    power = np.abs(np.fft.fftn(grey)) ** 2
    return power[outside].sum() / power.sum()


def only(name, strength=None, probability=1.0):
    usual = getattr(Augmentation(), name)
    return replace(
        NO_AUGMENTATION, **{name: Effect(probability, usual.strength if strength is None else strength)}
    )


@pytest.mark.parametrize("tilts", RANGES)
def test_symmetries_are_exactly_the_reversals_that_leave_the_wedge_in_place(tilts):
    seen = np.fft.fftshift(seen_by(tilts)[0])  # the origin in the middle, which a reversal leaves there
    for axes in HALF_TURNS + MIRRORS:
        stays = np.mean(np.flip(seen, axes) == seen) > 0.9  # but for a tilt's width at the edges
        listed = axes in symmetries(tilts) + symmetries(tilts, mirrors=True)
        assert listed == stays
    assert symmetries(None) == ((), (0, 2))  # right for all of them


def test_half_turns_are_rotations_and_mirrors_are_not():
    for axes in HALF_TURNS:
        assert len(axes) % 2 == 0
    for axes in MIRRORS:
        assert len(axes) % 2 == 1
    grey, classes = patch()
    for k in range(30):
        turned, _ = augment(grey, classes, generator("turn", k), Augmentation(**{
            field.name: getattr(NO_AUGMENTATION, field.name) for field in fields(Augmentation)
        } | {"half_turns": Effect(1)}), (-60, 60))  # fmt: skip
        assert any(np.array_equal(turned, np.flip(grey, axes)) for axes in HALF_TURNS)
    assert Augmentation().mirror.probability == 0


def test_the_wedge_is_where_an_asymmetric_series_leaves_it():
    tilts = (-60, 20)
    half = wedge((N, N, N), *tilts)
    seen, _ = seen_by(tilts)
    agree = (half > 0.5)[:, None, :] == seen[:, :, : N // 2 + 1]
    assert agree.mean() > 0.98


@pytest.mark.parametrize("name", ["half_turns", "scale", "noise", "spectrum", "low_pass", "wedge"])
@pytest.mark.parametrize("tilts", [(-60, 60), (-60, 40)])
def test_nothing_gets_into_the_missing_wedge(name, tilts):
    grey, classes = patch(tilts=tilts)
    for k in range(6):
        changed, _ = augment(grey, classes, generator(name, k), only(name), tilts)
        if name == "noise":
            changed = changed - grey
            if np.abs(changed).max() == 0:
                continue
            window = np.hanning(N + 2)[1:-1]
            changed *= window[:, None, None] * window[None, :, None] * window  # a piece has edges
            assert in_wedge(changed, (tilts[0] - 8, tilts[1] + 8)) < 0.02
        else:
            assert in_wedge(changed, tilts) < 1e-3


def test_a_turn_about_z_takes_the_wedge_along():
    grey, classes = patch()
    turned, labels = augment(grey, classes, generator("rotate", 3), only("rotation", 180), (-60, 60))
    assert in_wedge(turned, (-60, 60)) > 0.02
    assert (labels == IGNORE).any()
    assert (turned[labels == IGNORE] == 0).all()
    assert Augmentation().rotation.probability == 0


def test_a_turn_moves_what_it_should_where_it_should():
    # a smooth ball off the axis, and its label, turned by the same angle
    z, y, x = np.indices((N, N, N)) - (N - 1) / 2
    grey = np.exp(-((x - 8) ** 2 + (y - 2) ** 2 + z**2) / 18).astype(np.float32)
    classes = (grey > 0.5).astype(np.uint8)
    for k in range(5):
        turned, labels = augment(grey, classes, generator("ball", k), only("rotation", 90))
        inside = labels == 1
        assert abs(inside.sum() / classes.sum() - 1) < 0.05
        assert turned[inside].min() > 0.4
        weights = turned.clip(0)
        centre = [(weights * g).sum() / weights.sum() for g in (z, y, x)]
        assert np.hypot(centre[1], centre[2]) == pytest.approx(np.hypot(8, 2), abs=0.3)
        angle = np.arctan2(centre[1], centre[2]) - np.arctan2(2, 8)
        expected = np.exp(
            -((x - np.hypot(8, 2) * np.cos(angle + np.arctan2(2, 8))) ** 2
              + (y - np.hypot(8, 2) * np.sin(angle + np.arctan2(2, 8))) ** 2 + z**2) / 18
        )  # fmt: skip
        known = labels < IGNORE
        np.testing.assert_allclose(turned[known], expected[known], atol=0.06)


@pytest.mark.parametrize("name", ["half_turns", "mirror"])
def test_labels_follow_the_tomogram(name):
    rng = np.random.default_rng(1)
    classes = (rng.random((6, 6, 6)) < 0.2).astype(np.uint8)
    seen = set()
    for k in range(60):
        grey, labels = augment(classes.astype(np.float32), classes, generator(name, k), only(name), (-60, 60))
        np.testing.assert_array_equal(grey, labels)
        seen.add(labels.tobytes())
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["scale", "offset", "gamma", "noise", "spectrum", "low_pass", "wedge"])
def test_effects_on_grey_values_leave_labels_and_inputs_alone(name):
    grey, classes = patch()
    before = grey.copy(), classes.copy()
    changed, labels = augment(grey, classes, generator(name), only(name))
    np.testing.assert_array_equal(labels, classes)
    np.testing.assert_array_equal(grey, before[0])
    np.testing.assert_array_equal(classes, before[1])
    assert changed.dtype == np.float32
    assert not np.array_equal(changed, grey)


def test_scale_and_offset_stay_within_bounds():
    grey, classes = np.full((8, 8, 8), -2.0, np.float32), np.zeros((8, 8, 8), np.uint8)
    scaled = [float(augment(grey, classes, generator("s", k), only("scale"))[0].mean()) for k in range(200)]
    moved = [float(augment(grey, classes, generator("o", k), only("offset"))[0].mean()) for k in range(200)]
    assert -2.5 - 1e-5 <= min(scaled) < -2.4
    assert -1.7 < max(scaled) <= -1.6 + 1e-5
    assert -2.2 - 1e-5 <= min(moved) < -2.15
    assert -1.85 < max(moved) <= -1.8 + 1e-5


def test_gamma_bends_the_ends_and_not_the_middle():
    ramp = np.linspace(-CLIP, CLIP, 9**3, dtype=np.float32).reshape(9, 9, 9)
    seen = []
    for k in range(20):
        bent = augment(ramp, np.zeros((9, 9, 9), np.uint8), generator(k), only("gamma"))[0].ravel()
        assert (np.diff(bent) > 0).all()
        assert abs(bent[9**3 // 2]) < 1e-4
        assert np.gradient(bent, ramp.ravel())[9**3 // 2] == pytest.approx(1, abs=0.01)
        seen.append(bent[-1])
    assert min(seen) < CLIP < max(seen)


def test_noise_has_its_strength_and_differs_from_patch_to_patch():
    grey, classes = np.zeros((40, 40, 40), np.float32), np.zeros((40, 40, 40), np.uint8)
    pieces = [augment(grey, classes, generator("n", k), only("noise"))[0] for k in range(60)]
    spreads = [float(piece.std()) for piece in pieces]
    assert max(spreads) == pytest.approx(0.3, abs=0.03)
    assert min(spreads) < 0.03
    for one, two in itertools.pairwise(pieces):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.05
    assert noise_volume(40, (-60.0, 60.0)).std() == pytest.approx(1, abs=0.05)


def shells(grey):
    _, radius = seen_by((-90, 90), grey.shape[0])
    power = np.abs(np.fft.fftn(grey)) ** 2
    which = (radius * 20).astype(int)
    return np.sqrt(np.bincount(which.ravel(), power.ravel()) / np.bincount(which.ravel()))[:10]


def test_the_low_pass_falls_to_a_half_where_it_says():
    grey, classes = patch(tilts=(-90, 90))
    for k in range(4):
        changed, _ = augment(grey, classes, generator("l", k), only("low_pass", 0.25))
        ratio = shells(changed) / shells(grey)
        assert (np.diff(ratio) < 0).all()
        half = 0.025 + 0.05 * np.interp(-0.5, -ratio, np.arange(10))
        assert 0.24 < half < 0.51
        assert changed.mean() == pytest.approx(grey.mean(), abs=1e-5)


def test_the_spectrum_changes_smoothly_by_shells_and_the_mean_stays():
    grey, classes = patch(tilts=(-90, 90))
    logs = []
    for k in range(40):
        changed, _ = augment(grey + 1, classes, generator("p", k), only("spectrum"))
        logs.append(np.log(shells(changed - 1) / shells(grey)))
        assert changed.mean() == pytest.approx(grey.mean() + 1, abs=1e-4)
    assert np.abs(np.diff(logs, axis=1)).max() < 0.5
    assert np.std(logs) == pytest.approx(0.25 * 0.85, abs=0.06)  # between knots it is less than at them


def test_more_of_the_wedge_is_taken_away():
    grey, classes = patch()
    lost = []
    for k in range(12):
        changed, _ = augment(grey, classes, generator("w", k), only("wedge", 15), (-60, 60))
        assert in_wedge(changed, (-60, 60)) < 1e-4
        lost.append(1 - changed.var() / grey.var())
        kept = seen_by((-44, 44))[0]
        np.testing.assert_allclose(np.fft.fftn(changed)[kept], np.fft.fftn(grey)[kept], atol=0.05)
    assert 0.02 < np.mean(lost) < 0.2


def test_a_cube_is_cut_out_of_both():
    grey, classes = patch()
    for k in range(10):
        cut, labels = augment(grey, classes, generator("c", k), only("cutout"))
        hole = labels == IGNORE
        corners = np.argwhere(hole)
        size = np.ptp(corners, axis=0) + 1
        assert size.prod() == hole.sum()  # a box
        assert size.max() <= 0.3 * N + 1
        assert (cut[hole] == 0).all()
        np.testing.assert_array_equal(cut[~hole], grey[~hole])
        np.testing.assert_array_equal(labels[~hole], classes[~hole])


def test_probabilities_are_kept_and_none_does_nothing():
    grey, classes = patch(n=9)
    changed = [
        not np.array_equal(
            augment(grey, classes, generator("q", k), only("offset", probability=0.3))[0], grey
        )
        for k in range(400)
    ]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)
    same, labels = augment(grey, classes, generator(1), NO_AUGMENTATION)
    np.testing.assert_array_equal(same, grey)
    np.testing.assert_array_equal(labels, classes)


def test_the_draws_of_an_effect_do_not_depend_on_the_others():
    grey, classes = patch()
    alone, _ = augment(grey, classes, generator(4), only("offset"))
    both = replace(only("offset"), wedge=Effect(0.0, 3.0), half_turns=Effect(0.0))
    np.testing.assert_array_equal(alone, augment(grey, classes, generator(4), both)[0])


def test_the_same_generator_gives_the_same_patch():
    grey, classes = patch()
    every = Augmentation(**{field.name: Effect(1.0, getattr(Augmentation(), field.name).strength)
                            for field in fields(Augmentation)})  # fmt: skip
    one, labels = augment(grey, classes, generator(5), every, (-60, 60))
    two, labels2 = augment(grey, classes, generator(5), every, (-60, 60))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(labels, labels2)
    assert one.shape == grey.shape


def test_words_become_settings():
    how = augmentation_of(["noise=0.5:0.4", "cutout=0.2"])
    assert how.noise == Effect(0.5, 0.4)
    assert how.cutout == Effect(0.2, Augmentation().cutout.strength)
    assert how.scale == Augmentation().scale
    assert augmentation_of(["none", "shift=1"]) == replace(NO_AUGMENTATION, shift=Augmentation().shift)
    assert augmentation_of([]) == Augmentation()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("nois=1", "did you mean|noise"),
        ("noise", "cannot be understood"),
        ("noise=much", "cannot be understood"),
        ("noise=1.5", "between 0 and 1"),
        ("noise=nan", "between 0 and 1"),
        ("scale=1:0.5", "between 1 and 10"),
        ("wedge=1:80", "between 0 and 45"),
    ],
)
def test_mistakes_are_said(word, says):
    with pytest.raises(InputError, match=says):
        augmentation_of([word])


def test_normalisation_hardly_notices_gold():
    # beads of gold: far too dark, in a thousandth of the volume; mean and spread alone would follow them
    from catalogs.intensity import measure

    rng = np.random.default_rng(0)
    plain = rng.standard_normal((60, 60, 60)).astype(np.float32) * 3 + 7
    gold = plain.copy()
    gold[20:26, 20:26, 20:26] -= 400
    before, after = measure(plain), measure(gold)
    assert after.centre == pytest.approx(before.centre, abs=0.01)
    assert after.spread == pytest.approx(before.spread, rel=0.005)
    assert gold.std() > 3 * plain.std()
    elsewhere = np.ones(gold.shape, bool)
    elsewhere[20:26, 20:26, 20:26] = False
    difference = normalise(gold, after)[elsewhere] - normalise(plain, before)[elsewhere]
    assert np.abs(difference).max() < 0.02
    assert normalise(gold, after).min() == -CLIP
    assert normalise(np.array([1.0]), Intensity(centre=1, spread=2)) == 0
