"""Conditions over samples: what they mean, and that they can do nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catalogs.corpus.conditions import rows_where
from catalogs.errors import InputError


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 60
    return pd.DataFrame(
        {
            "dose": rng.uniform(50, 150, n),
            "defocus": rng.uniform(1, 5, n),
            "seed": rng.integers(0, 9, n),
            "split": rng.choice(["train", "val", "test"], n),
            "name": [f"demo-{k:03d}" for k in range(n)],
            "dqe": rng.random(n) > 0.5,
            "contrast": pd.Series(
                [("parakeet" if k % 2 else 1.5) for k in range(n)], dtype=object
            ).to_numpy(),
            "structures": rng.choice(["4v5d,1abc", "1abc", "fas"], n),
        },
        index=pd.Index([f"{k:016x}" for k in range(n)], name="sample_id", dtype=object),
    )


@pytest.mark.parametrize(
    "where",
    [
        "dose<100 and defocus>2",
        "dose<100&defocus>2|seed==3",
        "60 < dose <= 100",
        "split in ['train','val']",
        "split not in ('train',)",
        "split == ['train', 'test']",
        'split != "train"',
        "not dqe",
        "~dqe and dqe == False",
        "-defocus < -2",
        "dose*2+1 > 200 and dose/defocus > 20",
        "seed % 2 == 0 or seed // 2 == 1",
        "seed**2 > 10",
        "abs(dose-100) < 20 and sqrt(dose) < 10.5",
        "contrast == 'parakeet' or contrast == 1.5",
        "structures.str.contains('4v5d|fas')",
        "structures.str.startswith('1') or structures.str.endswith('s')",
        "sample_id < '0000000000000010' and (dose > 80 or seed in [1, 2])",
        "index == '0000000000000003'",
        "`dose` < 100",
        "name == 'a & b' or dose<80",
        "1e2 > dose and dose == dose and dose < 1e400",
        "  not (dose < 100 and seed > 3)\n",
    ],
)
def test_they_mean_what_they_mean_to_pandas(samples: pd.DataFrame, where: str) -> None:
    expected = samples.eval(where.strip(), engine="python")
    chosen = rows_where(samples, where)
    assert chosen.index.equals(samples.index)
    assert chosen.tolist() == expected.tolist()
    assert chosen.any()


@pytest.mark.parametrize(
    "where",
    [
        "@pd.io.common.os.system('touch PWNED')",
        "name.to_csv('PWNED')",
        "dose.values.tofile('PWNED')",
        "name.str.cat(['x'])",
        "name.str.contains('x', regex=False)",
        "__import__('os').system('touch PWNED')",
        "().__class__.__base__.__subclasses__()",
        "dose.__class__",
        "[x for x in dose]",
        "(lambda: 1)()",
        "f'{dose}' == 'x'",
        "open('PWNED', 'w')",
        "dose[0] < 1",
        "(dose := 3) < 2",
        "dose = 3",
        "dose if dqe else dose",
        "split is 'train'",
        "'train' in split",
        "{'a': 1} == dose",
        "b'x' == name",
        "dose < 1j",
        "1 << 10**12 < dose",
        "'a' * 10**9 == name",
        "dose in [1, [2]]",
        "dose; name",
        "eval('1') < dose",
        "dose and dqe",
        "split < 3",
    ],
)
def test_nothing_else_is_allowed(
    samples: pd.DataFrame, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be understood"):
        rows_where(samples, where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "where",
    [
        "9**9**9**9**9 < dose",
        "10**10**10 < dose",
        "(" * 500 + "dose" + ")" * 500 + " < 1",
        "dose" + "+1" * 4000 + " > 3",
        "not " * 2000 + "dqe",
        "-" * 4000 + "dose < 1",
        "dose < " + "9" * 5000,
        "dose < 100\0",
        "\ud800 < 1",
        "name.str.contains('(a+)+$')",
        "name.str.contains('a*a*a*a*a*a*b')",
        "dose < 1 or " * 100_000 + "dose < 2",
    ],
)
def test_none_takes_long(samples: pd.DataFrame, where: str) -> None:
    began = time.process_time()
    said = ""
    try:
        rows_where(samples, where)
    except InputError as error:
        said = str(error)
    assert len(said) < 6000
    assert time.process_time() - began < 2
