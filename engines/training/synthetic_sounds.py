"""Sounds that training makes: what is no speech, speech of espeak-ng, and how a laptop would hear either.

The voice network learns its `speech` output on noise against speech; both kinds are made from a seed, so no
corpus with a licence of its own is needed. The student of Whisper's layers needs speech, not labels, and more
kinds of it than a few corpora of actors hold: synthetic voices sound like nobody, but their vowels, pitches
and pauses are many. Pace and pitch, room, microphone, noise and level are changed in the samples themselves,
because the statistics of Whisper's features follow from no sum of band powers.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training.corpora_voices import Take, decode

Samples = NDArray[np.float32]
LENGTH_S = 4.0
_VOWELS_HZ = ((800, 1200, 2500), (400, 2000, 2600), (300, 2300, 3000), (450, 800, 2600), (320, 700, 2500))
"""Formants of five vowels."""
SENTENCES = {
    "en": "I told you twice already, the train leaves at seven and nobody is ready.",
    "en-us": "Well, that is the best news I have heard all week, come in and sit down!",
    "en-gb-scotland": "Mind the step there, it has been raining since the early morning.",
    "de": "Warum hast du mir nicht gesagt, dass der Schlüssel unter der Matte liegt?",
    "fr": "Je ne sais pas où il est allé, mais il reviendra certainement demain soir.",
    "es": "No me digas que otra vez perdiste las llaves de la casa en el mercado.",
    "it": "Oggi il mare è calmo e il cielo è così chiaro che si vedono le isole.",
    "pl": "Nie wiem, dlaczego nikt nie otworzył okna, przecież jest tu gorąco.",
    "pt": "A menina correu pela rua gritando que a chuva finalmente tinha chegado.",
    "nl": "Ik heb de hele dag gewacht en niemand heeft mij iets gevraagd.",
    "sv": "Han satt vid fönstret och räknade båtarna som kom in i hamnen.",
    "ru": "Завтра утром мы поедем к бабушке, если дорога будет сухая.",
    "cs": "Včera večer jsme dlouho mluvili o tom, co bude na jaře.",
    "tr": "Bu sabah pazarda taze ekmek ve çok güzel üzümler var.",
    "hi": "कल शाम को हम नदी के किनारे बहुत देर तक बैठे रहे।",
    "cmn": "今天早上我在公园里看见一只很小的猫。",
    "id": "Saya tidak tahu siapa yang datang tadi malam dengan mobil merah.",
    "fi": "Talvella järvi jäätyy ja lapset luistelevat koulun jälkeen.",
}
VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+whisper", "+croak")
_TAIL = SAMPLE_RATE // 2
_KNOTS_HZ = np.array([0.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0])


def make(kind: str, rng: np.random.Generator, length_s: float = LENGTH_S) -> Samples:
    """Some seconds of one kind of sound at a random level between -70 and -10 dB."""
    count = round(length_s * SAMPLE_RATE)
    sound = {**KINDS, **UNLEARNT}[kind](rng, count)
    peak = float(np.sqrt(np.mean(np.square(sound)))) + 1e-12
    level = 10 ** (rng.uniform(-70, -10) / 20)
    return np.asarray(np.clip(sound / peak * level, -1, 1), np.float32)


def bank(each: int, seed: int) -> dict[str, list[Samples]]:
    """`each` sounds of every kind; the same seed makes the same ones."""
    rng = np.random.default_rng(seed)
    return {kind: [make(kind, rng) for _ in range(each)] for kind in KINDS}


def unlearnt(each: int, seed: int) -> dict[str, list[Samples]]:
    """The same of kinds that no network learns from: throats that do not speak, and keys."""
    rng = np.random.default_rng(seed)
    return {kind: [make(kind, rng) for _ in range(each)] for kind in UNLEARNT}


def _noise_of(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """White to brown, steady: a fan, rain, an air conditioner."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 40.0)
    sound: NDArray[np.float64] = np.fft.irfft(spectrum * frequency ** -rng.uniform(0.0, 1.0), count)
    return sound


