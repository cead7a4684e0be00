"""A device in the place of a GPU, for the tests of it."""

from __future__ import annotations

from typing import Any

import pytest

from tlgen.simulate import devices as gpu


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put JAX's CPU in the place of a GPU."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    found = jax.devices("cpu")[0]
    monkeypatch.setattr(gpu, "of_jax", lambda asked: None if asked == "cpu" else found)
    return found
