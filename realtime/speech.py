"""A voice for demos, self-tests and measurements: spoken by espeak-ng, or where it is missing, hummed."""

from __future__ import annotations

import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE

SENTENCES = (
    "Hello. This is a demonstration, and nobody is really here.",
    "I am so happy that you came! What a wonderful day.",
    "But sometimes, in the evening, everything is a little sad and slow.",
)


VOICES = (("en", 50, 150), ("en+f3", 75, 175), ("en+m3", 25, 115))
"""Of the sentences: variant of espeak-ng, pitch, and words a minute."""


def make_speech(folder: Path) -> Path:
    """A sound file with a few sentences in one voice, by espeak-ng or by tones."""
    path = folder / "speech.wav"
    if not _speak(path, " ".join(SENTENCES), "-s", "150"):
        write_wav(path, tone_voice(8.0))
    return path


def make_voices(folder: Path) -> Path:
    """The same sentences, each in another voice, mood and pace."""
    path, parts = folder / "voices.wav", []
    for number, (sentence, (voice, pitch, pace)) in enumerate(zip(SENTENCES, VOICES, strict=True)):
        part = folder / f"voice{number}.wav"
        if not _speak(part, sentence, "-v", voice, "-p", str(pitch), "-s", str(pace)):
            return make_speech(folder)
        parts += [read_wav(part), np.zeros(SAMPLE_RATE // 2, np.float32)]
    write_wav(path, np.concatenate(parts))
    return path


def _speak(path: Path, text: str, *how: str) -> bool:
    """Let espeak-ng say it into a file; False where it is missing or says nothing."""
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        return False
    done = subprocess.run([espeak, "-w", str(path), *how, text], check=False, capture_output=True, timeout=30)
    return done.returncode == 0 and path.is_file() and path.stat().st_size > SAMPLE_RATE


def tone_voice(seconds: float) -> NDArray[np.float32]:
    """Something with the rhythm and the pitch of speech: syllables of a gliding, buzzing tone."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = 140 + 25 * np.sin(2 * np.pi * 0.4 * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * t), 0, None) * (np.sin(2 * np.pi * 0.2 * t) > -0.6)
    return (0.15 * buzz * syllables).astype(np.float32)


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Mono, 16 kHz, 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def read_wav(path: Path) -> NDArray[np.float32]:
    """Mono, 16 bit, brought to the rate of the networks."""
    with wave.open(str(path), "rb") as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    at = np.arange(0, len(samples) - 1, rate_hz / SAMPLE_RATE)
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float32)
