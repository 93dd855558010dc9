"""Whatever ends a recording, it plays: SIGKILL, a closed terminal, impatience, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
from av.error import FFmpegError

from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.errors import MissingFile, SinkError
from liveaffect.realtime.sinks.catalogue import open_sink
from liveaffect.realtime.sinks.files import part_of
from liveaffect.realtime.testing.media import film

MOST_LOST_S = 2.0
MOMENTS = {"quick": 4, "soak": 20}
RECORDER = """
import sys, threading
import numpy as np
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.video_file import VideoFile

path, sound_from_s = sys.argv[1], float(sys.argv[2])
video = VideoFile(path, sound=sound_from_s >= 0)
clock, stop = MonotonicClock(), threading.Event()
start_ns, rng = clock.now_ns(), np.random.default_rng(0)
blocks = rng.integers(0, 255, (8, 15, 20, 3), np.uint8)
for seq in range(100_000):
    t_ns = seq * SECOND // 25
    clock.wait_until(start_ns + t_ns, stop)
    picture = np.repeat(np.repeat(blocks[seq // 5 % 8], 16, 0), 16, 1)
    video.show(picture, VideoFrame("camera:0", seq, t_ns, picture))
    if 0 <= sound_from_s * SECOND <= t_ns:
        samples = rng.normal(0, 0.1, 640).astype(np.float32)
        video.hear(AudioBlock("mic:0", seq * 640, t_ns, samples))
    print(t_ns / SECOND, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Killed:
    """One recording that was killed."""

    name: str
    sound_from_s: float
    shown_s: float
    """The last picture that was handed to the output."""
    plays_s: float
    """The last picture that can be had from what is on the disk."""


def last_picture_s(path: Path) -> float:
    """-1 if there is none."""
    last = -1.0
    try:
        with av.open(str(path)) as file:
            for picture in file.decode(video=0):
                last = float(picture.time or 0.0)
    except (FFmpegError, OSError):
        pass
    return last


def killed_at(moment_s: float, path: Path, sound_from_s: float) -> Killed:
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(path), str(sound_from_s)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    shown_s = 0.0
    for line in process.stdout:
        shown_s = float(line)
        if shown_s >= moment_s:
            process.send_signal(signal.SIGKILL)
            break
    shown_s = max([shown_s, *(float(line) for line in process.stdout)])
    process.wait()
    process.stdout.close()
    return Killed(path.name, sound_from_s, shown_s, last_picture_s(part_of(path)))


def kill_some(count: int, folder: Path) -> list[Killed]:
    rng = random.Random(12)
    out = []
    for number in range(count):
        name = f"{number}{('.mp4', '.mkv', '.mov')[number % 3]}"
        sound_from_s = (0.0, -1.0, 1.9, 1e6)[number % 4]
        out.append(killed_at(rng.uniform(0.5, 7.0), folder / name, sound_from_s))
        one = out[-1]
        assert one.shown_s - one.plays_s <= MOST_LOST_S, f"{one}: too much is lost"
    return out


@pytest.mark.slow
def test_a_recording_that_is_killed_plays_up_to_two_seconds_before(tmp_path: Path) -> None:
    assert len(kill_some(MOMENTS["quick"], tmp_path)) == MOMENTS["quick"]


@pytest.mark.soak
def test_twenty_recordings_that_are_killed_play_up_to_two_seconds_before(tmp_path: Path) -> None:
    """With LIVEAFFECT_KILL_RESULTS the figures are written into that file."""
    found = kill_some(MOMENTS["soak"], tmp_path)
    if (out := os.environ.get("LIVEAFFECT_KILL_RESULTS")) is not None:
        lines = ["name,sound_from_s,shown_s,plays_s,lost_s"]
        lines += [
            f"{one.name},{one.sound_from_s:g},{one.shown_s:.2f},{one.plays_s:.2f},"
            f"{one.shown_s - one.plays_s:.2f}"
            for one in found
        ]
        Path(out).write_text("\n".join(lines) + "\n")


def test_what_a_killed_run_left_is_moved_out_of_the_way_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.mp4"
    part_of(path).write_bytes(b"somebody's only recording")
    open_sink(str(path)).close()
    assert (tmp_path / "out.part-1.mp4").read_bytes() == b"somebody's only recording"
    assert "out.part-1.mp4" in caplog.text


@pytest.mark.parametrize("name", ["out.mp4", "run.png", "cues.jsonl", "table.csv"])
def test_a_second_writer_of_one_output_is_refused_and_the_first_goes_on(tmp_path: Path, name: str) -> None:
    """In one process, and in two."""
    path = tmp_path / name
    first = open_sink(str(path))
    with pytest.raises(SinkError, match="another process, or another output of this one"):
        open_sink(str(path))
    code = f"from liveaffect.realtime.sinks.catalogue import open_sink; open_sink({str(path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is writing it at the moment" in other.stderr
    first.close()
    open_sink(str(path)).close()


def heed_all() -> None:
    """What whoever runs the tests ignores, as nohup does, would be ignored by what the tests start, too."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


WAITER = """
import sys, threading
import numpy as np
from liveaffect.cli import Interrupts
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.sinks.catalogue import open_sink

with Interrupts().heeded():
    video = open_sink(sys.argv[1])
    picture = np.zeros((48, 64, 3), np.uint8)
    for seq in range(100):
        video.show(picture, VideoFrame("camera:0", seq, seq * SECOND // 25, picture))
    for turn in range(2):
        try:
            if turn == 0:
                print("ready", flush=True)
            threading.Event().wait(20)
        except KeyboardInterrupt:
            print("ending", flush=True)
"""


def test_ctrl_c_thrice_says_what_it_waits_for_and_leaves_what_plays(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_all,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    second = process.stderr.readline()
    assert "still waiting for" in second
    assert f"{path} (so far in {part_of(path)})" in second
    process.send_signal(signal.SIGINT)
    third = process.communicate(timeout=10)[1]
    assert process.returncode == 130
    assert f"ended at once; not finished, but what there is plays: {path}" in third
    assert last_picture_s(part_of(path)) >= 99 / 25 - MOST_LOST_S


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_closed_terminal_and_a_request_to_end_finish_the_recording(
    tmp_path: Path, number: signal.Signals
) -> None:
    try:
        model_path(FULL_RANGE)
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    clip = film(tmp_path / "clip.mp4", "mpeg4", "aac", seconds=30)
    out, cues = tmp_path / "out.mp4", tmp_path / "cues.jsonl"
    arguments = ["live", "--camera", clip, "--sink", out, "--sink", cues, "--engine", "scripted"]
    process = subprocess.Popen(
        [sys.executable, "-m", "liveaffect", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_all,
    )
    for _ in range(200):
        if part_of(out).exists() and part_of(out).stat().st_size > 20_000:
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert last_picture_s(out) > 0.5, said
    assert not part_of(out).exists()
    assert all(json.loads(line) for line in cues.read_text().splitlines())


FULL_DISK = """
import sys
import numpy as np
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.errors import SinkError
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.sinks.video_file import VideoFile

video = VideoFile(sys.argv[1], sound=False)
rng = np.random.default_rng(0)
try:
    for seq in range(1000):
        picture = rng.integers(0, 255, (120, 160, 3), np.uint8)
        video.show(picture, VideoFrame("camera:0", seq, seq * SECOND // 25, picture))
except SinkError as error:
    print(seq, error, sep="|")
video.close()
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_disk_that_fills_up_leaves_a_part_that_plays_and_is_named(tmp_path: Path, name: str) -> None:
    """A real small disk in memory, in a mount namespace of its own."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    script = (
        f"mount -t tmpfs -o size=1m small {disk} && "
        f'{sys.executable} -c "$1" {disk / name} && cp {disk}/* {kept}/'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "--user", "sh", "-c", script, "sh", FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"needs a POSIX system that lets this user mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    pictures, said = done.stdout.strip().split("|")
    part = part_of(disk / name)
    assert f"cannot write {disk / name}: the disk is full" in said
    assert f"What was recorded until then is in {part}" in said
    assert [path.name for path in kept.iterdir()] == [part.name]
    assert last_picture_s(kept / part.name) >= int(pictures) / 25 - MOST_LOST_S