def _gusts(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Noise that swells and fades: traffic, wind, breath on the microphone."""
    knots = rng.uniform(-2.5, 0.0, max(count * int(rng.integers(2, 9)) // SAMPLE_RATE, 2))
    swell = np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    return _noise_of(rng, count) * np.power(10.0, swell)


def _hum(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The mains, a motor."""
    at_s = np.arange(count) / SAMPLE_RATE
    base_hz = rng.choice([50.0, 60.0, rng.uniform(30, 400)])
    strength = rng.exponential(size=20) / np.arange(1, 21)
    waves = np.sin(2 * np.pi * base_hz * np.outer(np.arange(1, 21), at_s) + rng.uniform(0, 6, (20, 1)))
    sound: NDArray[np.float64] = strength @ waves
    return sound + 0.02 * rng.normal(size=count)


def _knocks(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Keys, steps, drums, doors: short, with a ring."""
    sound = 1e-3 * rng.normal(size=count)
    at_s = np.arange(round(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    for start in rng.integers(0, count, int(rng.integers(3, 40))):
        ring = np.sin(2 * np.pi * rng.uniform(60, 5000) * at_s) + rng.normal(size=len(at_s))
        knock = rng.exponential() * ring * np.exp(-at_s / rng.uniform(0.003, 0.06))
        sound[start : start + len(knock)] += knock[: count - start]
    return sound


def _music(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Chords and a tune over them, plucked or held, with or without a beat."""
    sound = np.zeros(count)
    beat = round(rng.uniform(0.15, 0.6) * SAMPLE_RATE)
    scale = rng.uniform(60, 240) * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    fall_s = rng.uniform(0.1, 1.5)
    brightness = rng.uniform(0.8, 2.0)
    for start in range(0, count, beat):
        length = min(round(beat * rng.integers(1, 4)), count - start)
        at_s = np.arange(length) / SAMPLE_RATE
        attack = np.minimum(at_s / 0.01, 1.0) * np.exp(-at_s / fall_s)
        for note_hz in rng.choice(scale, int(rng.integers(1, 4)), replace=False):
            numbers = np.arange(1, max(2, min(16, int(7000 / note_hz))))
            overtones = numbers**-brightness
            sound[start : start + length] += attack * (
                overtones @ np.sin(2 * np.pi * note_hz * np.outer(numbers, at_s))
            )
    if rng.random() < 0.5:
        hits = np.exp(-(np.arange(count) % beat) / (0.03 * SAMPLE_RATE))
        sound += rng.uniform(0.1, 1.0) * hits * rng.normal(size=count)
    return sound + 1e-3 * rng.normal(size=count)


def _tones(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Beeps, sirens, sweeps."""
    at_s = np.arange(count) / SAMPLE_RATE
    pitch_hz = rng.uniform(200, 3000) * 2 ** (
        rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 4) * at_s)
    )
    sound = np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE)
    if rng.random() < 0.5:
        sound *= np.sin(2 * np.pi * rng.uniform(0.5, 4) * at_s) > rng.uniform(-0.5, 0.8)
    return sound + 1e-3 * rng.normal(size=count)


def _silence(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A good microphone in a quiet room, or one that is switched off."""
    if rng.random() < 0.3:
        return np.zeros(count)
    return np.rint(rng.normal(size=count) * rng.uniform(0.3, 3)) + 1e-3 * rng.normal(size=count)


KINDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "noise": _noise_of,
    "gusts": _gusts,
    "hum": _hum,
    "knocks": _knocks,
    "music": _music,
    "tones": _tones,
    "silence": _silence,
}


def _through_a_mouth(sound: NDArray[np.float64], formants_hz: tuple[int, ...]) -> NDArray[np.float64]:
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    lets_through = np.full(len(hertz), 0.01)
    for number, formant_hz in enumerate(formants_hz):
        lets_through += 1 / (1 + ((hertz - formant_hz) / (60 + 40 * number)) ** 2) / (1 + number)
    found: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(sound) * lets_through, len(sound))
    return found


def _voiced(rng: np.random.Generator, pitch_hz: NDArray[np.float64], vowel: int) -> NDArray[np.float64]:
    """A throat at a pitch that moves, through the mouth of one vowel."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    source = 0.02 * rng.normal(size=len(pitch_hz))
    for number in range(1, 40):
        source += (number * pitch_hz < 7500) * np.sin(number * phase) / number
    return _through_a_mouth(source, _VOWELS_HZ[vowel])


def _singing(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Vowels held on the notes of a scale, with vibrato."""
    sound, at = 1e-4 * rng.normal(size=count), 0
    scale_hz = rng.uniform(110, 330) * 2 ** (np.array([0, 2, 4, 5, 7, 9, 12]) / 12)
    while at < count:
        length = min(round(rng.uniform(0.3, 1.1) * SAMPLE_RATE), count - at)
        at_s = np.arange(length) / SAMPLE_RATE
        pitch_hz = rng.choice(scale_hz) * (1 + 0.012 * np.sin(2 * np.pi * 5.5 * at_s))
        swell = np.minimum(at_s / 0.04, 1) * np.minimum((length / SAMPLE_RATE - at_s) / 0.05, 1)
        sound[at : at + length] += swell * _voiced(rng, pitch_hz, int(rng.integers(5)))
        at += length
    return sound


def _laughter(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Runs of "ha", breath before voice, falling in pitch and loudness."""
    sound, at, said = 1e-4 * rng.normal(size=count), round(rng.uniform(0, 0.3) * SAMPLE_RATE), 0
    base_hz = rng.uniform(150, 420)
    while at < count:
        length = min(round(rng.uniform(0.16, 0.24) * SAMPLE_RATE), count - at)
        at_s = np.arange(length) / SAMPLE_RATE
        pitch_hz = base_hz * (1 + 0.5 * np.exp(-said / 4)) * np.exp(-1.2 * at_s)
        voice = _voiced(rng, pitch_hz, 0) * (at_s > 0.07) * np.exp(-np.maximum(at_s - 0.07, 0) / 0.08)
        breath = 0.6 * _through_a_mouth(rng.normal(size=length), _VOWELS_HZ[0]) * (at_s < 0.09)
        sound[at : at + length] += (voice + breath) * 0.9 ** (said % 9)
        said += 1
        at += length + (round(rng.uniform(0.3, 0.8) * SAMPLE_RATE) if said % 9 == 0 else 0)
    return sound


def _crying(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Wails that fall and tremble, with sobs of breath between them."""
    sound, at, base_hz = 1e-4 * rng.normal(size=count), 0, rng.uniform(200, 500)
    while at < count:
        length = min(round(rng.uniform(0.6, 1.3) * SAMPLE_RATE), count - at)
        at_s, along = np.arange(length) / SAMPLE_RATE, np.linspace(0, 1, length)
        pitch_hz = base_hz * (1.15 - 0.3 * along) * (1 + 0.03 * np.sin(2 * np.pi * 8 * at_s))
        trembling = np.hanning(length) * (1 + 0.4 * np.sin(2 * np.pi * 6 * at_s))
        sound[at : at + length] += trembling * _voiced(rng, pitch_hz, int(rng.choice([0, 4])))
        at += length
        for _ in range(int(rng.integers(1, 4))):
            sob = min(round(0.12 * SAMPLE_RATE), count - at)
            if sob > 0:
                breath = _through_a_mouth(rng.normal(size=sob), (1200, 2500, 3500))
                sound[at : at + sob] += 0.15 * breath * np.hanning(sob)
            at += round(0.16 * SAMPLE_RATE)
    return sound


def _keys(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Somebody types: a click down and a softer one up."""
    sound, at = 2e-4 * rng.normal(size=count), 0
    at_s = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    while at < count:
        for delay_s, loud in ((0.0, 1.0), (rng.uniform(0.05, 0.1), 0.5)):
            ring = rng.normal(size=len(at_s)) + np.sin(2 * np.pi * rng.uniform(1500, 4500) * at_s)
            begin = at + round(delay_s * SAMPLE_RATE)
            click = loud * rng.uniform(0.5, 1.0) * ring * np.exp(-at_s / 0.004)
            sound[begin : begin + len(click)] += click[: max(0, count - begin)]
        at += round(rng.uniform(0.07, 0.3) * SAMPLE_RATE)
    return sound


UNLEARNT: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "singing": _singing,
    "laughter": _laughter,
    "crying": _crying,
    "keys": _keys,
}
"""Made voices, so they say how a network takes what it never learnt, not how it takes a person who laughs."""


def made(count: int, seed: int) -> Iterator[NDArray[np.float16]]:
    """So many sentences, none if espeak-ng is not installed; the same seed makes the same ones."""
    program = shutil.which("espeak-ng")
    if program is None:
        return
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "said.wav"
        for _ in range(count):
            language = str(rng.choice(list(SENTENCES)))
            voice = language + str(rng.choice(VARIANTS))
            pace, pitch = str(int(rng.integers(110, 240))), str(int(rng.integers(10, 95)))
            command = [program, "-v", voice, "-s", pace, "-p", pitch, "-w", str(out), SENTENCES[language]]
            subprocess.run(command, check=True, capture_output=True)
            yield decode(out.read_bytes(), Take("espeak", voice, voice, "neutral", out))


@dataclass(frozen=True, slots=True)
class Hearing:
    """How often each thing happens, and how far it goes."""

    pace: float = 0.6
    octaves: float = 0.25
    """Pace and pitch together, as of a tape that runs faster or slower."""
    colour: float = 0.6
    colour_db: float = 4.0
    band_limit: float = 0.25
    room: float = 0.35
    decay_s: tuple[float, float] = (0.1, 0.5)
    noise: float = 0.5
    snr_db: tuple[float, float] = (5.0, 40.0)
    level: float = 0.7
    level_db: tuple[float, float] = (-45.0, -18.0)


def heard(samples: Samples, rng: np.random.Generator, hearing: Hearing | None = None) -> Samples:
    """The same sound somewhere else. What happens depends on nothing but the generator."""
    how = hearing or Hearing()
    if rng.random() < how.pace:
        samples = paced(samples, float(2 ** rng.uniform(-how.octaves, how.octaves)))
    samples = _placed(samples, rng, how)
    loud = float(np.sqrt(np.mean(np.square(samples)))) + 1e-9
    if rng.random() < how.noise:
        snr_db = rng.uniform(*how.snr_db)
        noise = _noise(len(samples), rng) * np.float32(loud * 10 ** (-snr_db / 20))
        samples = np.asarray(samples + noise, np.float32)
    if rng.random() < how.level:
        samples = samples * np.float32(10 ** (rng.uniform(*how.level_db) / 20) / loud)
    return np.asarray(np.clip(samples, -1.0, 1.0), np.float32)


def paced(samples: Samples, rate: float) -> Samples:
    """So many times as fast, and as high."""
    at = np.arange(int(len(samples) / rate)) * rate
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float32)


def _placed(samples: Samples, rng: np.random.Generator, how: Hearing) -> Samples:
    """Through a microphone's response, a band limit and a room."""
    length = 1 << (len(samples) + _TAIL - 1).bit_length()
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    response = np.ones(len(hertz), np.complex128)
    if rng.random() < how.colour:
        knots = rng.normal(0, how.colour_db, len(_KNOTS_HZ))
        response *= 10 ** (np.interp(np.log(hertz + 30), np.log(_KNOTS_HZ + 30), knots) / 20)
    if rng.random() < how.band_limit:
        low_hz, high_hz = rng.uniform(50, 300), rng.uniform(3300, 7500)
        response /= np.sqrt(1 + (low_hz / (hertz + 1)) ** 6) * np.sqrt(1 + (hertz / high_hz) ** 12)
    if rng.random() < how.room:
        at_s = np.arange(_TAIL) / SAMPLE_RATE
        tail = rng.normal(size=_TAIL) * 10 ** (-3 * at_s / rng.uniform(*how.decay_s))
        tail[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0.0
        tail *= rng.uniform(0.1, 0.9) / (np.linalg.norm(tail) + 1e-9)
        response *= 1.0 + np.fft.rfft(tail, length)
    spectrum = np.fft.rfft(samples, length) * response
    return np.asarray(np.fft.irfft(spectrum, length)[: len(samples)], np.float32)


def _noise(count: int, rng: np.random.Generator) -> Samples:
    """White to brown, of loudness one."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 40.0)
    sound = np.fft.irfft(spectrum * hertz ** -rng.uniform(0.0, 1.0), count)
    return np.asarray(sound / (np.sqrt(np.mean(np.square(sound))) + 1e-9), np.float32)
