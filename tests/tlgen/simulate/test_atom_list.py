"""MULTEM's list of atoms, filled through memory: the same as from tuples."""

import multem
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlgen.simulate import atom_list as module
from tlgen.simulate.atom_list import Body, atom_list


def body(number: int, seed: int) -> Body:
    rng = np.random.default_rng(seed)
    elements = rng.integers(1, 99, number).astype(np.uint8)
    xyz = rng.uniform(-1e4, 1e4, (number, 3)).astype(np.float32)
    return elements, xyz, rng.uniform(0, 2, number).astype(np.float32)


def as_tuples(bodies: list[Body]) -> list[tuple[float, ...]]:
    """What MULTEM is documented to take: element, x, y, z, sigma, occupancy, region, charge."""
    return [
        (z, *place, 0.0, o, 0, 0)
        for elements, xyz, occupancy in bodies
        for z, place, o in zip(elements.tolist(), xyz.tolist(), occupancy.tolist(), strict=True)
    ]


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.integers(0, 40), max_size=5), portion=st.sampled_from([1, 2, 8, 16]))
def test_same_as_tuples(numbers: list[int], portion: int) -> None:
    """Whole, half and empty portions, in one body and in many; none lost, none twice, none out of order."""
    bodies = [body(n, seed) for seed, n in enumerate(numbers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_A_TIME", portion)
        found = atom_list(iter(bodies))
    assert isinstance(found, multem.AtomList)
    assert list(found) == list(multem.AtomList(as_tuples(bodies))) == as_tuples(bodies)


def test_more_than_a_portion() -> None:
    bodies = [body(20_000, 1), body(3, 2), body(8_192, 3)]
    found, expected = atom_list(bodies), as_tuples(bodies)
    assert len(found) == len(expected)
    for k in (0, 8_191, 8_192, 19_999, 20_000, 20_002, 20_003, len(expected) - 1):
        assert found[k] == expected[k]


def test_one_atom_for_all_occupancies() -> None:
    elements, xyz, _ = body(5, 1)
    found = atom_list([(elements, xyz, np.broadcast_to(np.float32(1), 5))])
    assert [atom[5] for atom in found] == [1.0] * 5


@pytest.mark.parametrize("other", ["structure", "object"])
def test_another_build_is_refused(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than filling memory that is laid out otherwise."""
    if other == "structure":
        monkeypatch.setattr(module, "_ATOM", np.dtype([(name, np.float64) for name in "zxyabcd"]))
    else:
        monkeypatch.setattr(multem, "AtomList", lambda atoms: tuple(atoms))
    module._check_layout.cache_clear()
    with pytest.raises(RuntimeError, match=r"0\.4\.1; run `make setup`"):
        atom_list([body(3, 1)])
    monkeypatch.undo()
    assert len(atom_list([body(3, 1)])) == 3
