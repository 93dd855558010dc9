"""The three engines of a run, asked in one go: submit everything, wait once, survive a failing one.

An engine that raises, as it does for an answer that is not a number, costs its modality for this step
and is counted; after three failures in a row it is left alone and the overlay says so. The rest of the
path goes on.

The fusion network is an engine like the others: `fuse` lays its inputs out for all people at once and reads
its answer. A modality without evidence is zeros with mask 0, never a made-up average. One of quality q is
taken for there with probability q: the network is asked with it and without it, and the answers are mixed,
so poor light or noise makes its weight fall, whatever the network learnt. Words join behind it, as far as
they tell of an emotion and are not long ago; a fusion that learnt from words is given them and weighs them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import FUSION_INPUTS, Engine, EngineError, Pending, Staging, Tensors
from liveaffect.engines.recipe import SUBSETS, Statistics
from liveaffect.realtime import cue
from liveaffect.realtime.estimate import Confidence, Estimate, SpokenEvidence, SpokenOpinion, softmax

GIVE_UP_AFTER = 3
"""Failures in a row after which an engine is not called again."""

Row = dict[str, NDArray[Any]]
"""One item's inputs or answers, without the batch axis."""
LEAST_SAY = 0.02
"""The worst evidence counts this much, so that something is said where all of it is bad."""


@runtime_checkable
class Noticing(Protocol):
    """An engine that may have something to tell the user, such as that it lost its GPU."""

    @property
    def notice(self) -> str | None:
        """One line, or None."""
        ...


@runtime_checkable
class Remote(Protocol):
    """An engine on servers: it answers within its time or is stood in for by this machine."""

    crops: Counter[str]

    @property
    def standing_in(self) -> bool:
        """Whether this machine does the servers' work at the moment."""
        ...

    @property
    def answers_within_s(self) -> float:
        """How old a question may grow before its answer comes."""
        ...


class _Asked:
    """One engine and how it has been doing."""

    def __init__(self, modality: str, engine: Engine) -> None:
        self.modality = modality
        self.engine = engine
        self.failures = 0
        self.in_a_row = 0
        self.message: str | None = None
        self._noticing = engine if isinstance(engine, Noticing) else None
        self._staging = engine if isinstance(engine, Staging) else None

    @property
    def given_up(self) -> bool:
        return self.in_a_row >= GIVE_UP_AFTER

    @property
    def notice(self) -> str | None:
        """What the engine has to tell."""
        return None if self._noticing is None else self._noticing.notice

    def submit(self, rows: Sequence[Row]) -> list[tuple[int, Pending | None]]:
        """Hand in all rows in batches the engine takes; None where that failed at once."""
        size = self.engine.spec.max_batch
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        return [(len(part), self._submit(part)) for part in parts]

    def collect(self, pending: Sequence[tuple[int, Pending | None]]) -> list[Row | None]:
        """Wait, and take the answers apart again; None for every row whose batch failed."""
        answers: list[Row | None] = []
        for count, work in pending:
            outputs = None if work is None else self._result(work)
            if outputs is None:
                answers.extend([None] * count)
            else:
                answers.extend({name: array[i] for name, array in outputs.items()} for i in range(count))
        return answers

    def _submit(self, part: Sequence[Row]) -> Pending | None:
        if self.given_up:
            return None
        try:
            # Crops and samples were checked where they were captured, so they go straight to where they
            # are fetched from.
            room = self._staging.stage(len(part)) if self._staging is not None else None
            if room is None:
                return self.engine.submit({name: np.stack([row[name] for row in part]) for name in part[0]})
            for name, rows in room.inputs.items():
                for at, row in enumerate(part):
                    rows[at] = row[name]
            return room.submit()
        except EngineError as error:
            self._failed(str(error))
            return None

    def _result(self, work: Pending) -> Tensors | None:
        try:
            outputs = work.result()
        except EngineError as error:
            self._failed(str(error))
            return None
        self.in_a_row = 0
        self.message = None
        return outputs

    def _failed(self, message: str) -> None:
        self.failures += 1
        self.in_a_row += 1
        self.message = f"{self.modality} network failed: {message}"


@dataclass(frozen=True, slots=True, eq=False)
class LighterVoice:
    """What takes the place of a heavy voice network while the machine is late. It takes the same pieces."""

    voice: Engine
    fusion: Engine
    confidence: Confidence
    statistics: Statistics


