"""The page in a real browser with a film for a camera: answers belong to their picture, nothing complains."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect import Analyzer, Settings
from liveaffect.realtime.acting import ActingHead, tone_voice, write_wav
from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.clock import MS
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.portrait import read_stamp
from liveaffect.realtime.sinks.files import COLUMNS
from liveaffect.realtime.sinks.web import WebSink
from liveaffect.realtime.testing.scenes import background, cue, frame
from liveaffect.serve import Served

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to show the page"),
]
FPS, PICTURES = 30, 300
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
WAIT_MS = 40_000
# The page's own film is read off its <video>: the same strip of cells that the picture carries, cell by cell.
READ_NUMBER = """() => {
  const video = document.getElementById('video');
  const canvas = new OffscreenCanvas(640, 4);
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  pen.drawImage(video, 0, 0, 640, 480, 0, 0, 640, 480);
  const s = liveaffect.nowS();
  return [s, liveaffect.shownS, Array.from(pen.getImageData(0, 1, 448, 2).data)];
}"""


class Watched(Analyzer):
    """Notes which picture of the film came under which time."""

    seen: dict[float, int] = {}  # noqa: RUF012  one for all, because the server makes the object

    def push_frame(self, image: NDArray[Any], t: float, *, bgr: bool = False) -> None:
        """Also analyse it."""
        stamp = read_stamp(np.asarray(image, np.uint8))
        if stamp is not None:
            self.seen[round(t, 6)] = stamp[0]
        super().push_frame(image, t, bgr=bgr)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of a drawn head whose pictures carry their number, and a voice."""
    folder = tmp_path_factory.mktemp("film")
    heads = ActingHead([], (640, 480), FPS)
    with open(folder / "camera.mjpeg", "wb") as file:
        for seq in range(PICTURES):
            _, jpeg = cv2.imencode(".jpg", heads.draw(seq)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            file.write(jpeg.tobytes())
    write_wav(folder / "voice.wav", tone_voice(10.0))
    return folder


@pytest.fixture
def served() -> Iterator[Served]:
    try:
        model_path(FULL_RANGE)
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    Watched.seen.clear()
    with Served(Settings(port=0, voice="small"), Watched) as served:
        yield served


@pytest.fixture(scope="module")
def browser(film: Path) -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={film / 'camera.mjpeg'}",
                f"--use-file-for-fake-audio-capture={film / 'voice.wav'}",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, served: Served, *, shape: str = "desktop", scheme: str = "light") -> Iterator[Any]:
    """The page, watched for complaints."""
    width, height = SIZES[shape]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera", "microphone"]
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda line: said.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(f"http://127.0.0.1:{served.server.port}/")
    yield page
    context.close()
    assert said == []


def start(page: Any) -> None:
    """Agree and begin; returns when answers are drawn."""
    page.check("#consent")
    page.click("#start")
    page.wait_for_selector("#state[data-state=live]", timeout=WAIT_MS)
    page.wait_for_selector(".person", timeout=WAIT_MS)


def number_of(cells: list[int]) -> int | None:
    """What the strip on the page says."""
    rows = np.asarray(cells, np.uint8).reshape(2, 448, 4)[:, :, :3]
    strip = np.repeat(rows[:1], 4, axis=0)
    stamp = read_stamp(strip)
    return None if stamp is None else stamp[0]


