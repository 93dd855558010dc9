"""What does the page look like: wide and narrow, light and dark, one face and many, and when something fails?

    chromium, imagemagick; uv run --no-sync python benchmarks/page_pictures.py docs/page

A real Chromium, whose camera is a film of drawn heads, shows the page of a server in this process. Pictures
are reduced to what a document can carry; the states that say what is wrong are put on one sheet.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import film_as_devices
from numpy.typing import NDArray

from liveaffect import Analyzer, Settings
from liveaffect.realtime.acting import SCENE_S, ActingHead, tone_voice, write_wav
from liveaffect.realtime.errors import InputRefused
from liveaffect.serve import PageLedger, Served

FPS, SECONDS, STRIP_PX = 30, 25, 8
WIDE, NARROW = (1280, 860), (390, 844)
LARGEST_BYTES = 60_000
RUNS_S = 6.0
"""Until there is something on the timeline."""
DENIED = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s'); };"
SHARED = "navigator.mediaDevices.getDisplayMedia = () => navigator.mediaDevices.getUserMedia({video: true});"
OLD = (
    "globalThis.Worker = class { constructor() { setTimeout(() => this.onerror(), 300); } postMessage() {} };"
)
LOST = "() => document.getElementById('video').srcObject.getVideoTracks()[0].onended()"


class Moody(Analyzer):
    """Can be told to fail, or to say nothing any more."""

    fails = silent = False

    def push_frame(self, image: NDArray[Any], t: float, *, bgr: bool = False) -> None:
        """As told."""
        if Moody.fails:
            raise InputRefused("the face network gave nonsense; start liveaffect serve again")
        if not Moody.silent:
            super().push_frame(image, t, bgr=bgr)


def make_film(path: Path, faces: int) -> None:
    """Drawn heads, each at another moment of its scene, side by side."""
    columns = 1 if faces == 1 else 3
    size = (640 // columns, 480 // (-(-faces // columns)))
    heads = ActingHead([], (640, 480), FPS)
    with path.open("wb") as file:
        for seq in range(FPS * SECONDS):
            picture = np.full((480, 640, 3), 110, np.uint8)
            for face in range(faces):
                drawn: NDArray[Any] = heads.draw(seq + round(face * FPS * SCENE_S / 4)).copy()
                drawn[:STRIP_PX] = drawn[STRIP_PX]  # the number of the picture is not for looking at
                if faces > 1:
                    drawn = cv2.resize(drawn[:, 80:560], size, interpolation=cv2.INTER_AREA)
                x, y = face % columns * size[0], face // columns * size[1]
                picture[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
            file.write(cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    write_wav(path.with_suffix(".wav"), tone_voice(float(SECONDS)))


@contextmanager
def browser(driver: Any, film: Path) -> Iterator[Any]:
    """A Chromium with that film for a camera."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    opened = driver.chromium.launch(executable_path=program, args=film_as_devices(film))
    yield opened
    opened.close()


