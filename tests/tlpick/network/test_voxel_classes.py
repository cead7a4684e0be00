"""Probabilities and classes of voxels: right, and the same wherever a voxel lies in an array."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.schema import ClassInfo
from catalogs.seeds import generator
from catalogs.threads import allowed_threads, pool
from tlpick.network.voxel_classes import Rule, add_probabilities


def answer(classes: int, shape: tuple[int, int, int] = (5, 7, 61)) -> NDArray[np.float32]:
    spread = generator("spread", classes).choice([1.0, 5.0, 60.0], (*shape, 1))
    return (generator("answer", classes).normal(size=(*shape, classes)) * spread).astype(np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_probabilities_are_those_of_a_softmax(classes: int) -> None:
    logits = answer(classes)
    added = np.ones_like(logits)
    add_probabilities(logits, True, added)
    np.testing.assert_allclose(added - 1, softmax(logits), rtol=0, atol=4e-7)
    added = np.zeros_like(logits)
    add_probabilities(logits, True, added)
    exact = softmax(logits)
    likely = exact > 1e-30
    np.testing.assert_allclose(added[likely], exact[likely], rtol=1e-5)
    given = np.zeros_like(logits)
    add_probabilities(added, False, given)
    np.testing.assert_array_equal(given, added)


@pytest.mark.parametrize("logits", [True, False])
def test_a_voxel_is_the_same_wherever_it_lies(logits: bool) -> None:
    said = answer(3) if logits else softmax(answer(3)).astype(np.float32)
    rule = Rule([ClassInfo(name=f"c{k}", label=k, radius=10.0) for k in (1, 2)], {"c2": 0.4})
    labels, score = (np.zeros(said.shape[:3], np.uint8) for _ in range(2))
    rule.decide(said, logits, labels, score)
    for x in range(said.shape[2]):
        one, of_one = (np.zeros((*said.shape[:2], 1), np.uint8) for _ in range(2))
        rule.decide(said[:, :, x : x + 1], logits, one, of_one)
        np.testing.assert_array_equal(one[..., 0], labels[..., x])
        np.testing.assert_array_equal(of_one[..., 0], score[..., x])


def test_the_likeliest_class_counts_or_its_threshold_decides() -> None:
    said = softmax(answer(4))
    labels, score = (np.zeros(said.shape[:3], np.uint8) for _ in range(2))
    classes = [ClassInfo(name=f"c{k}", label=k, radius=10.0) for k in (9, 2, 5)]
    Rule(classes, {"c5": 0.9}).decide(said.astype(np.float32), False, labels, score)
    likeliest, highest = said[..., 1:].argmax(axis=-1), said[..., 1:].max(axis=-1)
    bar = np.where(likeliest == 1, 0.9, said[..., 0])
    np.testing.assert_array_equal(labels, np.where(highest >= bar, np.array([2, 5, 9])[likeliest], 0))
    assert np.abs(score - 255 * highest).max() <= 0.501
    assert {0, 2, 5, 9} == set(np.unique(labels))


def test_what_is_no_number_is_background() -> None:
    said = np.full((1, 1, 20, 2), np.nan, np.float32)
    labels, score = (np.full((1, 1, 20), 7, np.uint8) for _ in range(2))
    Rule([ClassInfo(name="a", label=1, radius=10.0)], {"a": 0.5}).decide(said, True, labels, score)
    assert not labels.any()
    assert not score.any()


def test_threads_share_the_pieces_and_tell_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert allowed_threads() == 3
    done = np.zeros(10, int)

    def work(part: slice) -> None:
        assert part.stop - part.start <= 4
        done[part] += 1

    def fail(part: slice) -> None:
        raise ZeroDivisionError(f"in {part}")

    with pool() as threads:
        threads.begin(10, work)
        threads.begin(0, work)
        threads.begin(10, fail)
        with pytest.raises(ZeroDivisionError):
            threads.finish()
        threads.finish()
        assert list(threads.map(abs, [-3, 2])) == [3, 2]
    assert (done == 1).all()
