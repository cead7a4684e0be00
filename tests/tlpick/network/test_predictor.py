"""A network predicts whole volumes while it is trained, whatever it is compiled with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalogs.seeds import generator
from tlpick.network.model import predictor


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_network_in_training_predicts_with_its_weights_of_this_moment(policy: str) -> None:
    import keras
    from keras import ops

    def loss(truth: Any, said: Any) -> Any:  # which Keras cannot make anew from its name
        return ops.mean((truth - said) ** 2)

    entry = keras.Input((None, None, None, 1))
    hidden = keras.layers.Conv3D(4, 3, padding="same", dtype=policy)(entry)
    hidden = keras.layers.BatchNormalization(dtype=policy)(hidden)
    out = keras.layers.Conv3D(2, 1, activation="softmax", dtype="float32")(hidden)
    network = keras.Model(entry, out)
    network.compile(optimizer="sgd", loss=loss)
    rng = generator("predictor", policy)
    for weight in network.weights:
        weight.assign(np.abs(rng.normal(1, 0.3, weight.shape)))

    volume = rng.normal(size=(8, 12, 10)).astype(np.float32)
    found = np.full((*volume.shape, 2), np.nan, np.float32)
    for box, probabilities in predictor(network)(volume):
        found[box] = probabilities
    whole = np.asarray(network(volume[np.newaxis, ..., np.newaxis], training=False))[0]
    np.testing.assert_allclose(found, whole, atol=1e-5 if policy == "float32" else 0.05)
    assert network.compiled
    assert network.layers[1].compute_dtype == policy.removeprefix("mixed_")