@contextmanager
def page_of(
    chromium: Any, served: Served, size: tuple[int, int], scheme: str, first: str = ""
) -> Iterator[Any]:
    """The page, not started."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        permissions=["camera", "microphone"],
    )
    page = context.new_page()
    if first:
        page.add_init_script(first)
    page.goto(f"http://127.0.0.1:{served.server.port}/")
    yield page
    context.close()


def start(page: Any, *, until: str = ".person") -> None:
    """Agree and begin."""
    page.check("#consent")
    page.click("#start")
    page.wait_for_selector(until, timeout=60_000)


def reduced(shot: bytes, made: Path, wide: int) -> None:
    """A PNG of few colours, as small as a document wants it."""
    with tempfile.NamedTemporaryFile(suffix=".png") as whole:
        whole.write(shot)
        whole.flush()
        for colours in (128, 64, 32):
            small = ["-filter", "Lanczos", "-resize", f"{wide}x>", "-dither", "None", "-colors", str(colours)]
            subprocess.run(["convert", whole.name, *small, "-strip", f"PNG8:{made}"], check=True)
            if made.stat().st_size <= LARGEST_BYTES:
                return
    raise SystemExit(f"{made} has {made.stat().st_size} bytes, more than {LARGEST_BYTES}")


def running(driver: Any, films: dict[int, Path], served: Served, folder: Path) -> None:
    """One face and nine, wide and narrow, light and dark."""
    for faces, film in films.items():
        with browser(driver, film) as chromium:
            for name, size, scheme in (("wide", WIDE, "light"), ("narrow", NARROW, "dark")):
                if faces > 1:
                    scheme = "dark" if name == "wide" else "light"
                with page_of(chromium, served, size, scheme) as page:
                    start(page)
                    page.keyboard.press("c")
                    page.wait_for_timeout(1000 * RUNS_S)
                    shot = page.screenshot()
                    many = "one" if faces == 1 else "many"
                    reduced(shot, folder / f"{name}-{many}-{scheme}.png", 960 if name == "wide" else 390)


def failing(driver: Any, film: Path, served: Served) -> dict[str, bytes]:
    """Every state in which something is wrong, by what is wrong."""
    shots: dict[str, bytes] = {}
    size = (640, 720)
    with browser(driver, film) as chromium:
        for error in ("NotAllowedError", "NotFoundError", "NotReadableError"):
            with page_of(chromium, served, size, "light", DENIED % error) as page:
                start(page, until="#welcome-problem:not([hidden])")
                page.locator("#welcome-problem").scroll_into_view_if_needed()
                shots[error] = page.screenshot()

        def started(name: str, then: Callable[[Any], None], wait: str, first: str = "") -> None:
            with page_of(chromium, served, size, "light", first) as page:
                if first:
                    page.check("input[name=source][value=screen]")
                start(page)
                page.wait_for_timeout(1500)
                then(page)
                page.wait_for_selector(wait, timeout=60_000)
                page.wait_for_timeout(300)
                shots[name] = page.screenshot()
            Moody.fails = Moody.silent = False

        def set_to(name: str) -> Callable[[Any], None]:
            return lambda page: setattr(Moody, name, True)

        started("unplugged", lambda page: page.evaluate(LOST), "#curtain:not([hidden])")
        started("sharing ended", lambda page: page.evaluate(LOST), "#curtain:not([hidden])", SHARED)
        with page_of(chromium, served, size, "light", OLD) as page:
            page.wait_for_selector("#welcome-problem:not([hidden])")
            page.locator("#welcome-problem").scroll_into_view_if_needed()
            shots["browser too old"] = page.screenshot()
        started("analysis ended", set_to("fails"), "#curtain:not([hidden])")
        started("no answers", set_to("silent"), "#state[data-state=wait]")
        started("paused", lambda page: page.keyboard.press("Space"), "#state[data-state=off]")
        served.sessions.ledgers |= {-1: PageLedger(), -2: PageLedger()}
        with page_of(chromium, served, size, "light") as page:
            start(page, until="#curtain-title:has-text('No place')")
            shots["third page"] = page.screenshot()
        served.sessions.ledgers.clear()
        started("program gone", lambda page: served.server.stop(), "#curtain:not([hidden])")
    return shots


def sheet(shots: dict[str, bytes]) -> bytes:
    """Three in a row, half as large."""
    read = (cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR) for shot in shots.values())
    tiles = [cv2.resize(one, (480, 540), interpolation=cv2.INTER_AREA) for one in read if one is not None]
    tiles = [
        cv2.copyMakeBorder(tile, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(150, 150, 150)) for tile in tiles
    ]
    while len(tiles) % 3:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[at : at + 3]) for at in range(0, len(tiles), 3)]
    return cv2.imencode(".png", np.vstack(rows))[1].tobytes()


def main(folder: Path) -> None:
    """All of them."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        films = {faces: Path(scratch) / f"{faces}.mjpeg" for faces in (1, 6)}
        for faces, film in films.items():
            make_film(film, faces)
        with Served(Settings(port=0, voice="small"), Moody) as served:
            running(driver, films, served, folder)
            shots = failing(driver, films[1], served)
            halves = list(shots)[:3], list(shots)[3:]
            for name, half in zip(("not-started", "failing"), halves, strict=True):
                reduced(sheet({one: shots[one] for one in half}), folder / f"{name}.png", 900)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
