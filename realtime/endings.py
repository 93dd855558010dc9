"""What the ending of a file's name says about it: picture, sound, film, or none that is understood here.

Only the ending is asked, so that a folder of thousands of files is sorted in no time; what a file really
holds shows when it is opened.
"""

from __future__ import annotations

import re
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")
VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
OTHER_PICTURES = {
    ".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".gif": "GIF", ".jp2": "JPEG 2000", ".jxl": "JPEG XL",
    ".svg": "SVG", ".psd": "PSD", ".dng": "raw", ".cr2": "raw", ".nef": "raw", ".arw": "raw",
}  # fmt: skip
"""Pictures that are not read in folders, and what they are called."""


def why_passed_over(path: Path, wanted: tuple[str, ...]) -> str | None:
    """Why a file in a folder is passed over, in words that can be counted; None if it is wanted."""
    ending = path.suffix.lower()
    if ending in wanted:
        return None
    if path.name.startswith("."):
        return "hidden"
    if not ending:
        return "without an ending"
    if ending in OTHER_PICTURES:
        return f"{OTHER_PICTURES[ending]} (convert it to JPEG or PNG)"
    if ending in PICTURES:
        return "pictures (predict judges them)"
    return f"{ending}, which is no picture, sound or film"


_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def names_a_file(name: str) -> bool:
    """Whether the name of a camera or microphone means a file: one that is there, or by its looks."""
    if _URL.match(name) or name.startswith("/dev/"):
        return False
    path = Path(name)
    try:
        if path.is_file() or ("/" in name and path.exists()):
            return True
    except OSError:
        return True  # it is there, and may not be looked at
    if name.startswith(("/", "./", "../")):
        return True
    return path.suffix.lower() in (*PICTURES, *SOUNDS, *VIDEOS)
