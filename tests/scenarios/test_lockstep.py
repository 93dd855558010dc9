"""Files in lock-step: the same bytes every time, nothing skipped, and people that begin and end with cuts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.files import OutputFiles, analyse_files
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.lockstep import Summary
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.sinks.catalogue import by_ending
from liveaffect.realtime.wiring import Finders, Tools

Cue = dict[str, Any]
SIZE = (320, 240)
FPS = 25
TICK = Fraction(1, 1000)
ROOT = Path(__file__).resolve().parents[2]


def scripted_tools() -> Tools:
    networks = Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion())

    def finders() -> Finders:
        try:
            return make_finder()
        except MissingFile as error:
            pytest.skip(f"needs the face detector's files: {error}")

    return Tools(networks, finders)


def analyse(clip: Path, out: Path) -> tuple[list[Cue], bytes, Summary]:
    """One run of its own, with fresh networks and finders."""
    out.mkdir()
    results = analyse_files([clip], OutputFiles((by_ending(str(out / "cues.jsonl")),)), scripted_tools())
    written = (out / "cues.jsonl").read_bytes()
    return [json.loads(line) for line in written.splitlines()], written, results.summaries[clip]


@pytest.fixture(scope="module")
def face() -> NDArray[np.uint8]:
    pictures = packaged_portraits()
    if not pictures:
        pytest.skip("no installed package carries a portrait")
    return load_picture(pictures[0])


def write_clip(
    path: Path, pictures: Sequence[tuple[float, NDArray[np.uint8]]], sound: NDArray[np.float32] | None = None
) -> Path:
    """A clip whose pictures have the given times in seconds, and sound of its own length."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt, video.bit_rate = *SIZE, "yuv420p", 2_000_000
        video.codec_context.time_base = video.time_base = TICK
        if sound is not None:
            audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
            block = av.AudioFrame.from_ndarray(
                (sound * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            block.sample_rate = SAMPLE_RATE
            container.mux([*audio.encode(block), *audio.encode(None)])
        for at_s, image in pictures:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(at_s / TICK), TICK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def moving(face: NDArray[np.uint8], times_s: Sequence[float]) -> list[tuple[float, NDArray[np.uint8]]]:
    portraits = Portraits([face], SIZE, FPS)
    return [(at_s, portraits.draw(round(at_s * FPS))) for at_s in times_s]


def ticks(cues: Sequence[Cue], track: int | None = 1) -> list[int]:
    """The grid points of one person's cues."""
    return [round(10 * cue["t"]) for cue in cues if cue["track"] == track]


@pytest.mark.slow
def test_two_runs_over_one_clip_give_the_same_bytes(face: NDArray[np.uint8], tmp_path: Path) -> None:
    """Every grid point on which the face is visible has its cue, and none is skipped."""
    clip = write_clip(tmp_path / "clip.mkv", moving(face, [k / FPS for k in range(3 * FPS)]), tone_voice(3.0))
    cues, first, summary = analyse(clip, tmp_path / "a")
    _, second, _ = analyse(clip, tmp_path / "b")
    assert first == second
    assert summary.pictures == 3 * FPS
    grid = ticks(cues)
    assert grid == list(range(grid[0], 31)), "the end of the clip is a grid point, too"
    assert grid[0] <= 2
    assert {cue["skipped"] for cue in cues} == {0}
    assert any(cue["voice"] for cue in cues)


@pytest.mark.slow
@pytest.mark.parametrize(("pictures_s", "sound_s"), [(2.0, 5.0), (4.0, 1.5)])
def test_sound_and_pictures_of_different_lengths_are_both_read_to_their_end(
    face: NDArray[np.uint8], tmp_path: Path, pictures_s: float, sound_s: float
) -> None:
    voice = np.resize(tone_voice(1.0), round(sound_s * SAMPLE_RATE))
    times = [k / FPS for k in range(round(pictures_s * FPS))]
    clip = write_clip(tmp_path / "clip.mkv", moving(face, times), voice)
    cues, _, summary = analyse(clip, tmp_path / "out")
    assert summary.pictures == len(times)
    assert summary.media_s == pytest.approx(max(pictures_s, sound_s), abs=0.05)
    # A face reading lives on for half a second, a voice reading for two seconds at most.
    assert max(ticks(cues)) <= 10 * pictures_s + 5
    assert max(ticks(cues)) >= 10 * min(pictures_s, summary.media_s) - 1
    heard = [cue["t"] for cue in cues if cue["voice"]]
    assert max(heard) <= sound_s + 2.0
    assert all(cue["face"] is None for cue in cues if cue["t"] > pictures_s + 0.5)


@pytest.mark.slow
def test_a_variable_frame_rate_keeps_the_grid(face: NDArray[np.uint8], tmp_path: Path) -> None:
    """Pictures at 10 to 50 a second: cues still lie 0.1 s apart, and ages count from the real stamps."""
    steps = np.resize([0.02, 0.1, 0.04, 0.06], 60)
    times = np.round(np.concatenate([[0.0], np.cumsum(steps)]), 3)
    cues, _, summary = analyse(write_clip(tmp_path / "clip.mkv", moving(face, list(times))), tmp_path / "out")
    assert summary.pictures == len(times)
    grid = ticks(cues)
    assert grid == list(range(grid[0], grid[-1] + 1))
    for cue in cues:
        newest = times[times <= cue["t"] + 1e-6].max()
        assert cue["age_ms"]["face"] == pytest.approx(1000 * (cue["t"] - newest), abs=2)


def test_sound_alone_gives_cues_without_a_person(tmp_path: Path) -> None:
    write_wav(tmp_path / "voice.wav", tone_voice(4.0))
    cues, first, summary = analyse(tmp_path / "voice.wav", tmp_path / "a")
    assert first == analyse(tmp_path / "voice.wav", tmp_path / "b")[1]
    assert (summary.pictures, summary.tracks) == (0, set())
    assert {(cue["track"], cue["frame"], cue["box"]) for cue in cues} == {(None, None, None)}
    grid = ticks(cues, None)
    assert grid == list(range(grid[0], grid[-1] + 1))
    assert grid[0] <= 20


SEGMENTS = 11
SEGMENT_S = 3.0


@pytest.mark.slow
def test_ten_talkers_in_eleven_cuts_are_never_mixed(shared_data: Path, tmp_path: Path) -> None:
    """Ten people, three seconds each, cut hard, the first one again: ids, cuts and schema."""
    clip = shared_data / "clips" / "demo_grid_10speakers.mp4"
    cues, _, summary = analyse(clip, tmp_path / "a")
    schema = json.loads((ROOT / "docs" / "cue.md").read_text("utf-8").split("```json")[2].split("```")[0])
    validator = jsonschema.Draft202012Validator(schema)
    for cue in cues:
        validator.validate(cue)
    assert summary.pictures == round(SEGMENTS * SEGMENT_S * FPS)
    assert len(summary.tracks) in (10, 11)
    for track in summary.tracks:
        times = [t / 10 for t in ticks(cues, track)]
        segments = {min(int(t / SEGMENT_S + 1e-6), SEGMENTS - 1) for t in times}
        assert len(segments) == 1, f"track {track} spans a cut: {times[0]} to {times[-1]} s"
    for segment in range(SEGMENTS):
        begin_s = segment * SEGMENT_S
        faces = [c for c in cues if c["track"] is not None and begin_s - 1e-6 <= c["t"] < begin_s + SEGMENT_S]
        assert faces[0]["t"] - begin_s <= 0.2 + 1e-6
        newest = max(c["track"] for c in faces)
        grid = ticks(faces, newest)
        assert grid == list(range(grid[0], round(10 * (begin_s + SEGMENT_S))))
