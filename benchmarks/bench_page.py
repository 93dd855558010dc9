"""How old is a reading when the page draws it, beside the program's own window, and does anything grow?

    chromium, xvfb; uv run --no-sync python benchmarks/bench_page.py --out DIR [--seconds 25] [--minutes 3]

One film of a drawn head with a voice, 640x480 at 30 pictures a second, is the camera of a real Chromium and
of a live run with a window on a screen of its own. They take turns on the same machine: page, window, page,
window; the age counts from when a picture was captured to when the reading of it is drawn for the first time,
and, so that slow answers do not look young, also at every picture drawn. Then the page alone for some
minutes, with memory and age by the quarter minute (what a minute adds leaves out the first half, in which
buffers fill), and two pages at once, one of which is killed. Writes page.json into DIR, and one line of text
into page.txt and to standard output. Takes about seven minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import film_as_devices, load, machine
from numpy.typing import NDArray

from liveaffect import Settings
from liveaffect.bench.whole import Probe, live_run, sound
from liveaffect.realtime.acting import ActingHead, tone_voice, write_wav
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock
from liveaffect.realtime.feeds import Feed
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.replay import Paced
from liveaffect.realtime.sinks.window import WindowSink

FPS, PICTURES = 30, 300
WARM_UP_S = 5.0
BIN_S = 15.0
BUDGET_MS = {"p50": 60.0, "p95": 100.0}
"""How much older than in the window a reading may be on the page."""
# Every answer when it is first drawn, and the age of what stands there at every picture of the video.
NOTE = """() => {
  const kept = globalThis.kept = {first: [], shown: [], since: performance.now()};
  let last = liveaffect.drawn.at(-1)?.[2] ?? 0;
  const video = document.getElementById('video');
  const look = () => {
    if (globalThis.kept !== kept) return;
    const {answer, nowS, drawn} = liveaffect;
    if (answer) kept.shown.push(1000 * (nowS() - answer.t));
    for (const [s, age, t] of drawn) if (t > last) { kept.first.push(age); last = t; }
    video.requestVideoFrameCallback(look);
  };
  look();
}"""
TAKE = "() => [kept.first, kept.shown, (performance.now() - kept.since) / 1000]"


class Repeated:
    """The film over and over, as a source."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.name = "film"
        self._pictures, self._seq = pictures, -1

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> VideoFrame:
        """The next picture."""
        self._seq += 1
        picture = self._pictures[self._seq % len(self._pictures)]
        return VideoFrame(self.name, self._seq, self._seq * SECOND // FPS, picture)

    def close(self) -> None: ...


class Voice(Repeated):
    """Twenty milliseconds of sound at a time, over and over."""

    def __init__(self, blocks: Sequence[AudioBlock]) -> None:
        self.name = "voice"
        self._blocks, self._seq = blocks, -1

    def read(self, timeout_s: float) -> Any:
        """The next block."""
        self._seq += 1
        samples = self._blocks[self._seq % len(self._blocks)].samples
        return AudioBlock(self.name, self._seq * 320, self._seq * 20 * MS, samples)


class Ages:
    """The sink beside the window: how old the reading of every face is when its picture is done."""

    wants_pictures, wants_sound = True, False

    def __init__(self, clock: MonotonicClock, probe: Probe) -> None:
        self.first: list[float] = []
        self.shown: list[float] = []
        self._clock, self._probe, self._last_ns = clock, probe, -1
        self._from_ns = clock.now_ns() + round(WARM_UP_S * SECOND)

    def show(self, picture: NDArray[np.uint8], frame: VideoFrame) -> None:
        """Note it."""
        now_ns, view = self._clock.now_ns(), self._probe.view
        if view is None or now_ns < self._from_ns:
            return
        for mark in view.marks[:1]:
            if mark.cue is not None and mark.face_age_ms is not None:
                age_ms = (now_ns - mark.cue.t_ns) / MS + (mark.cue.age_ms[0] or 0)
                self.shown.append(age_ms)
                if mark.cue.t_ns > self._last_ns:
                    self.first.append(age_ms)
                    self._last_ns = mark.cue.t_ns

    def tell(self, cues: Any) -> None: ...

    def hear(self, block: Any) -> None: ...

    def close(self) -> None: ...


def run_window(seconds: float, film: Path) -> dict[str, Any]:
    """A live run with its window on the screen of this process."""
    pictures, clock, settings = film_pictures(film), MonotonicClock(), Settings(voice="small")
    blocks = sound(PICTURES / FPS)
    feeds = [
        Feed("film", lambda: Paced(Repeated(pictures), clock), pictures=True, sound=False, live=False),
        Feed("voice", lambda: Paced(Voice(blocks), clock), pictures=False, sound=True, live=False),
    ]

    probe = Probe("film", "starting")
    ages = Ages(clock, probe)
    live = live_run(feeds, [ages, WindowSink()], probe, clock, settings)
    live.run(seconds=seconds + WARM_UP_S)
    return {**figures(ages.first, ages.shown, seconds), "mode": live.pace.mode}


def film_pictures(film: Path) -> list[NDArray[np.uint8]]:
    """What Chromium shows, decoded."""
    parts = film.read_bytes().split(b"\xff\xd8\xff")[1:]
    read = (cv2.imdecode(np.frombuffer(b"\xff\xd8\xff" + p, np.uint8), cv2.IMREAD_COLOR_RGB) for p in parts)
    return [np.asarray(picture, np.uint8) for picture in read]


def figures(first: Sequence[float], shown: Sequence[float], seconds: float) -> dict[str, float]:
    """Ages in milliseconds and readings a second."""
    if not first or not shown:
        raise SystemExit("no reading was drawn: the machine is too busy, or the camera did not start")
    out = {"readings_per_s": len(first) / seconds, "pictures_per_s": len(shown) / seconds}
    for name, ages in (("first", first), ("shown", shown)):
        out |= {f"{name}_p{share}_ms": float(np.percentile(ages, share)) for share in (50, 95)}
    return {name: round(value, 2) for name, value in out.items()}


@contextmanager
def serving() -> Iterator[tuple[int, int]]:
    """`liveaffect serve` as a process of its own: its number and its port."""
    command = [sys.executable, "-m", "liveaffect", "serve", "--port", "0", "--voice", "small"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = next((m for line in process.stderr if (m := re.search(r":(\d+)/", line))), None)
            if said is None:
                raise SystemExit("`liveaffect serve` ended before it said where it is")
            yield process.pid, int(said[1])
        finally:
            process.terminate()


@contextmanager
def opened(film: Path, port: int) -> Iterator[tuple[Any, int]]:
    """The page, started, in a real Chromium; and the number of the browser's process."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    given = film_as_devices(film)
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=given, viewport={"width": 1280, "height": 860}
        )
        page = context.pages[0]
        begin(page, port)
        yield page, next(pid for pid, line in commands() if profile in line and "--type=" not in line)
        context.close()


def begin(page: Any, port: int) -> None:
    """Open the page and start it; returns when it is warm."""
    page.goto(f"http://127.0.0.1:{port}/")
    page.check("#consent")
    page.click("#start")
    page.wait_for_selector(".person", timeout=60_000)
    page.wait_for_timeout(1000 * WARM_UP_S)


def two_pages(seconds: float, film: Path) -> dict[str, Any]:
    """What each of two pages gets at the same time, their ledgers, and how one goes on without the other."""
    clock = MonotonicClock()
    with serving() as (_, port), opened(film, port) as (first, _):
        second = first.context.new_page()
        begin(second, port)
        for page in (first, second):
            page.evaluate(NOTE)
        first.wait_for_timeout(1000 * seconds)
        both = [figures(*page.evaluate(TAKE)) for page in (first, second)]
        ledgers = [page.evaluate("() => liveaffect.health") for page in (first, second)]
        killed_ns, gone_s = clock.now_ns(), None
        with suppress(Exception):  # that page is no more
            second.goto("chrome://crash", timeout=2000)
        while gone_s is None and clock.now_ns() - killed_ns < 30 * SECOND:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                alone = re.search(r"^liveaffect_pages 1(\.0)?$", answer.read().decode(), re.MULTILINE)
            gone_s = round((clock.now_ns() - killed_ns) / SECOND, 2) if alone else None
            first.wait_for_timeout(50)
        alone_again = page_ages(first, seconds)
    return {"both": both, "ledgers": ledgers, "place_free_after_s": gone_s, "first_alone_again": alone_again}


def commands() -> Iterator[tuple[int, str]]:
    """Processes and their command lines."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended


def page_ages(page: Any, seconds: float) -> dict[str, float]:
    """Of what is drawn on the page for so long."""
    page.evaluate(NOTE)
    page.wait_for_timeout(1000 * seconds)
    return figures(*page.evaluate(TAKE))


def resident_mb(pid: int) -> float:
    """Of one process and everything it started, shared pages counted once."""
    total = 0
    children = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(a): int(b) for a, b in (line.split() for line in children.stdout.splitlines())}
    for child in parents:
        at = child
        while at not in (0, pid):
            at = parents.get(at, 0)
        if at == pid:
            try:
                rollup = Path(f"/proc/{child}/smaps_rollup").read_text("utf-8")
            except OSError:
                continue
            total += int((re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE) or [0, 0])[1])
    return total / 1024


