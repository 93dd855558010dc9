"""How much should words count beside face and voice? Learnt and judged on made-up pairs and real sentences.

    python benchmarks/accuracy/words_beside.py --data DIR [--takes 20]

No film at hand has all three, and the sentences of acted corpora are plain. So what face and voice say of
takes of RAVDESS, by networks that never heard the actor, meets comments of GoEmotions: of the same label, of
another one, of another emotion (irony), plain ones, or none, which words that are left out are. Twelve actors
and the development comments teach; eight actors and the test comments judge. What is learnt is one number,
the power to which words are believed, on equal shares of the first, second and fourth kind, so that two
comments in three are misleading.

Then what really is said: RAVDESS as tiny.en hears it, and nEMO, which has no face, as base translates it and
as tiny.en mishears it, `--takes` takes of every speaker.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE, SUBSETS
from liveaffect.engines.training import corpora_voices, pairs, train_fusion
from liveaffect.engines.training.evaluate_fusion import BOTH, Inputs, fused, fusion_temperature
from liveaffect.engines.training.scores import bootstrap, markdown_table, read_tables, score
from liveaffect.engines.training.train_words import Part, read_comments
from liveaffect.engines.training.voice_answers import COLD, FOLDS_OF, read_answers
from liveaffect.engines.transcriber import Transcriber
from liveaffect.engines.whisper import whisper_folder
from liveaffect.engines.word_emotions import load_judge
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.cue import NOT_SURE
from liveaffect.realtime.estimate import WORDS_GAIN, Estimate, Labeller, LabelSettings, Opinion, SpokenOpinion
from liveaffect.realtime.estimate import softmax as softmax_of
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.utterance import plausible, said

Numbers = NDArray[np.float64]
ANSWERS = Path(__file__).resolve().parents[2] / "docs/results/voice.tar.xz"
NEUTRAL, DRAWS = 0, 3
SAME, OTHER, PLAIN, IRONIC = "same label", "another label", "plain comments", "another emotion"
TAUGHT = (SAME, OTHER, PLAIN)


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Takes, what face and voice together come to, and the words that they meet."""

    truth: NDArray[np.int64]
    speakers: NDArray[np.str_]
    rest: Numbers
    """(n, 7): probabilities without words."""
    words: Numbers
    """(n, 7): logits; all alike where nothing was said."""

    def of(self, rows: NDArray[np.int64], words: Numbers) -> Meeting:
        """Some of the takes, with other words."""
        return Meeting(self.truth[rows], self.speakers[rows], self.rest[rows], words)


def softmax(logits: Numbers) -> Numbers:
    """Of every row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def without(meeting: Meeting, _: float = 0.0) -> Numbers:
    """Face and voice alone."""
    return meeting.rest


def mixed(meeting: Meeting, most: float = 0.3) -> Numbers:
    """The rule before: words' emotions mixed in, by up to so much as far as one leads neutral."""
    words = softmax(meeting.words)
    weight = most * np.maximum(0.0, words[:, 1:].max(1) - words[:, 0])[:, None]
    words[:, NEUTRAL] = 0.0
    return np.asarray((1.0 - weight) * meeting.rest + weight * words / words.sum(1, keepdims=True))


def multiplied(meeting: Meeting, gain: float = WORDS_GAIN) -> Numbers:
    """What ships: a product, an emotion's odds against neutral to the power of the gain."""
    odds = np.maximum(0.0, meeting.words - meeting.words[:, :1])
    raised = meeting.rest * np.exp(gain * odds)
    return np.asarray(raised / raised.sum(1, keepdims=True))


FORMS: dict[str, Callable[..., Numbers]] = {
    "no words": without,
    "mixed (before)": mixed,
    "product": multiplied,
}


def surprise(meeting: Meeting, told: Numbers) -> Numbers:
    """(n,): minus the logarithm of what was given to the truth."""
    return -np.log(np.maximum(told[np.arange(len(told)), meeting.truth], 1e-12))


def learn(taught: dict[str, Meeting], form: Callable[[Meeting, float], Numbers]) -> float:
    """The number with which the truth surprises least, every label and every kind of words counting alike."""

    def price(value: float) -> float:
        found = []
        for meeting in taught.values():
            each = surprise(meeting, form(meeting, value))
            found.append(np.mean([each[meeting.truth == label].mean() for label in range(len(LABELS))]))
        return float(np.mean(found))

    return float(min(np.arange(0.0, 1.001, 0.01), key=price))


