"""Learns the head of a voice network from a bank of pieces, in speakers' statistics as they are live.

Every recording is heard from cold or after others of its speaker, few or many, of all moods or of one; its
pieces are normalised with what came before them and with nothing that comes after. What is learnt is pooled
as live, under the weights that the pieces ask for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from liveaffect.engines.model.voice_statistics import HeadPreset, StatisticsHead, StatisticsVoice
from liveaffect.engines.recipe import LABELS, Statistics
from liveaffect.engines.training.listen import SPEECH, Heard
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank

_LIVE = Statistics(1, "pieces")
PRIOR_PIECES, LEAST_VARIANCE = _LIVE.prior_weight, _LIVE.least_variance
"""As live: the corpora's measure counts as much as this many pieces, and a mood is not normalised away."""
_LEAST_DEVIATION = 1e-3
FAR = -1e4
"""The logit of a label that the corpus lacks."""
NEUTRAL = LABELS.index("neutral")


@dataclass(frozen=True, slots=True)
class HeadSchedule:
    """How long and how fast, and how speakers are met."""

    steps: int = 900
    batch: int = 48
    rate: float = 1.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    warm: float = 0.6
    """Share of recordings that are heard after others of their speaker."""
    longest_past: int = 12
    one_mood: float = 0.3
    """Share of pasts that hold two labels only."""
    plain: float = 2.0
    """So many times as often as a mood plain talk is drawn: most talk is plain."""
    without_listener: float = 0.4
    without_layers: float = 0.2
    """Shares of recordings that are judged by one kind of statistics alone, where there are two."""
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Mean and deviation of the corpora's pieces: where every speaker begins."""

    mean: Tensor
    deviation: Tensor


class Voices:
    """A bank in the measure of its training speakers, with the sums that running statistics need."""

    def __init__(self, bank: PieceBank, measure: Measure) -> None:
        self.bank = bank
        self.start, self.end = bank.edges()
        self.z = torch.from_numpy(bank.statistics).clone()
        for at in range(0, len(self.z), 4096):
            part = self.z[at : at + 4096]
            part.copy_((part.float() - measure.mean) / measure.deviation)
        counted = np.where(bank.weight >= SPEECH, bank.weight, 0.0).astype(np.float32)
        self.weight = torch.from_numpy(counted)
        rows, width = torch.from_numpy(bank.owner), self.z.shape[1]
        self.count = torch.zeros(len(bank.label)).index_add_(0, rows, self.weight)
        self.sums, self.squares = torch.zeros(2, len(bank.label), width)
        for at in range(0, len(self.z), 4096):
            part, weight = self.z[at : at + 4096].float(), self.weight[at : at + 4096, None]
            self.sums.index_add_(0, rows[at : at + 4096], weight * part)
            self.squares.index_add_(0, rows[at : at + 4096], weight * part**2)

    def possible(self) -> Tensor:
        """(recordings, 7): which labels the recording's corpus has."""
        return torch.from_numpy(labels_of_corpora(self.bank.corpus, self.bank.label))


def measure_of(bank: PieceBank, chosen: NDArray[np.bool_]) -> Measure:
    """The measure of some recordings, every corpus counting alike."""
    corpus = bank.corpus
    chosen = chosen & (bank.copy == 0) & (bank.label != NOTHING)
    means, squares = [], []
    for name in sorted(set(corpus[chosen])):
        rows = np.flatnonzero((chosen & (corpus == name))[bank.owner] & (bank.weight >= SPEECH))
        part = torch.from_numpy(bank.statistics[rows]).float()
        means.append(part.mean(0))
        squares.append((part**2).mean(0))
    mean = torch.stack(means).mean(0)
    variance = (torch.stack(squares).mean(0) - mean**2).clamp(min=_LEAST_DEVIATION**2)
    return Measure(mean, variance.sqrt())


def even_chances(
    corpus: NDArray[np.str_], label: NDArray[np.int64], plain: float = 1.0
) -> NDArray[np.float64]:
    """How often each recording is drawn: a large corpus more often by the root of its size, labels evenly.

    Neutral ones `plain` times as often as any other.
    """
    chance = np.zeros(len(label))
    for name in set(corpus):
        labels = np.unique(label[corpus == name])
        for one in labels:
            these = (corpus == name) & (label == one)
            chance[these] = (corpus == name).sum() ** 0.5 / len(labels) / these.sum()
    chance[label == NEUTRAL] *= plain
    return np.asarray(chance / chance.sum())