def growth(page: Any, browser: int, server: int, minutes: float) -> dict[str, Any]:
    """Memory and ages by the quarter minute, and how much a minute adds."""
    tool = page.context.new_cdp_session(page)
    tool.send("Performance.enable")
    rows = []
    for at in range(round(60 * minutes / BIN_S)):
        ages = page_ages(page, BIN_S)
        tool.send("HeapProfiler.collectGarbage")
        heap = {m["name"]: m["value"] for m in tool.send("Performance.getMetrics")["metrics"]}
        rows.append({
            "until_s": (at + 1) * BIN_S,
            **ages,
            "page_heap_mb": round(heap["JSHeapUsedSize"] / 1e6, 2),
            "browser_mb": round(resident_mb(browser), 1),
            "server_mb": round(resident_mb(server), 1),
        })  # fmt: skip
    later = rows[2:] if len(rows) > 5 else rows
    x = np.array([row["until_s"] for row in later]) / 60
    names = ("first_p50_ms", "first_p95_ms", "page_heap_mb", "browser_mb", "server_mb")
    slopes = {
        f"{name}_a_minute": round(float(np.polyfit(x, [row[name] for row in later], 1)[0]), 3)
        for name in names
        if len(later) > 2
    }
    health = page.evaluate("() => liveaffect.health")
    return {"rows": rows, **slopes, "health": health}