def takes_of_ravdess(data: Path) -> tuple[pairs.Pairs, Meeting]:
    """Every take four times: by a voice network that knows the corpus or not, from cold or not."""
    real = pairs.read_pairs(data)
    fusion = manifests.read(manifests.SHIPPED / "fusion.json")
    faces = pairs.held_out_answers(real.face, real.truth, real.folds, seed=0)
    own = fusion_temperature(torch.from_numpy(faces), torch.from_numpy(real.truth))
    faces = np.asarray(faces * (fusion.training["temperature"]["face"] / own), np.float32)
    preset = manifests.read(manifests.SHIPPED / "voice.json").preset
    voices = train_fusion.voices_of(real, ANSWERS, preset, 0)
    with closing(OnnxEngine(fusion, manifests.SHIPPED)) as engine:
        rests = [
            fused(engine, Inputs(real.names, real.actors, real.truth, faces, voice), BOTH) for voice in voices
        ]
    count, rest = len(voices), believed(np.concatenate(rests), fusion, "face+voice")
    return real, Meeting(
        np.tile(real.truth, count), np.tile(np.array(real.actors), count), rest, np.zeros_like(rest)
    )


def believed(told: Numbers, fusion: manifests.Manifest, subset: str) -> Numbers:
    """As calibration found it right."""
    temperature = float(fusion.confidence["parts"][subset]["temperature"])
    return softmax(np.log(np.maximum(told, 1e-12)) / temperature)


def meet(takes: Meeting, comments: Part, seed: int) -> dict[str, Meeting]:
    """Takes with comments of every kind."""
    judge, rng = load_judge(), np.random.default_rng(seed)
    labels = np.where(comments.single, comments.labels.argmax(1), -1)
    found = [judge(text) for text in comments.texts]
    by_label = [
        np.array([logits for logits, own in zip(found, labels, strict=True) if own == label and logits])
        for label in range(len(LABELS))
    ]
    rows = np.tile(np.arange(len(takes.truth)), DRAWS)
    truth = takes.truth[rows]
    wrong = np.array([rng.choice([k for k in range(len(LABELS)) if k != own]) for own in truth])
    ironic = np.array([rng.choice([k for k in range(1, len(LABELS)) if k != own]) for own in truth])
    wanted = {SAME: truth, OTHER: wrong, IRONIC: ironic, PLAIN: np.full_like(truth, NEUTRAL)}
    return {
        kind: takes.of(rows, np.array([rng.choice(by_label[label]) for label in which]))
        for kind, which in wanted.items()
    }


def heard(whisper: str, sounds: Sequence[NDArray[np.floating]]) -> Numbers:
    """(n, 7): logits of what that Whisper makes of every sound, in English."""
    judge, ears = load_judge(), Transcriber(whisper_folder(whisper))
    found = []
    for sound in sounds:
        samples = np.asarray(sound, np.float32)
        of_it = ears.hear(samples)
        text = said(plausible(of_it, len(samples) / SAMPLE_RATE))
        if text and of_it.language != "en":
            text = ears.translate(samples, of_it.language)
        found.append(judge(text) or (0.0,) * len(LABELS))
    return np.array(found)


