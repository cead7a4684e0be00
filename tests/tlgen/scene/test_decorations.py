"""Decorations: distances are what packing needs, matter is what its density says, and nothing overlaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial import cKDTree

from catalogs.errors import InputError
from catalogs.schema import ClassInfo
from tlgen.scene import decoration_density
from tlgen.scene.decoration_shapes import (
    Bead,
    CarbonEdge,
    Decoration,
    Sheet,
    Vesicle,
    from_dict,
    nearest,
    to_dict,
)
from tlgen.scene.materials import BILAYER_THICKNESS, CARBON, GOLD, HEADS, TAILS, Material
from tlgen.scene.place_decorations import Decorations, class_infos, place

BOX = (300.0, 280.0, 200.0)

lengths = st.floats(20, 90)
places = st.tuples(*[st.floats(-120, 120)] * 3)
seeds = st.integers(0, 2**63 - 1)


@st.composite
def directions(draw: st.DrawFn) -> tuple[float, float, float]:
    z, azimuth = draw(st.floats(-1, 1)), draw(st.floats(0, 2 * np.pi))
    r = np.sqrt(1 - z * z)
    return (float(r * np.cos(azimuth)), float(r * np.sin(azimuth)), z)


bodies = st.one_of(
    st.builds(Bead, places, lengths, seeds),
    st.builds(Vesicle, places, st.floats(60, 120), st.floats(30, 50), seeds),
    st.builds(Sheet, places, directions(), st.floats(0, 1 / 500), st.floats(30, 50), seeds),
    st.builds(
        CarbonEdge,
        st.tuples(st.floats(-900, -700), st.floats(-50, 50)),
        st.floats(700, 900),
        st.floats(-50, 50),
        lengths,
        seeds,
    ),
)


@settings(max_examples=40, deadline=None)
@given(body=bodies, seed=st.integers(0, 1000))
def test_distance_is_that_to_the_surface(body: Decoration, seed: int) -> None:
    """No two points differ more than they are apart, and outside there is a surface just as far away."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (300, 3)) * BOX
    d = body.distance(points)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    assert (np.abs(d[:, None] - d) <= apart + 1e-6).all()
    # walking down the gradient by the distance ends on the surface
    outside = points[d > 1]
    gradient = np.stack(
        [body.distance(outside + e) - body.distance(outside - e) for e in np.eye(3) * 1e-4], 1
    )
    gradient /= 2e-4
    smooth = np.abs(np.linalg.norm(gradient, axis=1) - 1) < 1e-4  # not where two surfaces are as near
    landed = outside[smooth] - gradient[smooth] * body.distance(outside[smooth])[:, None]
    assert np.abs(body.distance(landed)).max(initial=0) < 0.02


def test_distances_by_hand() -> None:
    points = np.array([[0.0, 0, 0], [100, 0, 0], [0, 0, 70]])
    assert Bead((0, 0, 20), 50).distance(points) == pytest.approx([-30, np.hypot(100, 20) - 50, 0])
    assert Vesicle((0, 0, 0), 80, 40).distance(points) == pytest.approx([60, 0, -10])
    assert Sheet((0, 0, 10), (0, 0, 1), 0, 40).distance(points) == pytest.approx([-10, -10, 40])
    curved = Sheet((0, 0, 0), (0, 0, 1), 1 / 1000, 40)  # centre at z = 1000
    assert curved.distance(points) == pytest.approx([-20, np.hypot(1000, 100) - 1020, 50])
    film = CarbonEdge((-500, 0), 550, 0, 60)
    assert film.distance(points) == pytest.approx([50, -30, np.hypot(50, 40)])
    assert nearest((), points).min() == np.inf
    both = nearest((Bead((0, 0, 20), 50), film), points)
    assert both == pytest.approx([-30, -30, 0])


@settings(max_examples=40, deadline=None)
@given(body=bodies)
def test_a_decoration_comes_back_from_its_numbers(body: Decoration) -> None:
    import json

    assert from_dict(json.loads(json.dumps(to_dict(body)))) == body


def test_unknown_kinds_and_missing_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"'blob' is not a kind of decoration; give one of bead"):
        from_dict({"kind": "blob"})
    with pytest.raises(InputError, match=r"'bead' does not have its numbers .*radius"):
        from_dict({"kind": "bead", "centre": [0, 0, 0]})


@pytest.mark.parametrize(
    ("material", "atoms"),
    [(GOLD, 4 / 4.078**3), (CARBON, 0.1003), (HEADS, 20 / 331), (TAILS, 32 / 925)],
    ids=lambda m: m.name if isinstance(m, Material) else "",
)
def test_number_of_atoms_follows_from_density_and_formula(material: Material, atoms: float) -> None:
    assert material.atoms == pytest.approx(atoms, rel=1e-3)
    assert material.shares.sum() == pytest.approx(1)


