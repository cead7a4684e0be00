"""Scenes in folders: nothing is lost, and what is damaged is said."""

from __future__ import annotations

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import particles
from catalogs.errors import InputError
from tlgen.molecules.molecule import Molecule
from tlgen.scene.decoration_shapes import CLASS_NAMES, Bead, CarbonEdge, Sheet, Vesicle
from tlgen.scene.scene import Scene
from tlgen.scene.scene_file import from_words, read_scene, to_words, write_scene

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
lengths = st.floats(1e-3, 1e6)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
vectors = st.tuples(numbers, numbers, numbers)
seeds = st.integers(0, 2**63 - 1)
bodies = st.one_of(
    st.builds(Bead, vectors, lengths, seeds),
    st.builds(Vesicle, vectors, lengths, lengths, seeds),
    st.builds(Sheet, vectors, vectors, numbers, lengths, seeds),
    st.builds(CarbonEdge, st.tuples(numbers, numbers), lengths, numbers, lengths, seeds),
)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    kinds, n = draw(st.integers(1, 4)), draw(st.integers(0, 6))

    def each(what: st.SearchStrategy[object]) -> tuple[object, ...]:
        return tuple(draw(st.lists(what, min_size=kinds, max_size=kinds)))

    return Scene(
        shape=draw(st.tuples(*[st.integers(1, 4096)] * 3)),
        voxel_size=draw(lengths),
        digests=each(words),
        names=each(words),
        variants=each(st.integers(-1, 99)),
        labels=each(st.integers(0, 2)),
        class_names=("a", "b", *CLASS_NAMES),
        which=np.array(draw(st.lists(st.integers(0, kinds - 1), min_size=n, max_size=n)), np.int64),
        positions=np.array(draw(st.lists(vectors, min_size=n, max_size=n)), np.float64).reshape(n, 3),
        quaternions=np.array(
            draw(st.lists(st.tuples(*[numbers] * 4).filter(turns), min_size=n, max_size=n)), np.float64
        ).reshape(n, 4),
        amplitudes=draw(st.sampled_from([(), each(st.lists(numbers, max_size=3).map(tuple))])),
        rmsds=draw(st.sampled_from([(), each(numbers)])),
        decorations=tuple(draw(st.lists(bodies, max_size=4))),
        asked=draw(st.dictionaries(words, st.integers(0, 10**6), max_size=3)),
    )


def turns(quaternion: tuple[float, ...]) -> bool:
    """Whether it is a rotation, if not of length 1."""
    return max(map(abs, quaternion)) > 1e-6


def same(a: Scene, b: Scene) -> bool:
    """Every field, arrays to the bit and type."""
    for name in Scene.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                return False
        elif left != right or type(left) is not type(right):
            return False
    return True


@settings(max_examples=60, deadline=None)
@given(scene=scenes())
def test_json_holds_every_bit(scene: Scene) -> None:
    assert same(from_words(json.loads(json.dumps(to_words(scene)))), scene)


Example = tuple[Scene, dict[str, Molecule]]


def test_a_folder_brings_scene_molecules_table_and_density_back(tmp_path: Path, example: Example) -> None:
    scene, library = example
    write_scene(scene, library, tmp_path / "scene", name="tomo-1")
    for path in (tmp_path / "scene", tmp_path / "scene" / "scene.json"):
        read, molecules = read_scene(path)
        assert same(read, scene)
        assert set(molecules) == set(library)
        for digest, molecule in library.items():
            assert molecules[digest].digest == digest
            assert np.array_equal(molecules[digest].positions, molecule.positions)

    table = particles.read(tmp_path / "scene" / "particles.star")
    expected = scene.particles("tomo-1", library)
    assert list(table["instance"]) == [1, 2, 3, 4, 5]
    assert np.allclose(table[["x", "y", "z"]], expected[["x", "y", "z"]], atol=1e-3)
    assert list(table["rmsd"]) == pytest.approx([0, 1.5, 1.5, 0, 1.5])
    assert list(table["mode_2"]) == pytest.approx([0, -0.9, -0.9, 0, -0.9])
    with mrcfile.open(tmp_path / "scene" / "density.mrc") as mrc:
        assert mrc.data.shape == (10, 15, 13)
        assert mrc.voxel_size.x == pytest.approx(16)
        # the middle of both grids is the same place
        middle = (np.array(mrc.data.shape[::-1]) - 1) / 2 * 16 + np.array(mrc.header.origin.tolist())
        assert middle == pytest.approx(scene.centre)
        gold, protein = 19.3 * 4 / 3 * np.pi * 20**3, sum(library[scene.digests[k]].mass for k in scene.which)
        assert mrc.data.sum() * 16**3 == pytest.approx(gold + protein * 1.66054, rel=0.02)


def test_a_scene_replaces_a_scene_and_nothing_else(tmp_path: Path, example: Example) -> None:
    scene, library = example
    write_scene(scene, library, tmp_path / "s")
    first = library[scene.digests[0]]
    smaller = Scene(
        scene.shape, 8.0, (first.digest,), ("one",), (-1,), (1,), ("one",),
        np.zeros(1, np.int64), np.zeros((1, 3)), np.array([[0.0, 0, 0, 1]]),
    )  # fmt: skip
    write_scene(smaller, library, tmp_path / "s")
    read, molecules = read_scene(tmp_path / "s")
    assert same(read, smaller)
    assert list(molecules) == [first.digest]

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and contains no scene"):
        write_scene(scene, library, other)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        write_scene(scene, library, other / "thesis.txt")


def test_what_is_no_scene_is_refused(tmp_path: Path, example: Example) -> None:
    with pytest.raises(InputError, match=r"there is no scene in .*nowhere; `tlgen pack"):
        read_scene(tmp_path / "nowhere")
    scene, library = example
    write_scene(scene, library, tmp_path)
    good = json.loads((tmp_path / "scene.json").read_text())
    for bad, word in (
        ("{", "damaged"),
        ("[]", "not a scene"),
        (json.dumps(good | {"scene": 99}), "version 99"),
        (json.dumps({k: v for k, v in good.items() if k != "kinds"}), "KeyError: 'kinds'"),
        (json.dumps(good | {"shape": [1, 2]}), "damaged"),
        (json.dumps(good | {"decorations": [{"kind": "star"}]}), "'star' is not a kind"),
        (json.dumps(good | {"class_names": ["one"]}), "class 'gold'"),
    ):
        (tmp_path / "scene.json").write_text(bad)
        with pytest.raises(InputError, match=word):
            read_scene(tmp_path)
    (tmp_path / "scene.json").write_text(json.dumps(good))
    next((tmp_path / "structures").iterdir()).unlink()
    _, molecules = read_scene(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        [molecules[digest] for digest in scene.digests]
