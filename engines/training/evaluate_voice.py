"""Judges voice networks on speakers they never heard, through the engines that a person would run.

The files that are shipped hear every recording as a microphone would bring it: piece by piece, from cold or
after others of its speaker, deciding themselves what is speech. A recording in which they hear none counts as
a wrong answer. The full voice is judged beside the small one wherever Whisper is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines import whisper
from liveaffect.engines.load import FULL
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import corpora_voices, splits, synthetic_sounds
from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.listen import SPEECH, listen
from liveaffect.engines.training.piece_bank import spoken
from liveaffect.engines.training.scores import Scores, markdown_table, score, to_markdown, write_pictures
from liveaffect.engines.training.splits import found_in, on_side, sided
from liveaffect.engines.training.voice_answers import (
    COLD,
    KNOWN,
    VoiceAnswer,
    answer_of,
    recalls,
    write_answers,
)

SPEECH_S = (1.0, 2.0, 4.0)
SMALL = "small"
NOISES_EACH, NOISES_SEED = 8, 99
"""Other made sounds than those trained on."""
REAL_SPEECH, MOST_REAL = "real speech", 100
Report = Callable[[str], None]
Sound = np.ndarray[Any, np.dtype[np.floating[Any]]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VoiceVerdict:
    """What one precision of one voice said of the test side."""

    voice: str
    """'small' or 'full'."""
    precision: str
    answers: tuple[VoiceAnswer, ...]
    speech: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """By kind of sound: pieces, and the share of them that was taken for speech."""

    @property
    def name(self) -> str:
        """Such as 'small-int8'."""
        return f"{self.voice}-{self.precision}"

    @property
    def corpora(self) -> list[str]:
        """Those with a recording on this side."""
        return sorted({one.corpus for one in self.answers})

    def of(self, corpus: str, known: str = COLD) -> list[VoiceAnswer]:
        """The answers about one corpus."""
        return [one for one in self.answers if (one.corpus, one.known) == (corpus, known)]

    def figures(self) -> dict[str, Any]:
        """For the manifest: one entry a corpus."""
        return {f"{corpus} test side, {self.precision}": self._figures(corpus) for corpus in self.corpora}

    def _figures(self, corpus: str) -> dict[str, Any]:
        cold = self.of(corpus)
        whole, after = scores_of(cold), recalls(cold)[1:]
        right = {who: [a.called == a.truth for a in cold if a.speaker == who] for who in _speakers(cold)}
        return {
            "items": whole.items,
            "accuracy": round(whole.accuracy, 4),
            "unweighted_recall": round(whole.unweighted_recall, 4),
            "macro_f1": round(whole.macro_f1, 4),
            "after_speech_s": {str(s): round(x, 4) for s, x in zip(SPEECH_S, after, strict=True)},
            "speaker_known": round(recalls(self.of(corpus, KNOWN))[0], 4),
            "worst_speaker": round(min(float(np.mean(these)) for these in right.values()), 4),
            "unheard": sum(bool(np.isnan(one.logits).all()) for one in cold),
        }

    def markdown(self) -> str:
        """Its tables, for people."""
        parts = [f"{self.voice} voice, {self.precision}\n"]
        for corpus in self.corpora:
            told = {
                how: " / ".join(f"{x:.3f}" for x in recalls(self.of(corpus, how))) for how in (COLD, KNOWN)
            }
            parts.append(
                f"{corpus}, {len(_speakers(self.of(corpus)))} speakers; unweighted recall whole / after "
                f"{' / '.join(f'{s:g} s' for s in SPEECH_S)}: cold {told[COLD]}, known {told[KNOWN]}\n\n"
                + to_markdown(scores_of(self.of(corpus)), (*LABELS, "unheard"))
            )
        if self.speech:
            rows = [(kind, count, f"{share:.1%}") for kind, (count, share) in self.speech.items()]
            parts.append(markdown_table(("sound", "pieces", "taken for speech"), rows))
        return "\n".join(parts)


def scores_of(answers: Sequence[VoiceAnswer]) -> Scores:
    """Everything that is said of whole recordings; the last column is 'no speech heard'."""
    logits = np.array([one.logits for one in answers])
    silent: NDArray[np.bool_] = np.all(np.isnan(logits), axis=1)
    unheard = silent.astype(np.float64)
    logits = np.where(np.isnan(logits), -np.inf, logits)
    logits[silent] = 0.0
    raised = np.exp(logits - logits.max(1, keepdims=True)) * (1 - unheard[:, None])
    shares = raised / np.maximum(raised.sum(1, keepdims=True), 1e-9)
    truth = np.array([one.truth for one in answers])
    return score(truth, np.column_stack([shares, unheard]), groups=[one.speaker for one in answers])


def evaluate_voice(
    data: Path,
    *,
    weights: Path | None = None,
    out: Path | None = None,
    side: str = "test",
    report: Report = _log.info,
) -> list[VoiceVerdict]:
    """Judge the voices of the package or of a folder on one side; writes tables into `out`.

    Raises EngineFileError if a network was trained on other sides than these.
    """
    folder = weights or manifests.SHIPPED
    frozen = splits.FROZEN if weights is None else folder / splits.FROZEN.name
    verdicts: list[VoiceVerdict] = []
    for voice, where in ((SMALL, folder), (FULL, folder / FULL)):
        if not (where / "voice.json").exists():
            continue
        found = manifests.read(where / "voice.json")
        if why := whisper.why_not(found):
            report(f"{voice} voice: not judged, {why}")
            continue
        # A corpus that it did not learn from has no sides for it: every speaker of that one is a stranger.
        learnt = found.training.get("corpora", ())
        takes = {corpus: these for corpus, these in found_in(data).items() if corpus in learnt}
        splits.refuse_other_sides(found, tuple(takes), sided(takes, frozen, add=False)[1])
        verdicts += _judged(voice, found, where, on_side(takes, side, frozen), report)
    text = "\n".join(verdict.markdown() for verdict in verdicts)
    report(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        manifests.write_whole(out / "voice.md", text.encode())
        for verdict in verdicts:
            manifests.write_whole(out / f"voice-{verdict.name}.csv", write_answers(verdict.answers).encode())
            whole = {f"voice-{c}-{verdict.name}": scores_of(verdict.of(c)) for c in verdict.corpora}
            write_pictures(out, whole, folder)
    return verdicts


def _judged(
    voice: str, found: Manifest, folder: Path, held: Mapping[str, Sequence[Take]], report: Report
) -> list[VoiceVerdict]:
    every = [take for these in held.values() for take in these]
    sounds = [
        sound
        for these in held.values()
        for sound in corpora_voices.load_takes(these, corpora_voices.default_folder(), report)
    ]
    verdicts = []
    for precision in manifests.PRECISIONS:
        if found.has(precision):
            with closing(OnnxEngine(found, folder, precision)) as engine:
                answers = [*_answers(engine, found, every, sounds, known=False)]
                answers += _answers(engine, found, every, sounds, known=True)
                told = speech_told(engine, found, sounds)
            verdicts.append(VoiceVerdict(voice, precision, tuple(answers), told))
    return verdicts


def _answers(
    engine: OnnxEngine, found: Manifest, takes: Sequence[Take], sounds: Sequence[Sound], *, known: bool
) -> list[VoiceAnswer]:
    speakers = [take.speaker for take in takes] if known else None
    heard = listen(engine.infer, found.recipe, sounds, speakers)
    has = {
        corpus: np.unique([LABELS.index(take.label) for take in takes if take.corpus == corpus])
        for corpus in {take.corpus for take in takes}
    }
    return [
        answer_of(take, one, has[take.corpus], known, SPEECH_S)
        for take, one in zip(takes, heard, strict=True)
    ]


def speech_told(engine: OnnxEngine, found: Manifest, sounds: Sequence[Sound]) -> dict[str, tuple[int, float]]:
    """How many pieces of made sounds it was not trained on, and of real speech, are taken for speech."""
    hop, told = found.recipe.hop, {}
    sounds_made = {
        **synthetic_sounds.bank(NOISES_EACH, NOISES_SEED),
        **synthetic_sounds.unlearnt(NOISES_EACH, NOISES_SEED),
    }
    for kind, made in sounds_made.items():
        said = np.concatenate([one.speech for one in listen(engine.infer, found.recipe, made)])
        told[kind] = (len(said), float((said >= SPEECH).mean()))
    real = sounds[:: max(1, len(sounds) // MOST_REAL)]
    heard = listen(engine.infer, found.recipe, real)
    loud = np.concatenate([spoken(s, hop, len(h.speech)) for s, h in zip(real, heard, strict=True)]) > 0.9
    said = np.concatenate([one.speech for one in heard])[loud]
    return {**told, REAL_SPEECH: (len(said), float((said >= SPEECH).mean()))}


def _speakers(answers: Sequence[VoiceAnswer]) -> list[str]:
    return sorted({one.speaker for one in answers})