def test_an_answer_is_about_the_picture_whose_number_the_page_shows(browser: Any, served: Served) -> None:
    """What was captured at a time is what the page's own video shows then; boxes stand at the face."""
    with opened(browser, served) as page:
        start(page)
        shown = []
        for _ in range(12):
            s, shown_s, cells = page.evaluate(READ_NUMBER)
            shown.append((s, shown_s, number_of(cells)))
            page.wait_for_timeout(150)
        health, answer = page.evaluate("() => [liveaffect.health, liveaffect.answer]")
        page.wait_for_timeout(300)
    sent = sorted(Watched.seen.items())
    assert len(sent) > 10, f"too few pictures came: {len(sent)}, {health}"
    assert health["samples"] > 16_000, "no sound came"
    times = np.array([t for t, _ in sent])
    off = []
    for s, _, number in shown:
        # Of the picture that was captured nearest to what is shown, carried on to it at the film's own pace.
        nearest = int(np.argmin(np.abs(times - s)))
        if number is not None and abs(times[nearest] - s) < 2.0:
            expected = sent[nearest][1] + round((s - times[nearest]) * FPS)
            off.append((expected - number + PICTURES // 2) % PICTURES - PICTURES // 2)
    assert len(off) >= 5, f"hardly a number could be read off the page: {shown}"
    # How long a picture waits in the browser before it is on the screen: some, always after it was captured.
    assert -3 <= np.median(off) <= 8, f"pictures between what is shown and what was sent: {off}"
    number = Watched.seen[answer["t"]]
    heads = ActingHead([], (640, 480), FPS)
    centre = heads.truth(number)[0] @ [240.0, 250.0, 1.0]
    x, y, width, height = answer["faces"][0]["box"]
    assert x < centre[0] < x + width
    assert y < centre[1] < y + height
    assert answer["cues"][0]["label"] in ("neutral", "happy", "sad", "angry", "surprised", "not sure")


def test_every_control_works_from_the_keyboard_and_what_is_recorded_is_the_documented_cue(
    browser: Any, served: Served
) -> None:
    with opened(browser, served) as page:
        start(page)
        page.keyboard.press("m")
        assert page.get_attribute("#mirror", "aria-pressed") == "true"
        page.keyboard.press("c")
        page.wait_for_selector("#captions:not(:empty)")
        assert "Person" in page.inner_text("#captions")
        page.keyboard.press("r")
        page.wait_for_timeout(2500)
        page.keyboard.press("r")
        with page.expect_download() as saving:
            page.click("#save-jsonl")
        lines = Path(saving.value.path()).read_text("utf-8").splitlines()
        with page.expect_download() as saving:
            page.click("#save-csv")
        table = Path(saving.value.path()).read_text("utf-8").splitlines()
        page.keyboard.press("d")
        assert page.locator("#camera option").count() >= 1
        page.keyboard.press("Space")
        page.wait_for_selector("#state[data-state=off]")
        assert page.inner_text("#pause") == "Go on"
        page.keyboard.press("Space")
        page.wait_for_selector("#state[data-state=live]", timeout=WAIT_MS)
        page.keyboard.press("?")
        page.keyboard.press("Escape")
        page.keyboard.press("s")
        assert page.is_visible("#welcome")
        assert page.is_disabled("#start")
    schema = (Path(__file__).resolve().parent.parent / "docs" / "cue.md").read_text("utf-8")
    schema = schema.split("## Schema\n\n```json\n")[1].split("```")[0]
    assert lines
    for line in lines:
        jsonschema.validate(json.loads(line), json.loads(schema))
    assert table[0] == ",".join(COLUMNS)
    assert len(table) == len(lines) + 1


@pytest.mark.parametrize(("shape", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_nothing_is_in_the_way_of_anybody(browser: Any, served: Served, shape: str, scheme: str) -> None:
    """axe finds nothing, before and after the start, and nothing is wider than the window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    with opened(browser, served, shape=shape, scheme=scheme) as page:
        for step in ("welcome", "run"):
            if step == "run":
                start(page)
                page.keyboard.press("d")
            found = axe.Axe().run(page, options=rules)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_third_page_and_a_program_that_ended_are_said_on_the_page(browser: Any, served: Served) -> None:
    with opened(browser, served) as page:
        served.sessions._most = 0
        page.check("#consent")
        page.click("#start")
        page.wait_for_selector("#curtain-title:has-text('No place for a third page')", timeout=WAIT_MS)
        served.sessions._most = 2
        page.click("#curtain-again")
        page.wait_for_selector("#state[data-state=live]", timeout=WAIT_MS)


def test_without_consent_nothing_is_asked_of_the_browser(browser: Any, served: Served) -> None:
    with opened(browser, served) as page:
        assert page.is_disabled("#start")
        page.wait_for_timeout(300)
        assert page.evaluate("() => document.getElementById('video').srcObject") is None
    assert Watched.seen == {}


@pytest.fixture
def sink() -> Iterator[WebSink]:
    """The analyser's own camera: a grid point and a drawn picture every 50 ms."""
    sink, over = WebSink("ws://127.0.0.1:0"), threading.Event()

    def run() -> None:
        t_ns = 0
        while not over.wait(0.05):
            t_ns += 50 * MS
            sink.tell([replace(cue("happy", t_ns=t_ns), source="camera:0")])
            if sink.wants_pictures:
                picture = background(640, 480)
                sink.show(picture, frame(picture))

    teller = threading.Thread(target=run)
    teller.start()
    yield sink
    over.set()
    teller.join()
    sink.close()


def test_obs_gets_boxes_on_nothing_or_the_whole_picture(browser: Any, sink: WebSink) -> None:
    """Transparent where nothing is drawn, a box where the cue has one; or the picture itself."""
    page = browser.new_page(viewport={"width": 640, "height": 480})
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://127.0.0.1:{sink.port}/overlay?transparent=1&corner=tr")
    inked, alpha = 0, np.zeros((480, 640))
    for _ in range(100):
        page.wait_for_timeout(100)
        shot = cv2.imdecode(
            np.frombuffer(page.screenshot(omit_background=True), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert shot is not None
        alpha = shot[:, :, 3].astype(float)
        inked = int(np.count_nonzero(alpha[100:230, 198:330]))
        if inked:
            break
    assert inked > 300, "no box was drawn"
    assert np.count_nonzero(alpha[300:]) == 0, "something is drawn where nobody is"
    assert np.count_nonzero(alpha[:60, 320:]) > 500, "the mark is missing"
    page.goto(f"http://127.0.0.1:{sink.port}/overlay?picture=1")
    page.wait_for_function("() => document.getElementById('picture').naturalWidth === 640", timeout=WAIT_MS)
    assert not page.is_visible("#notice")  # the picture carries it
    page.close()
    assert said == []
