"""A disk that is full gets a sentence, from every program."""

from __future__ import annotations

import errno
import os

import pytest

from catalogs import console


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["test", "write"])
    monkeypatch.delenv("TL_DEBUG", raising=False)
    group = console.program("test", "A test.")

    @group.command()
    def write() -> None:
        raise OSError(number, os.strerror(number), "/data/m.tlm.partial/state.npz")

    with pytest.raises(SystemExit) as stopped:
        console.run(group)
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "test: the disk that holds /data/m.tlm.partial/state.npz is full; free some space and give the same "
        "command again; it will go on\n"
    )