class Networks:
    """Face, voice and fusion engine of a run, and how far they are believed. One caller."""

    def __init__(
        self,
        face: Engine,
        voice: Engine,
        fusion: Engine,
        confidence: Confidence | None = None,
    ) -> None:
        self.confidence = confidence or Confidence()
        self.lighter: LighterVoice | None = None
        self._face = _Asked("face", face)
        self._voice = _Asked("voice", voice)
        self._fusion = _Asked("fusion", fusion)
        self._resting: tuple[_Asked, _Asked, Confidence] | None = None
        self._light = False

    def keep_ready(self, lighter: LighterVoice) -> None:
        """Have a lighter voice at hand, warmed up, before the first step."""
        for engine in (lighter.voice, lighter.fusion):
            engine.warm_up()
        self.lighter = lighter
        self._resting = (
            _Asked("voice", lighter.voice),
            _Asked("fusion", lighter.fusion),
            lighter.confidence,
        )

    def listen_lightly(self, on: bool) -> bool:
        """Let the lighter voice judge, or the usual one again; whether that changed anything.

        The two do not share what they know of a speaker: who listens begins anew.
        """
        if self._resting is None or on == self._light:
            return False
        usual = (self._voice, self._fusion, self.confidence)
        self._voice, self._fusion, self.confidence = self._resting
        self._resting, self._light = usual, on
        return True

    def ask(self, crops: Sequence[Row], pieces: Sequence[Row]) -> tuple[list[Row | None], list[Row | None]]:
        """Faces and sound together: both are submitted before either is waited for."""
        faces = self._face.submit(crops)
        voices = self._voice.submit(pieces)
        return self._face.collect(faces), self._voice.collect(voices)

    def fuse(self, people: Tensors) -> list[Row | None]:
        """One answer for each person; the batch axis is the people."""
        count = len(next(iter(people.values())))
        rows = [{name: array[i] for name, array in people.items()} for i in range(count)]
        return self._fusion.collect(self._fusion.submit(rows))

    def engine(self, modality: str) -> Engine:
        """What runs that network, for measuring it."""
        return next(asked.engine for asked in self._all() if asked.modality == modality)

    @property
    def model(self) -> str:
        """Short hash of all weights together, for the cues."""
        names = [asked.engine.spec.model for asked in self._all()]
        if len(set(names)) == 1:
            return names[0]
        return hashlib.sha256("/".join(names).encode()).hexdigest()[:6]

    def trained(self, modality: str) -> bool:
        """Whether that network has ever learnt anything."""
        return any(asked.engine.spec.trained for asked in self._all() if asked.modality == modality)

    def judges(self, modality: str) -> bool:
        """Whether the answers about face or voice count.

        Beside a trained network an untrained one would only spoil the answer; with none trained all of
        them play, so that the whole path can be seen at work.
        """
        return self.trained(modality) or not (self.trained("face") or self.trained("voice"))

    @property
    def weigh_words(self) -> bool:
        """Whether the fusion learnt how much words count."""
        return self._fusion.engine.spec.weighs_words

    @property
    def caveat(self) -> str | None:
        """What must be said about the answers as long as not everything was trained."""
        if not (self.trained("face") or self.trained("voice")):
            return "no trained network yet: the answers mean nothing"
        for modality, others in (("face", "voices"), ("voice", "faces")):
            if not self.trained(modality):
                return f"no trained {modality} network yet: only {others} are judged"
        return None

    @property
    def name(self) -> str:
        """What runs the face network, for the health line."""
        return self._face.engine.spec.name

    @property
    def names(self) -> tuple[str, ...]:
        """What runs each network, each once."""
        return tuple(dict.fromkeys(asked.engine.spec.name for asked in self._all()))

    @property
    def failures(self) -> dict[str, int]:
        """How often each network failed so far."""
        return {asked.modality: asked.failures for asked in self._all()}

    @property
    def failing(self) -> dict[str, str]:
        """The networks that failed the last time they were asked, with the message."""
        return {asked.modality: asked.message for asked in self._all() if asked.message is not None}

    @property
    def notices(self) -> tuple[str, ...]:
        """What the engines have to tell the user, each line once."""
        return tuple(dict.fromkeys(asked.notice for asked in self._all() if asked.notice is not None))

    @property
    def standing_in(self) -> bool:
        """Whether this machine judges faces in the place of servers that are lost."""
        face = self._face.engine
        return isinstance(face, Remote) and face.standing_in

    @property
    def faces_within_s(self) -> float:
        """How long servers may take to judge a face; 0 where no server is asked."""
        face = self._face.engine
        return face.answers_within_s if isinstance(face, Remote) else 0.0

    def asked_of_servers(self) -> Counter[str]:
        """What became of every item that servers were to judge; empty without servers."""
        counts = Counter[str]()
        for asked in self._all():
            if isinstance(asked.engine, Remote):
                counts.update({f"{asked.modality}s {end}": n for end, n in asked.engine.crops.items()})
        return counts

    def warm_up(self) -> None:
        """Do once what only the first call does slowly."""
        for asked in self._all():
            asked.engine.warm_up()

    def forgive(self) -> None:
        """Begin anew: an engine that failed in an earlier run is asked again."""
        for asked in self._all():
            asked.in_a_row, asked.message = 0, None

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        for asked in (*self._all(), *(self._resting or ())[:2]):
            asked.engine.close()

    def _all(self) -> tuple[_Asked, _Asked, _Asked]:
        return self._face, self._voice, self._fusion