def as_said(data: Path, real: pairs.Pairs, takes: Meeting, most: int) -> dict[str, Meeting]:
    """What the corpora really say, so many takes of every speaker."""
    rng, found = np.random.default_rng(0), {}

    def some(names: Sequence[str], who: Sequence[str]) -> NDArray[np.int64]:
        order = rng.permutation(len(names)).tolist()
        return np.sort(np.concatenate([[at for at in order if who[at] == one][:most] for one in set(who)]))

    def sounds(corpus: str, names: Sequence[str]) -> list[NDArray[np.float16]]:
        every = corpora_voices.read_corpus(corpus, corpora_voices.find(data)[corpus])
        kept = [take for take in every if take.name in set(names)]
        order = {take.name: at for at, take in enumerate(kept)}
        decoded = corpora_voices.load_takes(kept, corpora_voices.default_folder())
        return [decoded[order[name]] for name in names]

    judged = np.flatnonzero(real.sides != "train")
    names = [f"03-{real.names[at]}" for at in judged]
    kept = some(names, [real.actors[at] for at in judged])
    rows = (judged[kept] + np.arange(0, len(takes.truth), len(real))[:, None]).ravel()
    words = heard("tiny.en", sounds("ravdess", [names[at] for at in kept]))
    found["RAVDESS as said"] = takes.of(rows, np.tile(words, (len(rows) // len(kept), 1)))
    fusion = manifests.read(manifests.SHIPPED / "fusion.json")
    preset = manifests.read(manifests.SHIPPED / "voice.json").preset
    text = read_tables(ANSWERS)[FOLDS_OF.format(preset=preset, run="nemo")]
    strange = [one for one in read_answers(text) if one.corpus == "nemo" and one.known == COLD]
    strange = [strange[at] for at in some([s.name for s in strange], [s.speaker for s in strange])]
    logits = np.nan_to_num(np.array([one.logits for one in strange]), nan=-10.0)
    logits /= float(fusion.training["temperature"]["voice"])
    nemo = Meeting(
        np.array([one.truth for one in strange]),
        np.array([one.speaker for one in strange]),
        believed(softmax(logits), fusion, "voice"),
        np.zeros_like(logits),
    )
    spoken = sounds("nemo", [one.name for one in strange])
    for whisper in ("base", "tiny.en"):
        found[f"nEMO through {whisper}"] = replace(nemo, words=heard(whisper, spoken))
    return found


def labelled(meeting: Meeting, subset: str, *, with_words: bool) -> tuple[float, float]:
    """The share that gets a label, and the share of wrong ones among those."""
    part = manifests.read(manifests.SHIPPED / "fusion.json").confidence["parts"][subset]
    settings = LabelSettings(thresholds={subset: part["threshold"]}, lively_price=0.0)
    look, blank = Pooled(np.zeros(64, np.float32), np.zeros(7, np.float32)), np.zeros((3, 7))
    opinion, right, raw = Opinion(0, look, look), [], []
    for truth, rest, words in zip(meeting.truth, meeting.rest, meeting.words, strict=True):
        logits = blank.copy()
        logits[SUBSETS.index(subset)] = np.log(np.maximum(rest, 1e-12))
        estimate = Estimate(
            0,
            1,
            face=opinion if "face" in subset else None,
            voice=opinion,
            evidence_ns=SECOND,
            logits=logits,
            shares=tuple(float(one == subset) for one in SUBSETS),
            words=SpokenOpinion(softmax_of(words)) if with_words else None,
        )
        told = Labeller(settings).label(estimate)
        raw.append(told.raw)
        if told.label != NOT_SURE:
            right.append(told.label == LABELS[truth])
    # What is judged beside this is what the product does.
    np.testing.assert_allclose(raw, multiplied(meeting) if with_words else meeting.rest, atol=1e-3)
    return len(right) / len(meeting.truth), 1.0 - float(np.mean(right))


def table(meetings: dict[str, Meeting], gain: float) -> str:
    """Every form with every kind of words."""
    rows = []
    for kind, meeting in meetings.items():
        subset = "voice" if kind.startswith("nEMO") else "face+voice"
        speakers = meeting.speakers.tolist()
        alone = surprise(meeting, meeting.rest)
        for name, form in FORMS.items():
            if form is without and kind in (OTHER, PLAIN, IRONIC):
                continue  # As with the same label: the takes are the same.
            told = form(meeting, gain) if form is multiplied else form(meeting)
            found = score(meeting.truth, told, groups=speakers, rounds=300)
            more = surprise(meeting, told) - alone
            draws = [more[at].mean() for at in bootstrap(len(more), speakers, 300, 0)]
            low, high = np.percentile(draws, [2.5, 97.5])
            given, wrong = "", ""
            if form is not mixed:
                share, risk = labelled(meeting, subset, with_words=form is multiplied)
                given, wrong = f"{share:.2f}", f"{risk:.3f}"
            least, most = found.unweighted_recall_between
            between = "" if form is without else f" ({low:+.3f} to {high:+.3f})"
            rows.append(
                (
                    kind,
                    name,
                    f"{found.accuracy:.3f}",
                    f"{found.unweighted_recall:.3f} ({least:.3f} to {most:.3f})",
                    f"{surprise(meeting, told).mean():.3f}{between}",
                    given,
                    wrong,
                )
            )
    heads = ("words", "joined", "accuracy", "unweighted recall", "NLL (change)", "labelled", "wrong of these")
    return markdown_table(heads, rows)


def main() -> None:
    """Learn the number, compare it with the one that ships, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--takes", type=int, default=20, help="of every speaker, for what is really said")
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = read_comments(given.data / "text/goemotions.tar.gz")
    real, takes = takes_of_ravdess(given.data)
    teaches = np.tile(real.sides == "train", len(takes.truth) // len(real))
    every = np.zeros_like(takes.rest)
    taught = meet(takes.of(np.flatnonzero(teaches), every[teaches]), parts["dev"], 0)
    gain = learn({kind: taught[kind] for kind in TAUGHT}, multiplied)
    lean = {"half of them true": (SAME, SAME, OTHER, PLAIN), "a quarter true": (SAME, OTHER, OTHER, PLAIN)}
    print(f"learnt: power {gain:.2f} (ships: {WORDS_GAIN}), ", end="")
    print(f"mixed {learn({kind: taught[kind] for kind in TAUGHT}, mixed):.2f}")
    for name, kinds in lean.items():
        found = learn({f"{at} {kind}": taught[kind] for at, kind in enumerate(kinds)}, multiplied)
        print(f"with {name}: power {found:.2f}")
    judged = meet(takes.of(np.flatnonzero(~teaches), every[~teaches]), parts["test"], 1)
    if given.takes:
        judged |= as_said(given.data, real, takes, given.takes)
    print(table(judged, gain))


if __name__ == "__main__":
    main()
