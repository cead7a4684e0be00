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
