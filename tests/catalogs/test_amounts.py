"""Times and numbers of bytes in words."""

from __future__ import annotations

import pytest

from catalogs.amounts import data_size, duration, read_data_size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (3.44, "3 s"),
        (99, "99 s"),
        (100, "2 min"),
        (6000, "1 h 40 min"),
        (7500, "2 h 05 min"),
        (9000, "2 h 30 min"),
        (400_000, "4.6 days"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bytes_are_said_in_their_units() -> None:
    assert [data_size(n) for n in (0, 900.4, 12_345, 2**20, 7e9, 3 * 2.0**40, 2.0**50)] == [
        "0 B", "900 B", "12.06 kiB", "1.00 MiB", "6.52 GiB", "3.00 TiB", "1.00 PiB",
    ]  # fmt: skip


@pytest.mark.parametrize("n_bytes", [1, 12_345, 999_600, 7e9, 3e12])
def test_bytes_in_words_can_be_given_as_settings(n_bytes: float) -> None:
    assert read_data_size(data_size(n_bytes)) == pytest.approx(n_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("4GB", 4e9),
        ("4 GiB", 2**32),
        ("800M", 8e8),
        ("1.5g", 1.5e9),
        ("2Mi", 2**21),
        ("17", 17),
        ("3kB", 3000),
    ],
)
def test_bytes_are_read_in_their_units(text: str, n_bytes: float) -> None:
    assert read_data_size(text) == n_bytes


@pytest.mark.parametrize("text", ["lots", "4 elephants", "0", "-3GB", "", "GB", "1e400"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory; give one such as 4GB"):
        read_data_size(text)
