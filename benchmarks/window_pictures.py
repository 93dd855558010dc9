"""What does the window look like on screens of four sizes?

    xvfb, imagemagick; python benchmarks/window_pictures.py docs/window

Opens the window of a live run on a screen of its own, with a camera of the screen's own size and three drawn
people, and takes a picture of the whole screen, reduced to what a page can carry.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from liveaffect.realtime.clock import MonotonicClock
from liveaffect.realtime.overlay import lay_out, paint
from liveaffect.realtime.sinks.window import WindowSink
from liveaffect.realtime.testing.scenes import crowd

SCREENS = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
PAGE_PX = 960
LARGEST_BYTES = 60_000
SHOWN_S = 2


def show(width: int, height: int, shot: str) -> None:
    """The window with the picture of one camera, on the screen of this process; that screen into a file."""
    window, view, clock = WindowSink(), crowd(width, height, 3), MonotonicClock()
    window.on_key = {"m": lambda: None, "l": lambda: None}
    while clock.now_ns() < SHOWN_S * 1_000_000_000:
        scale = window.text_scale(view.frame.source)
        window.show(paint(view, lay_out(view, text_scale=scale)), view.frame)
    subprocess.run(["import", "-window", "root", shot], check=True)
    window.close()


def main(folder: Path) -> None:
    """Every screen into a PNG of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for width, height in SCREENS:
            size, shot = f"{width}x{height}", f"{scratch}/shot.png"
            on = ["xvfb-run", "-a", "-s", f"-screen 0 {size}x24", sys.executable, __file__]
            subprocess.run([*on, str(width), str(height), shot], check=True)
            made = folder / f"{size}.png"
            small = ["-filter", "Lanczos", "-resize", f"{PAGE_PX}>", "-dither", "None", "-colors", "96"]
            subprocess.run(["convert", shot, *small, "-strip", f"PNG8:{made}"], check=True)
            if made.stat().st_size > LARGEST_BYTES:
                raise SystemExit(f"{made} has {made.stat().st_size} bytes, more than {LARGEST_BYTES}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        show(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]))