def window_ages(seconds: float, film: Path) -> dict[str, Any]:
    """In a process with a screen of its own."""
    on = ["xvfb-run", "-a", "-s", "-screen 0 1280x1024x24", sys.executable, __file__]
    ran = subprocess.run(
        [*on, "--window", str(film), "--seconds", str(seconds)], capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"the run with a window ended with {ran.returncode}: {ran.stderr[-800:]}")
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def compared(seconds: float, minutes: float) -> dict[str, Any]:
    """Everything, as a record."""
    turns: dict[str, list[dict[str, Any]]] = {"page": [], "window": []}
    with tempfile.TemporaryDirectory() as folder:
        film, head = Path(folder) / "film.mjpeg", ActingHead([], (640, 480), FPS)
        pictures = (cv2.imencode(".jpg", head.draw(at)[:, :, ::-1])[1].tobytes() for at in range(PICTURES))
        film.write_bytes(b"".join(pictures))
        write_wav(film.with_suffix(".wav"), tone_voice(PICTURES / FPS))
        for _ in range(2):
            with serving() as (_, port), opened(film, port) as (page, _):
                turns["page"].append(page_ages(page, seconds))
            turns["window"].append(window_ages(seconds, film))
        with serving() as (server, port), opened(film, port) as (page, browser):
            long = growth(page, browser, server, minutes)
        pair = two_pages(seconds, film)
    mean = {
        name: {
            share: float(np.mean([one[f"first_{share}_ms"] for one in turns[name]])) for share in BUDGET_MS
        }
        for name in turns
    }
    more = {share: round(mean["page"][share] - mean["window"][share], 1) for share in BUDGET_MS}
    kept = all(more[share] <= BUDGET_MS[share] for share in BUDGET_MS)
    return {
        "machine": {**machine(), "load": load()},
        **turns,
        "more_ms": more,
        "within_budget": kept,
        "two_pages": pair,
        "growth": long,
    }


def in_words(record: dict[str, Any]) -> str:
    """One line."""
    ages = {
        name: "/".join(f"{np.mean([one[f'first_{p}_ms'] for one in record[name]]):.0f}" for p in BUDGET_MS)
        for name in ("page", "window")
    }
    more, long = record["more_ms"], record["growth"]
    rate = np.mean([row["readings_per_s"] for row in long["rows"]])
    slopes = {name: value for name, value in long.items() if name.endswith("_a_minute")}
    grown = ", ".join(f"{name.removesuffix('_a_minute')} {value:+.2f}" for name, value in slopes.items())
    pair = record["two_pages"]
    each = " and ".join(
        f"{one['readings_per_s']:.0f} a second, {one['first_p50_ms']:.0f} ms old" for one in pair["both"]
    )
    minutes, judged = len(long["rows"]) * BIN_S / 60, "within" if record["within_budget"] else "OVER"
    return (
        f"age of a reading when first drawn, p50/p95: page {ages['page']} ms, window {ages['window']} ms, "
        f"{more['p50']:+.0f}/{more['p95']:+.0f} ms ({judged} +60/+100); "
        f"{minutes:.1f} minutes at {rate:.0f} readings a second, a minute adds: {grown}; "
        f"two pages at once: {each}; one killed, its place is free after {pair['place_free_after_s']} s"
    )


def main() -> None:
    """Measure, or be the run with a window."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--window", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.window is not None:
        print(json.dumps(run_window(given.seconds, given.window)))
        return
    record = compared(given.seconds, given.minutes)
    print(in_words(record))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "page.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        (given.out / "page.txt").write_text(in_words(record) + "\n", "utf-8")


if __name__ == "__main__":
    main()