def views(estimate: Estimate) -> list[tuple[Estimate, float]]:
    """The same with everything, and with one of two left out, each with its share; they sum to one."""
    if estimate.face is None or estimate.voice is None:
        return [(estimate, 1.0)] if estimate.subset else []
    face, voice = (min(max(one.say, LEAST_SAY), 1.0) for one in (estimate.face, estimate.voice))
    if face * voice == 1.0:
        return [(estimate, 1.0)]
    shares = (face * voice, face * (1.0 - voice), (1.0 - face) * voice)
    seen = (estimate, replace(estimate, voice=None), replace(estimate, face=None))
    return [(view, share / sum(shares)) for view, share in zip(seen, shares, strict=True) if share]


def fusion_inputs(people: Sequence[Estimate]) -> dict[str, NDArray[Any]]:
    """The fusion network's inputs for all people, one row each."""
    tensors = {t.name: np.zeros((len(people), *t.shape), np.float32) for t in FUSION_INPUTS}
    for row, person in enumerate(people):
        for column, (name, opinion) in enumerate((("face", person.face), ("voice", person.voice))):
            if opinion is None:
                continue
            tensors[f"{name}_short"][row] = opinion.short.vector
            tensors[f"{name}_long"][row] = opinion.long.vector
            tensors[f"{name}_logits"][row] = opinion.short.logits
            tensors["mask"][row, column] = 1.0
        if (said := person.words) and said.weighed and said.fresh:
            tensors["words_logits"][row] = np.log(np.maximum(said.scores, 1e-9))
            tensors["mask"][row, 2] = said.fresh
    return tensors


def fuse(people: Sequence[Estimate], ask: Callable[[Tensors], Sequence[Tensors | None]]) -> list[Estimate]:
    """Everybody with what their evidence comes to, from one call; without it where there was no answer."""
    asked = [(at, *view) for at, person in enumerate(people) for view in views(person)]
    answers = ask(fusion_inputs([view for _, view, _ in asked])) if asked else []
    found: list[list[tuple[str, float, Tensors]] | None] = [[] for _ in people]
    for (at, view, share), answer in zip(asked, answers, strict=True):
        parts = found[at]
        if answer is None or parts is None:
            found[at] = None
        else:
            parts.append((view.subset, share, answer))
    return [_answered(person, parts or []) for person, parts in zip(people, found, strict=True)]


def spoken_opinion(
    heard: SpokenEvidence | None, now_ns: int, *, weighed: bool = False
) -> SpokenOpinion | None:
    """What somebody's last words say, and how far it still counts; `weighed` where the fusion gets them."""
    if heard is None:
        return None
    age_ns = cue.age_ns(now_ns, heard.captured_ns)
    return SpokenOpinion(softmax(heard.logits), cue.WORDS.share(age_ns), weighed)


def _answered(person: Estimate, parts: Sequence[tuple[str, float, Tensors]]) -> Estimate:
    if not parts:
        return person
    logits, shares, weights = person.logits.copy(), list(person.shares), np.zeros(3)
    for subset, share, answer in parts:
        row = SUBSETS.index(subset)
        logits[row], shares[row] = answer["logits"], share
        weights += share * np.asarray(answer["weights"], np.float64)
    face, voice, words = weights.tolist()
    if person.words is not None:
        said = person.words.weight
        face, voice, words = face * (1.0 - said), voice * (1.0 - said), words * (1.0 - said) + said
    return replace(person, logits=logits, shares=tuple(shares), weights=(face, voice, words))
