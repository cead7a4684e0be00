"""Every program that computes with TensorFlow on a CPU uses oneDNN, unless its user does not want it."""

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

SWITCH, LIMIT = "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA"
KERAS, OURS = ("keras", "tensorflow"), ("tltrain", "tlpick")
ROOT = Path(__file__).resolve().parents[2]

#: What TensorFlow says of itself once a package of ours has been imported.
SAID = """
import json, os, sys
import importlib
importlib.import_module(sys.argv[1])
assert "tensorflow" not in sys.modules
from tltrain.training.cards import software
print(json.dumps([os.environ["TF_ENABLE_ONEDNN_OPTS"], software()["kernels"]]))
"""


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in (SWITCH, LIMIT)}
    return kept | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""} | more


def said(package, **more):
    command = [sys.executable, "-c", SAID, package]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**more))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("package", "setting", "expected"),
    [
        ("tlpick.batch.pipeline", {}, ("1", "oneDNN on, ")),
        ("tltrain.cli", {LIMIT: "AVX2"}, ("1", "oneDNN on, at most AVX2, ")),
        ("tltrain", {SWITCH: "0"}, ("0", "oneDNN off, ")),
    ],
    ids=["as it is", "limited by the user", "switched off by the user"],
)
def test_onednn_is_on_before_tensorflow_starts(package, setting, expected):
    switch, kernels = said(package, **setting)
    assert switch == expected[0]
    assert kernels.startswith(expected[1])


def test_a_worker_computes_with_onednn(monkeypatch):
    from tlrun.child import Child
    from tltrain.training.cards import software

    for name in (SWITCH, LIMIT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    child = Child()
    try:
        answer = child.call(pickle.dumps((software, (), {})), 120)
    finally:
        child.close()
    assert answer.ok, answer.details
    assert pickle.loads(answer.blob)["kernels"].startswith("oneDNN on, ")


#: Batches with all of their changes, as a training gets them.
BATCHES = """
import hashlib, sys
from catalogs.corpus.catalog import Catalog
from tltrain.data.augment import Augmentation
from tltrain.data.stream import open_stream
catalog = Catalog.open(sys.argv[1])
records = [record for record in catalog.records() if record.split == "train"]
stream = open_stream(catalog, records, patch=24, batch=3, seed=5, augmentation=Augmentation())
for _, (grey, classes) in zip(range(6), stream.batches()):
    print(hashlib.sha256(grey.tobytes() + classes.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_patches_are_the_same_on_a_processor_that_has_avx2_only(corpus):
    """Compiled loops and NumPy's own take other instructions there; the numbers must be the same."""
    wide = [word for word in Path("/proc/cpuinfo").read_text().split() if word.startswith("avx512")]
    if not wide:
        pytest.skip("this processor has AVX2 only")
    least = {LIMIT: "AVX2", "NUMBA_CPU_NAME": "haswell"}
    least["NPY_DISABLE_CPU_FEATURES"] = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
    said = []
    for more in ({}, least):
        command = [sys.executable, "-W", "ignore", "-c", BATCHES, corpus.url]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(**more))
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    assert len(set(said[0])) == 6
    assert said[0] == said[1]


def test_benchmarks_import_our_packages_before_keras():
    """Whatever a benchmark imports first, it must be what switches oneDNN on."""
    computing = []
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        tree = ast.parse(file.read_text())
        plain = [
            (node.lineno, alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        modules = [(node.lineno, node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = [(line, str(module).partition(".")[0]) for line, module in plain + modules]
        if any(name in KERAS for _, name in names):
            computing.append(file.stem)
            line, first = min((line, name) for line, name in names if name in (*KERAS, *OURS))
            assert first in OURS, f"{file.name}, line {line}"
    assert {"train", "segment"} <= set(computing)
