"""Tilt series as Windows programs write them, and pixel sizes that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalogs.errors import InputError
from tlgen.tilts.series_files import read_series

MDOC = """PixelSpacing = 2.0
Voltage = 300
[T =     Tilt axis angle = 85.3, binning = 1  spot = 8]

[ZValue = 0]
TiltAngle = -3.0
PixelSpacing = 2.0
DateTime = 05-Mar-24  10:03:00

[ZValue = 1]
TiltAngle = 0.0
PixelSpacing = 2.0
DateTime = 05-Mar-24  10:01:00
"""
WARP = (
    '<?xml version="1.0" encoding="ENCODING"?>\n<TiltSeries><Angles>-3\n0</Angles><Dose>6\n0</Dose>'
    "<AxisAngle>85.3\n85.3</AxisAngle></TiltSeries>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings(tmp_path: Path, encoding: str, end: str) -> None:
    texts = {"a.mdoc": MDOC, "a.tlt": "-3.0\n0.0\n", "a.xml": WARP.replace("ENCODING", encoding[:6])}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
        [series] = read_series(tmp_path / name)
        assert series.angles == (-3.0, 0.0), name
    [series] = read_series(tmp_path / "a.mdoc")
    assert (series.pixel_size, series.tilt_axis, series.taken) == (2.0, 85.3, (1, 0))


def test_pixel_sizes_that_differ(tmp_path: Path) -> None:
    for text, told in (
        (
            MDOC.replace("PixelSpacing = 2.0", "PixelSpacing = 4.0", 1),
            r"pixels of 4 Å and, for the image 0, of 2 Å",
        ),
        ("4.0".join(MDOC.rsplit("2.0", 1)), r"pixels of 2 Å and, for the image 1, of 4 Å"),
    ):
        (tmp_path / "a.mdoc").write_text(text)
        with pytest.raises(InputError, match=told):
            read_series(tmp_path / "a.mdoc")
    (tmp_path / "a.mdoc").write_text(MDOC.replace("PixelSpacing = 2.0", "PixelSpacing = 0", 1))
    assert read_series(tmp_path / "a.mdoc")[0].pixel_size is None