@settings(max_examples=12, deadline=None)
@given(body=bodies)
def test_cells_and_atoms_have_the_stated_amount_of_matter(body: Decoration) -> None:
    """Both ways of filling against a Monte Carlo count of the box, layer by layer."""
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (200_000, 3)) * BOX
    depth = -body.distance(points)
    ends = [*(start for start, _ in body.layers[1:]), np.inf]
    share = [
        ((depth >= start) & (depth < end)).mean() for (start, _), end in zip(body.layers, ends, strict=True)
    ]
    expected = np.prod(BOX) * sum(
        s * material.atoms for s, (_, material) in zip(share, body.layers, strict=True)
    )
    error = 4 * np.prod(BOX) * np.sqrt(max(share) / len(points)) * 0.1  # of the count itself
    for spacing in (4.0, 2.5):
        found = decoration_density.total(body, BOX, lambda material: material.atoms, spacing)
        assert found == pytest.approx(expected, rel=0.01, abs=error)
    number = sum(len(elements) for elements, _ in decoration_density.atoms(body, BOX))
    assert number == pytest.approx(expected, rel=0.015, abs=error)
    assert decoration_density.count_atoms([body], BOX) == pytest.approx(number, rel=0.05, abs=error)


@settings(max_examples=8, deadline=None)
@given(body=bodies)
def test_atoms_lie_in_the_body_and_in_the_box_and_are_the_same_every_time(body: Decoration) -> None:
    first, again = (list(decoration_density.atoms(body, BOX)) for _ in range(2))
    for (elements, xyz), (same_elements, same_xyz) in zip(first, again, strict=True):
        assert np.array_equal(elements, same_elements)
        assert np.array_equal(xyz, same_xyz)
        assert body.distance(xyz.astype(np.float64)).max() < 1e-3
        assert (np.abs(xyz) <= np.array(BOX) / 2 + 1e-3).all()
        assert set(elements.tolist()) <= {z for _, m in body.layers for z, _ in m.formula}


def test_gold_is_a_crystal_and_carbon_is_not() -> None:
    gold = np.concatenate([xyz for _, xyz in decoration_density.atoms(Bead((5, 3, 1), 30, 8), BOX)])
    other = np.concatenate([xyz for _, xyz in decoration_density.atoms(Bead((5, 3, 1), 30, 9), BOX)])
    apart = cKDTree(gold).query(gold, k=2)[0][:, 1]
    assert apart == pytest.approx(GOLD.lattice / np.sqrt(2), abs=1e-3)
    assert len(gold) != len(other) or not np.allclose(gold, other)  # turned and shifted by the seed
    carbon = np.concatenate(
        [xyz for _, xyz in decoration_density.atoms(CarbonEdge((-900, 0), 800, 0, 40, 1), BOX)]
    )
    assert cKDTree(carbon).query(carbon, k=2)[0][:, 1].std() > 0.2


def test_heads_lie_outside_and_tails_inside_of_both_leaflets() -> None:
    body = Sheet((0, 0, 0), (0, 0, 1))
    elements, xyz = (np.concatenate(c) for c in zip(*decoration_density.atoms(body, BOX), strict=True))
    z = np.abs(xyz[:, 2])
    assert (z[elements != 6] > BILAYER_THICKNESS / 2 - 5.2).all()
    phosphorus = (elements == 15).sum() / (BOX[0] * BOX[1] * 2)
    assert 1 / phosphorus == pytest.approx(64.3, rel=0.05)  # Å² a lipid


# ---------------------------------------------------------------- placing

ALL = Decorations.model_validate(
    {
        "carbon": {"share": [0.05, 0.2]},
        "sheets": {"number": [1, 2]},
        "vesicles": {"number": 2, "radius": [100, 160]},
        "beads": {"number": 5, "radius": [20, 60]},
        "gap": 12,
    }
)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_placed_decorations_keep_their_gap_and_stay_between_the_faces(seed: int) -> None:
    box = (640.0, 600.0, 420.0)
    placed, asked = place(ALL, box, seed=seed)
    assert sum(asked.values()) >= len(placed) > 0
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (20_000, 3)) * box
    distances = np.array([body.distance(points) for body in placed])
    if len(placed) > 1:  # a point nearer than half a gap to two bodies would bring them too near
        assert np.sort(distances, axis=0)[1].min() > 12 / 2
    for body in placed:
        low, high = body.bounds()
        if body.kind != "sheet":
            assert low[2] >= -box[2] / 2 - 1e-9
            assert high[2] <= box[2] / 2 + 1e-9
        assert decoration_density.total(body, box, lambda _: 1.0) > 0
    assert place(ALL, box, seed=seed) == (placed, asked)


