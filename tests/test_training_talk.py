"""Recordings of people who just talk: any folder of sounds; what cannot be used is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="recordings are decoded with av")

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training import corpora_talk, corpora_voices
from liveaffect.engines.training.corpora_talk import MOST_EACH, TALK, read_talk


def say(path: Path, seconds: float, codec: str = "pcm_s16le", form: str | None = None) -> None:
    """A tone in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * 220 / SAMPLE_RATE * np.arange(round(seconds * SAMPLE_RATE)))
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        samples = (tone * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_whoever_talks_is_told_by_the_folder_and_nobody_has_a_mood(tmp_path: Path) -> None:
    root = tmp_path / TALK
    say(root / "en" / "anna" / "hello.wav", 1.5)
    say(root / "en" / "anna" / "short.wav", corpora_talk.LEAST_S / 2)
    say(root / "en" / "anna" / "long.wav", corpora_talk.MOST_S + 1)
    say(root / "de" / "bert" / "hello.wav", 2.0)
    (root / "de" / "bert" / "broken.ogg").write_bytes(b"no sound at all")
    (root / "de" / "bert" / "notes.txt").write_text("not a sound either")
    lines: list[str] = []
    takes = read_talk(tmp_path, lines.append)
    assert [(take.speaker, take.name, take.label) for take in takes] == [
        ("talk/de/bert", "de/bert/hello", "neutral"),
        ("talk/en/anna", "en/anna/hello", "neutral"),
    ]
    assert lines == [f"1 file in {root} cannot be read and is left out"]
    sounds = corpora_voices.load_takes(takes, tmp_path / "cache", lines.append)
    assert [len(sound) / SAMPLE_RATE for sound in sounds] == pytest.approx([2.0, 1.5], abs=0.05)


def test_nobody_is_heard_all_the_time(tmp_path: Path) -> None:
    for i in range(MOST_EACH + 5):
        say(tmp_path / TALK / "anna" / f"{i:03d}.wav", 0.8)
    takes = read_talk(tmp_path)
    assert len(takes) == MOST_EACH
    assert [take.name for take in takes] == sorted(take.name for take in takes)
    assert takes == read_talk(tmp_path)


def test_a_sound_without_a_head_is_read_by_its_ending(tmp_path: Path) -> None:
    say(tmp_path / TALK / "anna" / "hello.g722", 1.5, "g722", "g722")
    takes = read_talk(tmp_path)
    [sound] = corpora_voices.load_takes(takes, tmp_path / "cache", print)
    assert len(sound) / SAMPLE_RATE == pytest.approx(1.5, abs=0.05)
    assert np.abs(sound[len(sound) // 2 :]).max() > 0.1


def test_no_folder_is_nobody(tmp_path: Path) -> None:
    assert read_talk(tmp_path) == []
