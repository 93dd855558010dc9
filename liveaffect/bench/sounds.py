"""How long does a voice take to the answer, a changed voice to the label, a word to the picture?

Everything runs in the time of the sound, so that a busy machine changes nothing; what the machine itself
takes comes on top. Speech is spoken by espeak-ng. It acts no moods that anybody could vouch for, so a voice
that changes needs recordings of acted voices: two of one speaker, of different labels, one after the other.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.bench.measure import Row
from liveaffect.calibration.clips import SOUND, Clip, PlayedSound, voice_clips
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.realtime.acting import make_voices, read_wav
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.estimate import Estimate
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.lockstep import Watched, analyse
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.utterance import plain
from liveaffect.realtime.wiring import SpokenChoice, Tools
from liveaffect.realtime.words import WordsAnalyzer, WordTools
from liveaffect.settings import Settings

LEAD_S, GAPS_S = 0.3, (0.4, 1.2)
AFTER_S = 0.8
"""A label that comes so long after the end of a recording still belongs to it."""
PAIRS = 4
"""Of every speaker."""
BLOCK = SAMPLE_RATE // 10
VOICE_WITHIN_S, LABEL_WITHIN_S, PALE_WITHIN_S, BELIEVED_WITHIN_S = 0.8, 1.5, 0.8, 1.5
NO_SPEECH = "not measured: espeak-ng is not installed"
NO_VOICES = "not measured: needs acted voices, --data DIR"


@dataclass(frozen=True, slots=True, eq=False)
class VoicePair:
    """Two recordings of one speaker in one sound."""

    samples: NDArray[np.float32]
    first_s: float
    """Where speech begins."""
    first_truth: str
    onset_s: float
    """Where speech of the second begins."""
    end_s: float
    truth: str

    def said_last(self, at_s: float) -> str:
        """The label of the recording that began last; empty outside both."""
        if not self.first_s <= at_s <= self.end_s + AFTER_S:
            return ""
        return self.truth if at_s >= self.onset_s else self.first_truth


def sound_rows(settings: Settings, data: Path | None, say: Callable[[str], None]) -> list[Row]:
    """Voice to answer, voice to label, word to writing; what cannot be measured here says why."""
    say("voice and words to what is shown")
    tools = settings.load_tools(say)
    with tempfile.TemporaryDirectory() as folder:
        path = make_voices(Path(folder))
        speech = read_wav(path) if path.name == "voices.wav" else None
    rows = [_voice_row(speech, tools)]
    rows.append(_label_row(data, tools, say))
    rows += _word_rows(speech, tools.spoken)
    tools.networks.close()
    return rows


def _voice_row(speech: NDArray[np.float32] | None, tools: Tools) -> Row:
    name = "voice begun to voice in the answer"
    if speech is None:
        return Row(name, math.nan, "s", settled=False, note=NO_SPEECH)
    begun_s = LEAD_S + np.flatnonzero(loud(speech))[0] / 100
    lead = np.zeros(round(LEAD_S * SAMPLE_RATE), np.float32)
    heard = [one for one in told(np.concatenate([lead, speech]), tools) if one.voice is not None]
    delay_s = heard[0].at_ns / SECOND - begun_s if heard else math.nan
    return Row(name, float(delay_s), "s", VOICE_WITHIN_S)


def _label_row(data: Path | None, tools: Tools, say: Callable[[str], None]) -> Row:
    name = "voice changed to label changed"
    if data is None:
        return Row(name, math.nan, "s", settled=False, note=NO_VOICES)
    clips = [clip for clip in voice_clips(data, None, say) if clip.side == "calibrate"]
    found = delays_of(list(voice_pairs(clips, PAIRS)), tools)
    right = found.right_s[np.isfinite(found.right_s)]
    note = f"{len(right)} of {len(found.right_s)} rightly, {found.labelled:.0%} labelled, acted voices"
    return Row(name, float(np.median(right)) if len(right) else math.nan, "s", LABEL_WITHIN_S, (), note=note)


def _word_rows(speech: NDArray[np.float32] | None, choice: SpokenChoice | None) -> list[Row]:
    names = "word said to word shown, pale", "word said to word shown, believed"
    if speech is None or choice is None:
        note = NO_SPEECH if speech is None else "not measured: words need the extra and weights, see 'doctor'"
        return [Row(name, math.nan, "s", settled=False, note=note) for name in names]
    _, delays = words_live(speech, choice.make_tools())
    note = f"{len(delays)} words of espeak-ng"
    return [
        Row(
            name,
            float(np.median(delays[:, at])),
            "s",
            budget,
            figures={"p95_s": float(np.percentile(delays[:, at], 95))},
            note=note,
        )
        for at, (name, budget) in enumerate(zip(names, (PALE_WITHIN_S, BELIEVED_WITHIN_S), strict=True))
    ]


def told(samples: NDArray[np.float32], tools: Tools) -> list[Estimate]:
    """Everything that is estimated while this is heard."""
    kept: list[Estimate] = []
    networks = tools.networks
    networks.confidence = replace(networks.confidence, watch=kept.append)
    analyse(Watched(PlayedSound(samples), None, SOUND), tools, Outputs([]), lambda _: None)
    networks.confidence = replace(networks.confidence, watch=None)
    return kept


def voice_pairs(
    clips: Sequence[Clip], pairs: int, seed: int = 0, *, alike: bool = False
) -> Iterator[VoicePair]:
    """So many pairs of different labels of every speaker, or of the same one, drawn by chance."""
    rng = np.random.default_rng(seed)
    for speaker in sorted({clip.group for clip in clips}):
        mine = [clip for clip in clips if clip.group == speaker]
        other = [(a, b) for a, b in itertools.permutations(mine, 2) if (a.truth == b.truth) == alike]
        for at in rng.choice(len(other), min(pairs, len(other)), replace=False):
            first, second = other[at]
            yield joined(first, second, gap_s=float(rng.uniform(*GAPS_S)))


def joined(first: Clip, second: Clip, gap_s: float) -> VoicePair:
    """One after the other, over the faint hiss that every microphone has."""
    parts = [np.zeros(round(LEAD_S * SAMPLE_RATE)), first.content, np.zeros(round(gap_s * SAMPLE_RATE))]
    begin = sum(map(len, parts))
    whole = np.concatenate([*parts, second.content, np.zeros(round(AFTER_S * SAMPLE_RATE))])
    whole = whole.astype(np.float32)
    whole += np.random.default_rng(0).normal(0, 1e-4, len(whole)).astype(np.float32)
    (first_s, _), (onset_s, end_s) = _spoken(first, len(parts[0])), _spoken(second, begin)
    return VoicePair(whole, first_s, LABELS[first.truth], onset_s, end_s, LABELS[second.truth])


def _spoken(clip: Clip, begin: int) -> tuple[float, float]:
    """From when to when there is speech in a recording that begins at a sample."""
    spoken = np.flatnonzero(loud(np.asarray(clip.content, np.float32))) / 100
    return begin / SAMPLE_RATE + float(spoken[0]), begin / SAMPLE_RATE + float(spoken[-1])


def loud(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(hundredths of a second,): within 30 dB of the loud ones."""
    step = SAMPLE_RATE // 100
    power = (samples[: len(samples) // step * step].reshape(-1, step) ** 2).mean(1)
    return np.asarray(power > np.percentile(power, 95) * 1e-3)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceDelays:
    """What became of pairs of recordings."""

    right_s: NDArray[np.float64]
    """From the onset of each second one to its label; infinite where that was never shown."""
    labelled: float
    """Share of the second ones that got any label."""
    right: float
    """Share of the time, from the first word on, in which the label of what was said last is shown."""
    wrong: float
    """The same of another label; the rest is 'not sure'."""
    changes: float
    """From one label to another in one pair: one where the labels are two."""


def delays_of(which: Sequence[VoicePair], tools: Tools) -> VoiceDelays:
    """The labels that are shown of pairs, and when."""
    right_s, labelled, changes, judged = [], 0, 0, list[bool | None]()
    for pair in which:
        said = [(one.at_ns / SECOND, one.label) for one in told(pair.samples, tools)]
        shown = [(at, label, truth) for at, label in said if (truth := pair.said_last(at))]
        judged += [None if label == NOT_SURE else label == truth for _, label, truth in shown]
        sure = [(at, label) for at, label, _ in shown if label != NOT_SURE]
        changes += sum(a != b for (_, a), (_, b) in itertools.pairwise(sure))
        second = [(at - pair.onset_s, label) for at, label in sure if at >= pair.onset_s]
        labelled += bool(second)
        right_s.append(next((delay_s for delay_s, label in second if label == pair.truth), np.inf))
    count = max(len(judged), 1)
    right, wrong = judged.count(True) / count, judged.count(False) / count
    return VoiceDelays(np.array(right_s), labelled / len(which), right, wrong, changes / len(which))


def words_live(sound: NDArray[np.float32], tools: WordTools) -> tuple[str, NDArray[np.float64]]:
    """What is believed in the end, and (words, 2): from the end of each word until it is shown, and believed.

    Sound comes in tenths of a second and every pass that is due is made at once.
    """
    ring = AudioRing(20 * SAMPLE_RATE)
    analyzer = WordsAnalyzer("mic", ring, tools)
    shown: dict[tuple[int, int, str], float] = {}
    sure: dict[tuple[int, int, str], tuple[float, float]] = {}
    newest, cursor = {}, 0
    for first in range(0, len(sound) + 1, BLOCK):
        if len(block := sound[first : first + BLOCK]):
            ring.push(AudioBlock("mic", first, first * SECOND // SAMPLE_RATE, block))
            while analyzer.step():
                pass
        else:
            analyzer.finish()
        now_s, batch = (first + len(block)) / SAMPLE_RATE, analyzer.said.read_since(cursor)
        cursor = batch.cursor
        for form in batch.items:
            newest[form.number] = form
            for place, word in enumerate(form.words):
                key = form.number, place, plain(word.text)
                shown.setdefault(key, now_s)
                if word.final:
                    sure.setdefault(key, (now_s, word.end_ns / SECOND))
    analyzer.finish()
    for form in analyzer.said.read_since(cursor).items:
        newest[form.number] = form
    delays = [(max(0.0, shown[key] - end), max(0.0, at_s - end)) for key, (at_s, end) in sure.items()]
    text = " ".join(word.text for _, form in sorted(newest.items()) for word in form.words if word.final)
    return text, np.array(delays, np.float64).reshape(-1, 2)