def test_another_seed_places_others_and_bead_numbers_do_not_move_the_vesicles() -> None:
    box = (900.0, 900.0, 420.0)
    vesicles = Decorations.model_validate({"vesicles": 2})
    both = Decorations.model_validate({"vesicles": 2, "beads": {"number": [1, 9]}})
    assert place(vesicles, box, seed=1)[0] == place(both, box, seed=1)[0][:2]
    assert place(vesicles, box, seed=1)[0] != place(vesicles, box, seed=2)[0]


def test_carbon_covers_about_the_share_that_is_asked_for() -> None:
    box = (1000.0, 800.0, 300.0)
    spec = Decorations.model_validate({"carbon": {"share": 0.2, "thickness": 120}})
    for seed in range(6):
        (film,), _ = place(spec, box, seed=seed)
        assert decoration_density.total(film, box, lambda _: 1.0) / 120 / (1000 * 800) == pytest.approx(
            0.2, abs=0.04
        )


def test_what_does_not_fit_is_left_out_and_counted_as_asked() -> None:
    spec = Decorations.model_validate({"vesicles": {"number": 12, "radius": 100}})
    placed, asked = place(spec, (400.0, 400.0, 250.0), seed=0)
    assert asked == {"membrane": 12}
    assert 0 < len(placed) < 8


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"vesicles": {"radius": 150}}, r"decorations.vesicles: the smallest needs 339 Å along z .* 200 Å"),
        ({"beads": {"radius": 101}}, "decorations.beads"),
        ({"carbon": {"thickness": 300}}, "decorations.carbon"),
    ],
)
def test_what_is_thicker_than_the_ice_is_refused(spec: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        place(Decorations.model_validate(spec), (500.0, 500.0, 200.0), seed=0)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"beads": {"radius": [60, 40]}}, "smaller end must come first"),
        ({"beads": {"radius": [1, 2, 3]}}, "at most 2 items"),
        ({"beads": {"radius": "5 kg"}}, "has an unknown unit"),
        ({"beads": {"radius": 0}}, "radius must be more than zero"),
        ({"beads": {"radius": float("inf")}}, "finite"),
        ({"beads": {"size": 3}}, "Extra inputs"),
        ({"beads": -1}, "number must be zero or more"),
        ({"sheets": {"thickness": 10}}, "head groups"),
        ({"vesicles": {"radius": 30}}, "radius must be more than thickness"),
        ({"carbon": {"number": 2}}, "one edge of carbon"),
        ({"carbon": {"share": 1.5}}, "between 0 and 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(spec: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Decorations.model_validate(spec)


def test_lengths_may_have_units_and_be_written_three_ways() -> None:
    for radius in ([40, 60], {"min": 40, "max": "6 nm"}, ["4 nm", 60]):
        spec = Decorations.model_validate({"beads": {"radius": radius, "number": 2}})
        assert spec.beads is not None
        assert spec.beads.radius == (40, 60)
    assert (
        Decorations.model_validate({"beads": 4}).beads
        == Decorations.model_validate({"beads": {"number": 4}}).beads
    )


def test_classes_of_decorations_are_not_picked_and_follow_the_targets() -> None:
    targets = [ClassInfo(name="ribosome", label=1, radius=108)]
    infos = class_infos(ALL, targets)
    assert [(i.name, i.label, i.is_particle) for i in infos] == [
        ("membrane", 2, False),
        ("gold", 3, False),
        ("carbon", 4, False),
    ]
    assert infos[1].radius == 40
    assert class_infos(Decorations.model_validate({"beads": 1}), targets)[0].label == 2
    with pytest.raises(InputError, match="class gold has the name of a decoration"):
        class_infos(ALL, [ClassInfo(name="gold", label=1, radius=5)])
    with pytest.raises(InputError, match="at most 255 classes"):
        class_infos(ALL, [ClassInfo(name="last", label=254, radius=5)])


@pytest.mark.parametrize("number", [[0, 4], (0, 4), {"min": 0, "max": 4}])
@pytest.mark.parametrize("kind", ["sheets", "vesicles", "beads"])
def test_a_count_may_be_a_range(kind: str, number: object) -> None:
    spec = getattr(Decorations.model_validate({kind: number}), kind)
    assert spec == getattr(Decorations.model_validate({kind: {"number": [0, 4]}}), kind)
    with pytest.raises(ValidationError, match="the smaller end must come first"):
        Decorations.model_validate({kind: [4, 0]})


def test_counts_of_a_range_are_all_drawn() -> None:
    spec = Decorations.model_validate({"beads": [0, 2]})
    asked = {place(spec, (2000.0, 2000.0, 2000.0), seed=seed)[1]["gold"] for seed in range(20)}
    assert asked == {0, 1, 2}