def labels_of_corpora(corpus: NDArray[np.str_], label: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(recordings, 7): which labels the recording's corpus has."""
    has = {name: np.isin(np.arange(len(LABELS)), label[corpus == name]) for name in set(corpus)}
    return np.stack([has[name] for name in corpus])


def smoothed(label: Tensor, possible: Tensor, share: float) -> Tensor:
    """(recordings, 7): the label, and a share for all that the corpus has."""
    even = possible.float() / possible.sum(1, keepdim=True)
    return functional.one_hot(label, len(LABELS)) * (1 - share) + even * share


def among_possible(logits: Tensor, label: Tensor, possible: Tensor, smoothing: float) -> Tensor:
    """How far logits are from their labels, among those that the corpus has."""
    told = logits.masked_fill(~possible, FAR).log_softmax(1)
    loss: Tensor = -(smoothed(label, possible, smoothing) * told).sum(1).mean()
    return loss


def give_head(
    network: StatisticsVoice, bank: PieceBank, chosen: NDArray[np.bool_], schedule: HeadSchedule
) -> Voices:
    """Learn prior and head from the chosen recordings and put them into a network; the bank as it sees it."""
    measure = measure_of(bank, chosen)
    voices = Voices(bank, measure)
    head = fit(voices, chosen, network.head_preset, schedule, network.listened)
    network.head.load_state_dict(head.state_dict())
    network.head.eval()
    network.believe(measure.mean, measure.deviation)
    return voices


def fit(
    voices: Voices, chosen: NDArray[np.bool_], preset: HeadPreset, schedule: HeadSchedule, listened: int = 0
) -> StatisticsHead:
    """Train a head on the chosen recordings; the first `listened` statistics are a listener's."""
    rng = np.random.default_rng(schedule.seed)
    drawn = _Drawn(voices, chosen, schedule, listened)
    possible = voices.possible()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        head = StatisticsHead(voices.z.shape[1], preset).train()
        optimiser = torch.optim.AdamW(head.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=schedule.steps)
        for _ in range(schedule.steps):
            rows, owner, given = drawn.batch(rng)
            _, score, logits = head(given)
            loss = _loss(
                logits, score, owner, torch.from_numpy(voices.bank.label[rows]), possible[rows], schedule
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rate.step()
    return head.eval()


def _loss(
    logits: Tensor, score: Tensor, owner: Tensor, label: Tensor, possible: Tensor, schedule: HeadSchedule
) -> Tensor:
    """Whole recordings and single pieces, among the labels that the corpus has."""
    height = (score[:, 0] - score.max()).exp()
    total = torch.zeros(len(label)).index_add_(0, owner, height)
    pooled = torch.zeros(len(label), len(LABELS)).index_add_(0, owner, height[:, None] * logits)
    whole = among_possible(pooled / total[:, None], label, possible, schedule.smoothing)
    return whole + 0.5 * among_possible(logits, label[owner], possible[owner], schedule.smoothing)


class _Drawn:
    """Draws recordings, labels and corpora evenly, and a past for each."""

    def __init__(
        self, voices: Voices, chosen: NDArray[np.bool_], schedule: HeadSchedule, listened: int
    ) -> None:
        bank = voices.bank
        self._voices, self._schedule, self._listened = voices, schedule, listened
        self._rows = np.flatnonzero(chosen & (bank.label != NOTHING) & (voices.count.numpy() > 0))
        self._chance = even_chances(bank.corpus[self._rows], bank.label[self._rows], schedule.plain)
        place = [f"{bank.speaker[row]} {bank.copy[row]}" for row in self._rows]
        self._place = dict(zip(map(int, self._rows), place, strict=True))
        self._of = {name: self._rows[np.array(place) == name] for name in set(place)}

    def batch(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Recordings, the place of each piece among them, and the pieces as the head sees them."""
        rows = rng.choice(self._rows, self._schedule.batch, p=self._chance)
        voices, pieces, owner = self._voices, list[int](), list[int]()
        count, sums, squares = [], [], []
        for at, row in enumerate(rows):
            past = self._past(row, rng)
            n, s, q = (x[past].sum(0) for x in (voices.count, voices.sums, voices.squares))
            for piece in self._pieces(row, rng):
                # What was heard of this recording before is taken to be like the whole of it.
                share = voices.weight[voices.start[row] : piece].sum() / voices.count[row]
                count.append(n + share * voices.count[row])
                sums.append(s + share * voices.sums[row])
                squares.append(q + share * voices.squares[row])
                pieces.append(piece)
                owner.append(at)
        given = normalised(
            voices.z[pieces].float(), torch.stack(count), torch.stack(sums), torch.stack(squares)
        )
        whose = torch.tensor(owner)
        if self._listened:
            self._leave_out(given, torch.from_numpy(rng.random(len(rows)))[whose])
        return rows, whose, given

    def _leave_out(self, given: Tensor, dice: Tensor) -> None:
        """A listener learnt the same recordings, so a head would believe it more than strangers deserve."""
        plan, first = self._schedule, self._listened
        given[dice < plan.without_listener, :first] = 0.0
        given[dice >= 1.0 - plan.without_layers, first:] = 0.0

    def _past(self, row: int, rng: np.random.Generator) -> NDArray[np.int64]:
        plan = self._schedule
        if rng.random() >= plan.warm:
            return np.zeros(0, np.int64)
        others = rng.choice(self._of[self._place[row]], int(rng.integers(1, plan.longest_past + 1)))
        others = others[others != row]
        if rng.random() < plan.one_mood:
            few = others[np.isin(self._voices.bank.label[others], rng.choice(len(LABELS), 2))]
            others = few if len(few) else others
        return np.asarray(others)

    def _pieces(self, row: int, rng: np.random.Generator) -> list[int]:
        voices = self._voices
        start, end = int(voices.start[row]), int(voices.end[row])
        spoken = start + np.flatnonzero(voices.bank.weight[start:end] >= SPEECH)
        wanted = int(rng.choice([1, 1, 2, 3]))
        apart = int(rng.integers(1, 3))
        first = int(rng.integers(0, max(1, len(spoken) - (wanted - 1) * apart)))
        return [int(i) for i in spoken[first : first + wanted * apart : apart]]


def normalised(z: Tensor, count: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """Pieces in a speaker's statistics that begin as the corpora's: mean zero, deviation one."""
    weight = (PRIOR_PIECES + count)[:, None]
    mean = sums / weight
    variance = ((PRIOR_PIECES + squares) / weight - mean**2).clamp(min=LEAST_VARIANCE)
    return (z - mean) / variance.sqrt()


def asked(
    voices: Voices,
    head: StatisticsHead,
    rows: NDArray[np.int64],
    hop_s: float,
    *,
    known: bool,
    seed: int = 0,
) -> dict[int, Heard]:
    """What a head says of recordings, each from cold or, `known`, a speaker's one after another."""
    rng, found = np.random.default_rng(seed), dict[int, Heard]()
    bank, width = voices.bank, voices.z.shape[1]
    for speaker in sorted(set(bank.speaker[rows])):
        count, sums, squares = torch.zeros(()), torch.zeros(width), torch.zeros(width)
        for row in rng.permutation(rows[bank.speaker[rows] == speaker]):
            start, end = int(voices.start[row]), int(voices.end[row])
            z, weight = voices.z[start:end].float(), voices.weight[start:end]
            before = [(x.cumsum(0) - x) for x in (weight, weight[:, None] * z, weight[:, None] * z**2)]
            given = normalised(z, count + before[0], sums + before[1], squares + before[2])
            with torch.inference_mode():
                _, score, logits = head(given)
            found[int(row)] = Heard(
                logits=logits.numpy(),
                score=score[:, 0].numpy(),
                speech=bank.speech[start:end],
                weight=_told(bank.weight[start:end]),
                hop_s=hop_s,
            )
            if known:
                count, sums = count + voices.count[row], sums + voices.sums[row]
                squares = squares + voices.squares[row]
    return found


def _told(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much pieces count; of a recording in which none does, the most spoken one."""
    if (weight >= SPEECH).any():
        return weight
    return np.where(np.arange(len(weight)) == weight.argmax(), np.float32(SPEECH), weight)
