"""Networks, losses and steps on other backends of Keras than TensorFlow, and on several devices."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tltrain.training.learner import slow_here

#: Two steps of the small network, and what the others predict, all from the same weights and batch.
STEP = """
import json, sys
import numpy as np
from tltrain.training.learner import Learner, Optimisation
from tltrain.networks.architectures import ARCHITECTURES, architecture
import keras
assert keras.backend.backend() == sys.argv[1]
rng = np.random.default_rng(0)
batch = rng.standard_normal((2, 8, 8, 8, 1), np.float32), rng.integers(0, 3, (2, 8, 8, 8)).astype(np.uint8)
batch[1][0, :2] = 255

def network(name):
    made = architecture(name).build(3, 0)
    rng = np.random.default_rng(1)  # a seed gives other weights on another backend
    made.set_weights([
        0.1 + rng.random(w.shape) if "variance" in w.path else rng.normal(0, 0.05, w.shape)
        for w in made.weights
    ])
    return made

found = {}
for name in ARCHITECTURES:
    answer = keras.ops.convert_to_numpy(network(name)(batch[0], training=False))
    found[name] = answer[:, ::3, ::3, ::3].ravel().astype(float).tolist()
how = Optimisation(steps=10, learning_rate=1e-3, ema=0.9, class_weights=((1, 2.0),), xla=False)
learner = Learner(lambda: network("small"), how)
found["losses"] = [learner.step(batch) for _ in range(2)]
found["weights"] = [float(np.abs(w).sum()) for w in learner.network.get_weights()]
assert learner.steps_taken == 2
print(json.dumps(found))
"""

#: A small training on two devices and on one.
SHARED = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tltrain.training.checkpoint import State
from tltrain.training.learner import Learner, Optimisation
from tltrain.training.loop import TrainingSchedule, ValidationResult, train
from tltrain.networks.architectures import architecture
from pathlib import Path

class Stream:
    batch = 4
    def batches(self, start=0):
        n = start
        while True:
            rng = np.random.default_rng(n)
            grey = rng.standard_normal((4, 8, 8, 8, 1), np.float32)
            yield grey, (grey[..., 0] > 0.5).astype(np.uint8)
            n += 1

def run(devices, steps, state, file):
    how = Optimisation(steps=4, learning_rate=1e-3, ema=0.5, devices=devices)
    learner = Learner(lambda: architecture("deepfinder").build(2, 0), how)
    judge = lambda network: ValidationResult((float(np.mean(network.predict_on_batch(grey))),))
    grey = np.zeros((2, 8, 8, 8, 1), np.float32)
    train(learner, Stream(), state, TrainingSchedule(steps, 2, 1, save_every=0.0), Path(file), validate=judge)
    return learner

one, two = State("f"), State("f")
single, double = run(1, 4, one, sys.argv[1] + "/one.npz"), run(2, 2, two, sys.argv[1] + "/two.npz")
assert (single.replicas, double.replicas) == (1, 2)
from tltrain.training import checkpoint
double = run(2, 4, checkpoint.load(Path(sys.argv[1]) / "two.npz", "f"), sys.argv[1] + "/two.npz")
whole = State("f")
straight = run(2, 4, whole, sys.argv[1] + "/whole.npz")
weights = lambda learner: [np.asarray(w) for w in learner.network.get_weights()]
print(json.dumps({
    "losses": [[row["loss"] for row in state.history] for state in (one, whole)],
    "apart": max(float(np.abs(a - b).max()) for a, b in zip(weights(single), weights(straight))),
    "moved": max(float(np.abs(a - b).max()) for a, b in
                 zip(weights(single), architecture("deepfinder").build(2, 0).get_weights())),
    "resumed_the_same": all(np.array_equal(a, b) for a, b in zip(weights(double), weights(straight))),
}))
"""


def run(code, *arguments, backend="tensorflow"):
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_step_is_the_same_on_another_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    ours, theirs = run(STEP, "tensorflow"), run(STEP, backend, backend=backend)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=2e-3, atol=2e-3, err_msg=name)


def test_jax_on_a_cpu_names_the_faster_backend(monkeypatch):
    monkeypatch.setattr("tltrain.training.learner._accelerators", lambda: 0)
    assert slow_here() == ""  # TensorFlow
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    assert "pip install 'template-learning[cpu]'" in slow_here()
    monkeypatch.setattr("tltrain.training.learner._accelerators", lambda: 1)
    assert slow_here() == ""


@pytest.mark.slow
def test_two_devices_share_a_batch(tmp_path):
    """The sum over a batch is split in two, so Dice differs a little; the steps are nearly the same."""
    found = run(SHARED, tmp_path)
    assert found["resumed_the_same"]
    np.testing.assert_allclose(found["losses"][1], found["losses"][0], rtol=0.02)
    assert found["apart"] < 0.5 * found["moved"]
