"""What a published system learns from: utterances that were cut, laid into batches as live use hears them.

Speaker statistics are replayed piece by piece from cold, so that no piece is normalised with its own future.
In the mended form an utterance is heard from a window drawn anew each time and may lose a modality; in the
published one it is heard whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model.heads import VoiceNetwork
from liveaffect.engines.model.paper import PaperAnswer, PaperBatch, PaperNetwork
from liveaffect.engines.recipe import CROP_SIZE, MEL_BANDS, SAMPLE_RATE, STFT_STEP, SpeakerStatistics
from liveaffect.engines.training.corpora_films import FilmTake
from liveaffect.engines.training.cutting import Cut, read_cut
from liveaffect.engines.training.listen import pieces_of
from liveaffect.engines.training.piece_bank import spoken
from liveaffect.engines.training.protocols import Protocol

WINDOW_S, LONGEST_S = 8.0, 30.0
"""Heard of an utterance in one step of training, and in an examination."""
DROPPED = 0.3
"""Share of the utterances that lose a modality, of those that have several."""
NOISES = 2
"""Pieces of noise in a batch, by which speech is told from what is not."""
BESIDE, SPEECH = 0.3, 0.1
"""How much the auxiliary ways and the judgement of speech count."""

Tokens = Callable[[str], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class PaperRecipe:
    """How one system learns."""

    batch: int = 8
    binary: bool = False
    """Every class is yes or no, rare ones weigh more; else one class of all."""
    mended: bool = True
    beside: float = BESIDE
    faces_hz: float = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Laid:
    """One utterance ready for a batch."""

    crops: NDArray[np.uint8]
    crop_age_s: NDArray[np.float32]
    pieces: NDArray[np.float32]
    piece_age_s: NDArray[np.float32]
    mean: NDArray[np.float32]
    istd: NDArray[np.float32]
    speech: NDArray[np.float32]
    tokens: NDArray[np.int64]
    mask: NDArray[np.float32]


class Shower:
    """Lays utterances out for a system: which items, how old, in whose statistics."""

    def __init__(
        self,
        takes: Sequence[FilmTake],
        files: dict[str, Path],
        network: PaperNetwork,
        tokens: Tokens | None,
    ) -> None:
        self.takes = takes
        self._files = files
        self._voice = network.sound
        self._modalities = network.modalities
        self._tokens = tokens
        self._normalisers: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def batch(self, rows: Sequence[int], rng: np.random.Generator | None = None) -> PaperBatch:
        """These utterances; with `rng` as in mended training, else whole and with all that is there."""
        laid = [self._laid(self.takes[row], rng) for row in rows]
        if rng is not None and self._voice is not None:
            laid.append(self._noise(rng))
        owner = [*range(len(rows)), -1]
        longest = max((len(one.tokens) for one in laid[: len(rows)]), default=0)
        tokens = np.zeros((len(rows), longest), np.int64)
        for at, one in enumerate(laid[: len(rows)]):
            tokens[at, : len(one.tokens)] = one.tokens
        sizes = np.array([[len(one.tokens)] for one in laid[: len(rows)]])
        there = np.arange(longest)[None] < sizes
        # A text without a token would have nothing to attend to; its mask leaves it out all the same.
        there[:, :1] = True
        return PaperBatch(
            crops=_one_tensor([one.crops for one in laid]),
            crop_owner=_owners(owner, [len(one.crops) for one in laid]),
            crop_age_s=_one_tensor([one.crop_age_s for one in laid]),
            samples=_one_tensor([one.pieces for one in laid]),
            mean=_one_tensor([one.mean for one in laid]),
            istd=_one_tensor([one.istd for one in laid]),
            piece_owner=_owners(owner, [len(one.pieces) for one in laid]),
            piece_age_s=_one_tensor([one.piece_age_s for one in laid]),
            speech=_one_tensor([one.speech for one in laid]),
            tokens=torch.from_numpy(tokens),
            present=torch.from_numpy(there.astype(np.int64)),
            mask=torch.from_numpy(np.stack([one.mask for one in laid[: len(rows)]])),
        )

    def _laid(self, take: FilmTake, rng: np.random.Generator | None) -> _Laid:
        cut = read_cut(self._files[take.name])
        length_s = min(len(cut.samples) / SAMPLE_RATE, LONGEST_S)
        begin_s, end_s = 0.0, length_s
        if rng is not None and length_s > WINDOW_S:
            begin_s = float(rng.uniform(0, length_s - WINDOW_S))
            end_s = begin_s + WINDOW_S
        crops, crop_age_s = self._seen(cut, begin_s, end_s)
        pieces, age_s, mean, istd, speech = self._heard(take, cut, begin_s, end_s)
        tokens = np.zeros(0, np.int64)
        if "words" in self._modalities and self._tokens is not None and take.words.strip():
            tokens = self._tokens(take.words)
        mask = np.array([len(crops) > 0, len(pieces) > 0, len(tokens) > 0], np.float32)
        if rng is not None and mask.sum() > 1 and rng.random() < DROPPED:
            mask[rng.choice(np.flatnonzero(mask))] = 0.0
        if not mask[0]:
            crops, crop_age_s = crops[:0], crop_age_s[:0]
        if not mask[1]:
            pieces, age_s, mean, istd, speech = (part[:0] for part in (pieces, age_s, mean, istd, speech))
        return _Laid(crops, crop_age_s, pieces, age_s, mean, istd, speech, tokens, mask)

    def _seen(self, cut: Cut, begin_s: float, end_s: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if "face" not in self._modalities:
            return np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8), np.zeros(0, np.float32)
        kept = (cut.times_s >= begin_s) & (cut.times_s <= end_s)
        return cut.crops[kept], (end_s - cut.times_s[kept]).astype(np.float32)

    def _heard(
        self, take: FilmTake, cut: Cut, begin_s: float, end_s: float
    ) -> tuple[NDArray[np.float32], ...]:
        """Pieces, ages, mean, istd and shares of speech."""
        none = np.zeros((0, MEL_BANDS), np.float32)
        if self._voice is None:
            return np.zeros((0, 1), np.float32), none[:, 0], none, none, none[:, 0]
        sound = self._voice.sound
        samples = np.asarray(cut.samples[: round(LONGEST_S * SAMPLE_RATE)], np.float32)
        pieces = pieces_of(samples, sound.piece, sound.hop, 0)
        speech = spoken(samples, sound.hop, len(pieces))
        if take.name not in self._normalisers:
            self._normalisers[take.name] = normalisers(self._voice, pieces, speech)
        mean, istd = self._normalisers[take.name]
        ends_s = (np.arange(len(pieces)) * sound.hop + sound.piece) / SAMPLE_RATE
        kept = (ends_s <= end_s + 1e-6) & (ends_s - sound.piece / SAMPLE_RATE >= begin_s - 1e-6)
        kept[np.argmin(np.abs(ends_s - end_s))] = True
        ages_s = np.maximum(end_s - ends_s, 0).astype(np.float32)
        return pieces[kept], ages_s[kept], mean[kept], istd[kept], speech[kept]

    def _noise(self, rng: np.random.Generator) -> _Laid:
        assert self._voice is not None
        level = 10 ** rng.uniform(-4.5, -1.5, (NOISES, 1))
        pieces = (level * rng.standard_normal((NOISES, self._voice.sound.piece))).astype(np.float32)
        nothing = np.zeros(NOISES, np.float32)
        mean, istd = (np.tile(part, (NOISES, 1)) for part in SpeakerStatistics.cold().normaliser())
        crops = np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        no_words = np.zeros(0, np.int64)
        return _Laid(
            crops, nothing[:0], pieces, nothing, mean, istd, nothing, no_words, np.zeros(3, np.float32)
        )


@torch.no_grad()
def normalisers(
    voice: VoiceNetwork, pieces: NDArray[np.float32], speech: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(pieces, 64) each: mean and one over the deviation that every piece meets live, from cold."""
    front = voice.front
    assert isinstance(front, nn.Module)
    device = next(voice.parameters()).device
    flat = torch.zeros(len(pieces), MEL_BANDS, device=device)
    sums = front(torch.from_numpy(np.array(pieces)).to(device), flat, flat + 1)
    totals, squares = sums.stat_sum.cpu().numpy(), sums.stat_sumsq.cpu().numpy()
    statistics, found = SpeakerStatistics.cold(), []
    for total, square, share in zip(totals, squares, speech, strict=True):
        found.append(statistics.normaliser())
        statistics.add(total, square, speech=float(share), new=voice.sound.hop / STFT_STEP)
    return np.stack([mean for mean, _ in found]), np.stack([istd for _, istd in found])


