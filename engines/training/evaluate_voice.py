"""Judges a voice network on speakers it never heard, through the engines that a person would run.

The files that are shipped hear every recording as a microphone would bring it: piece by piece, from cold,
deciding themselves what is speech. A recording in which they hear none counts as a wrong answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.model import presets
from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS, SpeakerStatistics
from liveaffect.engines.training import sound_store, splits, synthetic_sounds
from liveaffect.engines.training.listen import SPEECH, Heard, listen
from liveaffect.engines.training.pictures import write_pictures
from liveaffect.engines.training.replay_statistics import Replay
from liveaffect.engines.training.scores import Scores, accuracy, score, to_markdown, unweighted_recall
from liveaffect.engines.training.sided_voices import (
    UNHEARD,
    RecordedVoices,
    found_in,
    of_corpora,
    pooled_scores,
    sided,
    voices,
)
from liveaffect.engines.training.voice_batches import Recording, unspoken

SPEECH_S = (1.0, 2.0, 4.0)
NOISES_EACH, NOISES_SEED = 8, 99
"""Other made sounds than those trained on."""
Report = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceVerdict:
    """What one precision of a network is worth on one corpus."""

    corpus: str
    precision: str
    names: tuple[str, ...]
    speakers: tuple[str, ...]
    truth: NDArray[np.int64]
    scores: NDArray[np.float64]
    """(n, 8): probabilities from the whole recording; the last column is 'no speech heard'."""
    whole: Scores
    after_s: Mapping[float, float]
    """Unweighted recall after so many seconds of speech."""
    second_take: float
    """Unweighted recall when another recording of the speaker came before: known statistics."""
    each_speaker: Mapping[str, float] = field(default_factory=dict)
    """Accuracy."""

    @property
    def title(self) -> str:
        """What the manifest keeps its figures under."""
        return f"{self.corpus} test side, {self.precision}"

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "items": self.whole.items,
            "accuracy": round(self.whole.accuracy, 4),
            "unweighted_recall": round(self.whole.unweighted_recall, 4),
            "macro_f1": round(self.whole.macro_f1, 4),
            "after_speech_s": {str(s): round(found, 4) for s, found in self.after_s.items()},
            "speaker_known": round(self.second_take, 4),
            "worst_speaker": round(min(self.each_speaker.values()), 4),
            "unheard": int((self.scores.argmax(1) == UNHEARD).sum()),
        }

    def markdown(self) -> str:
        """Its tables, for `docs/results.md`."""
        after = ", ".join(f"{found:.3f} after {s:g} s" for s, found in self.after_s.items())
        each = ", ".join(f"{speaker} {found:.3f}" for speaker, found in self.each_speaker.items())
        return (
            f"{self.corpus}, {self.precision}, {len(set(self.speakers))} speakers:\n\n"
            f"{to_markdown(self.whole, (*LABELS, 'unheard'))}\n"
            f"Unweighted recall: {after} of speech; {self.second_take:.3f} when the speaker was heard "
            f"before. Accuracy of each speaker: {each}.\n"
        )

    def table(self) -> str:
        """One line a recording, from which every figure on whole recordings can be made again."""
        lines = [",".join(["corpus", "precision", "name", "speaker", "truth", *LABELS, "unheard"])]
        for name, speaker, truth, row in zip(self.names, self.speakers, self.truth, self.scores, strict=True):
            cells = [f"{value:.4f}" for value in row]
            lines.append(",".join([self.corpus, self.precision, name, speaker, LABELS[truth], *cells]))
        return "\n".join(lines) + "\n"


def evaluate_voice(
    data: Path,
    *,
    weights: Path | None = None,
    out: Path | None = None,
    side: str = "test",
    report: Report = _log.info,
) -> list[VoiceVerdict]:
    """Judge the weights of the package or of a folder on one side; writes tables into `out`.

    Raises EngineFileError if the network was trained on other sides than these.
    """
    folder = weights or manifests.SHIPPED
    found = manifests.read(folder / "voice.json")
    network = presets.build("voice", found.preset)
    assert isinstance(network, VoiceNetwork)
    frozen = splits.FROZEN if weights is None else folder / splits.FROZEN.name
    # A corpus that it did not learn from has no sides for it: every speaker of that one is a stranger.
    learnt = found.training.get("corpora", ())
    takes = {corpus: these for corpus, these in found_in(data).items() if corpus in learnt}
    sides = sided(takes, frozen, add=False)
    held = {corpus: [t for t in these if sides[0][t.speaker] == side] for corpus, these in takes.items()}
    held = {corpus: these for corpus, these in held.items() if these}
    splits.refuse_other_sides(found, tuple(takes), sides[1])
    replay = Replay(network.sound)
    kept = voices(held, sides, replay, sound_store.default_folder(), report)
    verdicts = judge_recordings(found, folder, kept, replay, side)
    text = "\n".join(verdict.markdown() for verdict in verdicts) + "\n" + against(verdicts)
    text += "\n" + speech_told(found, folder, kept.sides[side], replay)
    report(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        manifests.write_whole(out / "voice.md", text.encode())
        manifests.write_whole(out / "voice.csv", "".join(verdict.table() for verdict in verdicts).encode())
        write_pictures(out, {f"voice-{v.corpus}-{v.precision}": v.whole for v in verdicts}, folder)
    return verdicts


def judge_recordings(
    found: Manifest, folder: Path, kept: RecordedVoices, replay: Replay, side: str
) -> list[VoiceVerdict]:
    """Let every precision hear every recording of one side."""
    recordings = kept.sides[side]
    pieces = [replay.samples(one.samples) for one in recordings]
    verdicts = []
    for precision in manifests.PRECISIONS:
        if not found.has(precision):
            continue
        engine = OnnxEngine(found, folder, precision)
        cold = listen(engine.infer, pieces, found.recipe.hop)
        known = known_speakers(recordings, cold, replay)
        warm = listen(engine.infer, pieces, found.recipe.hop, known)
        engine.close()
        for corpus, at in of_corpora(recordings).items():
            chosen = [recordings[i] for i in at]
            answers = [[heard[i] for i in at] for heard in (cold, warm)]
            verdicts.append(_voice_verdict(corpus, precision, chosen, answers))
    return verdicts


def known_speakers(
    recordings: Sequence[Recording], cold: Sequence[Heard], replay: Replay
) -> list[SpeakerStatistics]:
    """The statistics each recording begins with if some other one of its speaker was heard just before."""
    newest: dict[str, int] = {}
    start = [SpeakerStatistics.cold() for _ in recordings]
    for index in map(int, np.random.default_rng(0).permutation(len(recordings))):
        take = recordings[index].take
        speaker = take.speaker if take else ""
        if (earlier := newest.get(speaker)) is not None:
            replay.run(recordings[earlier].picture, cold[earlier].speech, start[index])
        newest[speaker] = index
    return start


def against(verdicts: Sequence[VoiceVerdict]) -> str:
    """How INT8 differs from fp32, in one line a corpus."""
    lines = []
    for corpus in dict.fromkeys(verdict.corpus for verdict in verdicts):
        pair = [verdict for verdict in verdicts if verdict.corpus == corpus]
        if len(pair) != 2:
            continue
        full, small = pair
        flips = float((full.scores.argmax(1) != small.scores.argmax(1)).mean())
        change = 100 * (small.whole.unweighted_recall - full.whole.unweighted_recall)
        lines.append(
            f"INT8 on {corpus}: {change:+.1f} points, {flips:.2%} of the recordings called otherwise.\n"
        )
    return "".join(lines)


def speech_told(found: Manifest, folder: Path, recordings: Sequence[Recording], replay: Replay) -> str:
    """How well it tells speech from made sounds it was not trained on, in fp32; a table."""
    engine = OnnxEngine(found, folder)
    lines = ["| sound | pieces | taken for speech |", "|---|---|---|"]
    bank = synthetic_sounds.bank(NOISES_EACH, NOISES_SEED)
    kinds: dict[str, list[Recording]] = {kind: unspoken(sounds, replay) for kind, sounds in bank.items()}
    kinds["real speech"] = list(recordings[:: max(1, len(recordings) // 100)])
    for kind, these in kinds.items():
        answers = listen(engine.infer, [replay.samples(one.samples) for one in these], found.recipe.hop)
        told = np.concatenate([answer.speech for answer in answers])
        if kind == "real speech":
            is_speech = np.concatenate([replay.speech(one.speech) for one in these]) > 0.9
            told = told[is_speech]
        lines.append(f"| {kind} | {len(told)} | {(told >= SPEECH).mean():.1%} |")
    engine.close()
    return "\n".join(lines) + "\n"


def _voice_verdict(
    corpus: str, precision: str, recordings: Sequence[Recording], answers: Sequence[Sequence[Heard]]
) -> VoiceVerdict:
    cold, warm = answers
    truth = np.array([one.label for one in recordings])
    among = np.unique(truth)
    speakers = tuple(one.take.speaker for one in recordings if one.take)
    scores = pooled_scores(cold, among)

    def recall(heard: Sequence[Heard]) -> float:
        return unweighted_recall(truth, pooled_scores(heard, among).argmax(1), UNHEARD + 1)

    right = {s: np.array([one == s for one in speakers], np.bool_) for s in sorted(set(speakers))}
    return VoiceVerdict(
        corpus=corpus,
        precision=precision,
        names=tuple(one.take.name for one in recordings if one.take),
        speakers=speakers,
        truth=truth,
        scores=scores,
        whole=score(truth, scores, groups=speakers),
        after_s={s: recall([one.until(s) for one in cold]) for s in SPEECH_S},
        second_take=recall(warm),
        each_speaker={s: accuracy(truth[at], scores[at].argmax(1)) for s, at in right.items()},
    )
