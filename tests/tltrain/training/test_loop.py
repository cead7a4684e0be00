"""The loop with a network of a few weights: what it remembers, when it stops, that it goes on to the bit."""

import itertools
import os
import signal

import numpy as np
import pytest

from catalogs.errors import InputError
from tltrain.training import checkpoint
from tltrain.training.checkpoint import State
from tltrain.training.learner import Learner, Optimisation
from tltrain.training.loop import TrainingSchedule, ValidationResult, train


class Dots:
    """A stream: batch n depends on n; the class of a voxel is whether it is bright."""

    batch = 2

    def batches(self, start=0):
        for n in itertools.count(start):
            grey = np.random.default_rng(n).standard_normal((2, 8, 8, 8, 1)).astype(np.float32)
            yield grey, (grey[..., 0] > 0.5).astype(np.uint8)


def tiny():
    import keras

    entry = keras.Input((None, None, None, 1))
    x = keras.layers.Conv3D(4, 3, padding="same", kernel_initializer=keras.initializers.HeNormal(seed=1))(
        entry
    )
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    start = keras.initializers.HeNormal(seed=2)
    out = keras.layers.Conv3D(2, 1, activation="softmax", kernel_initializer=start, dtype="float32")(x)
    return keras.Model(entry, out)


def learner(**how):
    return Learner(tiny, Optimisation(**({"steps": 20, "learning_rate": 0.02} | how)))


def schedule(steps=20, **options):
    return TrainingSchedule(
        **({"steps": steps, "validate_every": 4, "record_every": 2, "save_every": 1e9} | options)
    )


def judge(values):
    """Validation that finds given scores, one after the other."""
    left = iter(values)
    return lambda network: ValidationResult((next(left),), "ok", {"f1": {"a": 0.5}})


def weights_of(state):
    return [*state.variables, *state.optimizer, *state.best]


def assert_equal(one, two):
    for a, b in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_array_equal(a, b)
    for state in (one, two):
        for row in state.history:
            row.pop("seconds", None)
    assert one.history == two.history
    assert (one.step, one.best_step, one.best_score, one.stale) == (
        two.step,
        two.best_step,
        two.best_score,
        two.stale,
    )


def test_the_history_holds_means_of_the_steps_between(tmp_path):
    state, rows = State("f"), []
    one = learner()
    losses = []
    step = one.step
    one.step = lambda batch: losses.append(step(batch)) or losses[-1]
    train(one, Dots(), state, schedule(6), tmp_path / "s.npz", watch=[lambda s: rows.append(s.history[-1])])
    assert [row["step"] for row in state.history] == [2, 4, 6]
    assert [row["loss"] for row in state.history] == pytest.approx(np.reshape(losses, (3, 2)).mean(axis=1))
    assert rows == state.history
    assert state.history[0]["learning_rate"] > 0
    assert losses[-1] < losses[0]