class PaperTask:
    """The training side of one fold."""

    def __init__(
        self,
        name: str,
        shower: Shower,
        rows: Sequence[int],
        protocol: Protocol,
        recipe: PaperRecipe,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.steps = -(-len(rows) // recipe.batch)
        self._shower, self._rows, self._recipe, self._device = shower, list(rows), recipe, device
        self._slots = list(protocol.slots)
        truth = protocol.truth([shower.takes[row] for row in rows])
        self._truth = dict(zip(rows, truth.astype(np.float32), strict=True))
        often = truth.sum(0).clip(min=1)
        self._positive = torch.from_numpy(((len(truth) - often) / often).astype(np.float32)).to(device)
        rare = (often.max() / often) ** 0.5 if recipe.mended else np.ones(len(often))
        self._weight = torch.from_numpy((rare / rare.mean()).astype(np.float32)).to(device)

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[PaperBatch, Tensor]]:
        """Every utterance once, in chance order."""
        order = rng.permutation(self._rows)
        for at in range(0, len(order), self._recipe.batch):
            rows = [int(row) for row in order[at : at + self._recipe.batch]]
            batch = self._shower.batch(rows, rng if self._recipe.mended else None)
            truth = torch.from_numpy(np.stack([self._truth[row] for row in rows]))
            yield batch.to(self._device), truth.to(self._device)

    def loss(self, network: nn.Module, batch: tuple[PaperBatch, Tensor]) -> Tensor:
        """Of the answer, of each way to it, and of what is taken for speech."""
        given, truth = batch
        answer: PaperAnswer = network(given)
        total = self._price(answer.logits, truth).mean()
        for logits, counts in answer.beside if self._recipe.beside else ():
            price = (self._price(logits, truth) * counts).sum() / counts.sum().clamp(min=1)
            total = total + self._recipe.beside * price
        if answer.speech is not None:
            said = answer.speech.float().squeeze(1).clamp(1e-6, 1 - 1e-6)
            wrong = functional.binary_cross_entropy(said, (given.speech > 0.5).float())
            total = total + SPEECH * wrong
        return total

    def _price(self, logits: Tensor, truth: Tensor) -> Tensor:
        """(n,)."""
        said = logits.float()[:, self._slots]
        if self._recipe.binary:
            return functional.binary_cross_entropy_with_logits(
                said, truth, pos_weight=self._positive, reduction="none"
            ).mean(1)
        return functional.cross_entropy(said, truth.argmax(1), weight=self._weight, reduction="none")

    def figures(self, network: nn.Module) -> dict[str, float]:
        """None: nothing is chosen by a figure, and an examination costs as much as an epoch."""
        return {}


def system_answers(
    network: nn.Module, shower: Shower, rows: Sequence[int], slots: Sequence[int], batch: int, device: str
) -> NDArray[np.float32]:
    """(rows, classes): what a system says of utterances that it is shown whole."""
    network.eval()
    found = [np.zeros((0, len(slots)), np.float32)]
    with torch.inference_mode():
        for at in range(0, len(rows), batch):
            said: PaperAnswer = network(shower.batch(rows[at : at + batch]).to(device))
            found.append(said.logits[:, list(slots)].float().cpu().numpy())
    return np.concatenate(found)


def _one_tensor(parts: Sequence[NDArray[np.generic]]) -> Tensor:
    shaped = [part for part in parts if len(part)] or parts[:1]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(shaped)))


def _owners(owner: Sequence[int], sizes: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.repeat(np.array(owner[: len(sizes)], np.int64), sizes))
