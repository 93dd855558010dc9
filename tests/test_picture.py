"""A picture file comes out upright, or is refused by its name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from liveaffect.realtime.errors import SourceError, SourceRefused
from liveaffect.realtime.replay import load_picture


def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40] = 255
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    # One entry of the first directory: tag 0x0112, a short, one of it, 6 (turn it clockwise by a quarter).
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    upright = load_picture(path)
    assert upright.shape == (80, 40, 3)
    assert upright[:36].min() > 200, "the white half, which lay on the left, is above"
    assert upright[44:].max() < 50


@pytest.mark.parametrize("content", [b"", b"this is no picture"])
def test_a_picture_without_a_picture_in_it_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "me.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"me.jpg' is no picture"):
        load_picture(path)


def test_a_picture_that_may_not_be_read_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "me.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SourceRefused, match=r"me.jpg' cannot be read: Permission denied"):
        load_picture(path)