def test_the_best_network_is_kept(tmp_path):
    state, seen = State("f"), []

    def validate(network):
        seen.append(checkpoint.values(network.variables))
        return ValidationResult(((0.1, 0.7), (0.5, 0.1), (0.5, 0.2), (0.4, 0.9), (0.5, 0.1))[len(seen) - 1])

    train(learner(), Dots(), state, schedule(), tmp_path / "s.npz", validate=validate)
    assert (state.best_step, state.best_score) == (12, [0.5, 0.2])
    for a, b in zip(state.best, seen[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_latest_within_a_standard_error_of_the_largest_score_is_kept(tmp_path):
    state, seen = State("f"), []
    found = ((0.5, 0.1), (0.80, 0.3), (0.77, 0.2), (0.74, 0.9), (0.76, 0.1))

    def validate(network):
        seen.append(checkpoint.values(network.variables))
        return ValidationResult(found[len(seen) - 1], error=0.05)

    train(learner(), Dots(), state, schedule(), tmp_path / "s.npz", validate=validate)
    assert (state.best_score, state.top_score, state.top_error) == ([0.76, 0.1], [0.8, 0.3], 0.05)
    assert state.stale == 3
    for a, b in zip(state.best, seen[4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_stops_when_nothing_gets_better(tmp_path):
    state = State("f")
    values = [0.1, 0.5, 0.5, 0.4, 0.9]  # as good is not better
    train(learner(), Dots(), state, schedule(patience=2), tmp_path / "s.npz", validate=judge(values))
    assert state.step == 16
    assert state.stopped == "no better score in 2 validations"
    assert state.best_step == 12  # of equals the later one
    again = checkpoint.load(tmp_path / "s.npz", "f")
    progress = train(learner(), Dots(), again, schedule(patience=2), tmp_path / "s.npz", validate=judge([]))
    assert again.step == 16
    assert progress.first == 16


def test_a_validation_may_end_it(tmp_path):
    state = State("f")
    train(
        learner(), Dots(), state, schedule(), tmp_path / "s.npz",
        validate=lambda _: ValidationResult((0.0,), stop="what was known is being forgotten"),
    )  # fmt: skip
    assert (state.step, state.stopped) == (4, "what was known is being forgotten")


def test_what_counted_before_the_first_step_is_the_one_to_beat(tmp_path):
    """As in fine-tuning: the model as it was stays the best one if the first network has forgotten much."""
    state = State("f")
    state.best_score = [0.6]
    train(
        learner(), Dots(), state, schedule(), tmp_path / "s.npz",
        validate=lambda _: ValidationResult((-1.0,), stop="it forgets"),
    )  # fmt: skip
    assert (state.step, state.best_step, state.best_score, state.best) == (4, 0, [0.6], [])


@pytest.mark.parametrize("how", [{}, {"ema": 0.8, "class_weights": ((1, 2.0),)}])
def test_interrupted_again_and_again_it_ends_the_same(tmp_path, how):
    scores = [0.3, 0.5, 0.4, 0.6, 0.1]
    whole = State("f")
    train(learner(**how), Dots(), whole, schedule(), tmp_path / "whole.npz", validate=judge(scores))
    whole = checkpoint.load(tmp_path / "whole.npz", "f")
    assert whole.step == 16  # the best; the last step was not better

    file, parts = tmp_path / "parts.npz", State("f")
    for stop in (3, 4, 11, 17):  # before, at and after validations

        def interrupt(state, stop=stop):
            if state.step >= stop:
                os.kill(os.getpid(), signal.SIGTERM)

        done = parts.step // 4
        with pytest.raises(KeyboardInterrupt):
            train(
                learner(**how), Dots(), parts, schedule(record_every=1), file,
                validate=judge(scores[done:]), watch=[interrupt],
            )  # fmt: skip
        parts = checkpoint.load(file, "f")
        assert parts.step == stop
    train(
        learner(**how),
        Dots(),
        parts,
        schedule(record_every=1, save_every=0),
        file,
        validate=judge(scores[4:]),
    )
    parts, last = checkpoint.load(file, "f"), State("f")
    train(
        learner(**how), Dots(), last, schedule(record_every=1, save_every=0), tmp_path / "last.npz",
        validate=judge(scores),
    )  # fmt: skip
    assert_equal(parts, checkpoint.load(tmp_path / "last.npz", "f"))


def test_the_average_is_judged_and_the_weights_go_on(tmp_path):
    """With momentum m the average after a step is m old + (1 - m) new, from the first step's on."""
    one = learner(ema=0.75)
    stream = Dots().batches()
    one.step(next(stream))
    first = checkpoint.values(one.network.trainable_variables)
    one.step(next(stream))
    second = checkpoint.values(one.network.trainable_variables)
    with one.averaged() as network:
        for value, a, b in zip(checkpoint.values(network.trainable_variables), first, second, strict=True):
            np.testing.assert_allclose(value, 0.75 * a + 0.25 * b, atol=1e-6)
    for value, b in zip(checkpoint.values(one.network.trainable_variables), second, strict=True):
        np.testing.assert_array_equal(value, b)


def test_the_learning_rate_rises_and_falls():
    one = learner(steps=100, learning_rate=0.1)
    rates = []
    for batch in itertools.islice(Dots().batches(), 30):
        rates.append(one.learning_rate)
        one.step(batch)
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates.index(max(rates)) == 10
    assert rates[-1] < 0.095


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_any_precision_learns_and_keeps_its_weights_in_float32(precision):
    one = learner(precision=precision)
    losses = [one.step(batch) for batch in itertools.islice(Dots().batches(), 12)]
    assert losses[-1] < losses[0]
    assert {str(v.dtype) for v in one.network.trainable_variables} == {"float32"}
    assert one.network.layers[1].compute_dtype == {"float32": "float32", "bf16": "bfloat16"}[precision]
    assert one.network.output.dtype == "float32"


def test_fp16_scales_its_loss():
    import keras

    one = learner(precision="fp16")
    assert isinstance(one.network.optimizer, keras.optimizers.LossScaleOptimizer)
    assert one.network.layers[1].compute_dtype == "float16"
    assert keras.config.dtype_policy().name == "float32"  # it was only for this network


def test_xla_takes_the_same_steps():
    """A compiled step rounds in another order, but learns the same."""
    plain, compiled = learner(xla=False), learner(xla=True)
    assert compiled.network.jit_compile
    assert not plain.network.jit_compile
    for batch in itertools.islice(Dots().batches(), 3):
        assert compiled.step(batch) == pytest.approx(plain.step(batch), rel=1e-4)


def test_gradients_are_clipped():
    """A step of AdamW does not depend on the gradients' scale, its moments do."""
    one = Learner(tiny, Optimisation(steps=20, learning_rate=0.02, clip=1e-3))
    one.step(next(Dots().batches()))
    moments = [v for v in one.network.optimizer.variables if "momentum" in v.path]
    norm = np.sqrt(sum((np.asarray(v.value) ** 2).sum() for v in moments))
    assert norm == pytest.approx(0.1 * 1e-3, rel=1e-3)  # beta_1 is 0.9


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"precision": "double"}, "`precision` is 'double'"),
        ({"devices": 64}, "`devices` is 64; this machine has"),
        ({"loss": "mse"}, "there is no loss 'mse'"),
    ],
)
def test_what_cannot_be_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        learner(**how)
