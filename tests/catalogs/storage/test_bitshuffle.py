"""Chunks come out as Blosc itself decompresses them, whatever they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Blosc, blosc

from catalogs.storage import shards
from catalogs.storage.bitshuffle import is_shuffled


def compressed(values: np.ndarray[Any, Any], **options: Any) -> np.ndarray[Any, Any]:
    codec = Blosc(**{"cname": "lz4", "clevel": 5, "shuffle": Blosc.BITSHUFFLE} | options)
    return np.frombuffer(bytearray(codec.encode(values)), np.uint8)


def decoded(raw: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.full(like.nbytes, 170, np.uint8)
    shards._decode_blosc(raw.copy(), out)
    np.testing.assert_array_equal(out, np.frombuffer(blosc.decompress(raw), np.uint8))
    return out.view(like.dtype)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([8192, 8192 * 3, 64**3, 64**3 + 8192, 5000]),
    st.sampled_from([0, 8192 * 4, 8192 * 4 * 2, 1000]),
    st.sampled_from([1, 5, 9]),
)
def test_any_values_come_out_again(seed: int, n: int, block: int, level: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, n, np.uint32)
    for mask in (0xFFFFFFFF, 0xFFFFE000, 0x00010000, 0x80000001):
        values = bits & np.uint32(mask)
        raw = compressed(values, blocksize=block, clevel=level)
        np.testing.assert_array_equal(decoded(raw, values), values)


def test_what_a_corpus_holds_is_decoded_here_and_other_things_by_blosc() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((64, 64, 64), np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)
    raw = compressed(values)
    assert is_shuffled(raw)
    np.testing.assert_array_equal(decoded(raw, values), values.ravel())
    for other in (
        compressed(values, shuffle=Blosc.SHUFFLE),
        compressed(values, shuffle=Blosc.NOSHUFFLE),
        compressed(values.astype(np.float64)),
        compressed(rng.integers(0, 2**32, 64**3, np.uint32)),  # cannot be compressed: a copy
        compressed(values[:1, :1]),  # too small
    ):
        assert not is_shuffled(other)
        decoded(other, np.frombuffer(blosc.decompress(other), np.uint8))


def test_what_is_no_chunk_is_refused() -> None:
    raw = compressed(np.zeros(64**3, np.float32))
    with pytest.raises((RuntimeError, ValueError)):
        shards._decode_blosc(raw[:20].copy(), np.empty(4 * 64**3, np.uint8))
