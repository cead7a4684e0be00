import os

import pytest

from catalogs.console import refuse_url, without_greetings
from catalogs.errors import InputError


@pytest.mark.parametrize("url", ["s3://bucket/picks", "s3:/bucket/picks", "gs://bucket/m.tlm"])
def test_a_bucket_is_no_place_on_a_disk(url):
    with pytest.raises(InputError, match=r"`to=.*`: this is written to a disk; give a path"):
        refuse_url(url)


@pytest.mark.parametrize("path", ["picks", "/data/picks", "a:b", "file:///data/picks", "C:/picks"])
def test_paths_are_places_on_a_disk(path):
    refuse_url(path)


def test_notes_are_dropped_and_all_else_is_passed_on(capfd):
    with without_greetings():
        os.write(2, b"I0000 port.cc] oneDNN custom operations are on. You may see slightly different\n")
        os.write(2, b"W0000 no GPU was found\n")
    assert capfd.readouterr().err == "W0000 no GPU was found\n"


def test_an_error_is_not_swallowed(capfd):
    def break_down():
        with without_greetings():
            os.write(2, b"libsomething.so: not found\n")
            raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"):
        break_down()
    assert capfd.readouterr().err == "libsomething.so: not found\n"
