"""A recorded video keeps the times of its pictures and the place of its sound."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.sinks.video_file import VideoFile
from liveaffect.realtime.testing.scenes import frame

# The video.


def tone(first: int, count: int, captured_ns: int) -> AudioBlock:
    """A click of full loudness in every second, else silence; by absolute sample number."""
    samples = np.where(np.arange(first, first + count) % SAMPLE_RATE < 160, 0.9, 0.0).astype(np.float32)
    return AudioBlock("default", first, captured_ns, samples)


def shade(level: int, width: int = 64, height: int = 48) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), level, np.uint8)


def decoded(path: Path) -> tuple[list[float], list[int], np.ndarray[tuple[int], np.dtype[np.float32]], float]:
    """Times and mean levels of the pictures; the sound, and when it begins."""
    times, levels, sound, begin = [], [], [np.zeros(0, np.float32)], -1.0
    with av.open(str(path)) as file:
        for item in file.decode(*file.streams.video, *file.streams.audio):
            if isinstance(item, av.VideoFrame):
                times.append(float(item.time or 0.0))
                levels.append(round(float(item.to_ndarray(format="gray").mean())))
            elif isinstance(item, av.AudioFrame):
                begin = float(item.time or 0.0) if begin < 0 else begin
                sound.append(item.to_ndarray()[0])
    return times, levels, np.concatenate(sound), begin


def test_pictures_keep_the_uneven_times_at_which_they_were_captured(tmp_path: Path) -> None:
    stamps = [5 * SECOND + ms * MS for ms in (0, 33, 70, 71, 200, 1000, 1040)]
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq, stamp in enumerate(stamps):
        video.show(shade(30 * seq), frame(shade(30 * seq), seq, captured_ns=stamp))
    video.close()
    times, levels, sound, _ = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx([(stamp - stamps[0]) / SECOND for stamp in stamps], abs=1e-4)
    assert levels == pytest.approx([30 * seq for seq in range(7)], abs=16)
    assert np.all(np.diff(levels) > 0)
    assert not len(sound)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_sound_stays_with_the_picture_across_a_late_start_a_gap_and_an_overlap(
    tmp_path: Path, name: str
) -> None:
    """Pictures flash and sound clicks at every full second of the run; the file must agree."""
    video = VideoFile(str(tmp_path / name))
    block = SAMPLE_RATE // 25
    begin_ns = 400 * MS
    for step in range(125):
        t_ns = step * 40 * MS
        if t_ns >= begin_ns:
            level = 250 if step % 25 == 0 else 5
            video.show(shade(level), frame(shade(level), step, captured_ns=t_ns))
        if not 60 <= step < 70:  # lost sound
            video.hear(tone(step * block, block, t_ns))
        if step == 80:  # the same sound once more
            video.hear(tone(step * block, block, t_ns))
    video.close()
    times, levels, sound, first = decoded(tmp_path / name)
    flashes = [t + 0.4 for t, level in zip(times, levels, strict=True) if level > 128]
    loud = np.flatnonzero(np.abs(sound) > 0.4) / SAMPLE_RATE + first + 0.4
    clicks = [float(part[0]) for part in np.split(loud, np.flatnonzero(np.diff(loud) > 0.5) + 1)]
    assert flashes == pytest.approx([1, 2, 3, 4], abs=0.001)
    assert clicks == pytest.approx([1, 2, 3, 4], abs=0.03)


def test_a_microphone_that_starts_seconds_late_is_still_recorded(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for step in range(50):
        video.show(shade(99), frame(shade(99), step, captured_ns=step * 80 * MS))
        if step >= 30:
            video.hear(tone(0, 1280, step * 80 * MS))
    video.close()
    _, _, sound, first = decoded(tmp_path / "out.mp4")
    loud = np.flatnonzero(np.abs(sound) > 0.4)
    assert first + loud[0] / SAMPLE_RATE == pytest.approx(2.4, abs=0.03)


def test_an_odd_size_is_filled_up_and_a_change_of_size_is_scaled(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq, size in enumerate([(63, 47), (63, 47), (128, 96)]):
        video.show(shade(120, *size), frame(shade(120, *size), seq))
    video.close()
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert [(f.width, f.height) for f in file.decode(video=0)] == [(64, 48)] * 3
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_every_camera_gets_a_file_of_its_own(tmp_path: Path) -> None:
    video = VideoFile(str(tmp_path / "out.mp4"))
    for seq in range(4):
        video.show(shade(9), frame(shade(9), seq, source="camera:0"))
        video.show(shade(200), frame(shade(200), seq, source="camera:1"))
    video.close()
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out-camera_1.mp4"}
    assert min(decoded(tmp_path / "out-camera_1.mp4")[1]) > 150
