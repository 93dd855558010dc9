"""A whole published system in one module: face, voice, words and fusion, from crops and samples to logits.

Its parts are the presets, so what was learnt end to end is taken apart again and exported like any other
network. `mended` pools over time as live use does; `published` looks at the whole utterance with a CLS
transformer that knows no order, which no stream can do, so it gives figures and no live network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import ClsTransformer, attention_pool
from liveaffect.engines.model.fusion import BilinearFusion, Fusion, FusionEvidence
from liveaffect.engines.model.heads import Network, VoiceNetwork
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS

HALF_LIFE_S, SHORT_S = 8.0, 2.0
"""As live: the long trunk forgets slowly, the short one holds the last seconds."""
FOREVER_S = 1e9
LOUDEST_SILENCE = 1e-6
"""Speech of a piece below which its weight does not fall further."""
MODALITIES = ("face", "voice", "words")


@dataclass(frozen=True, slots=True)
class PaperPreset:
    """A system as a table; None leaves a modality out."""

    name: str
    face: str | None = None
    voice: str | None = None
    words: Path | None = None
    """Folder of ALBERT."""
    fusion: str | None = None
    """None where there is one modality alone."""
    order_free: bool = False
    """The published CLS transformers, without positions, in the place of pooling."""
    whole_utterance: bool = False
    """Nothing is forgotten within an utterance."""


class PaperBatch(NamedTuple):
    """Utterances, their items one after the other with the row that each belongs to."""

    crops: Tensor
    crop_owner: Tensor
    crop_age_s: Tensor
    samples: Tensor
    mean: Tensor
    istd: Tensor
    piece_owner: Tensor
    """-1: nobody's, made to be told from speech."""
    piece_age_s: Tensor
    speech: Tensor
    """Share of each piece that is speech."""
    tokens: Tensor
    present: Tensor
    """(n, tokens): which of them are there."""
    mask: Tensor
    """(n, 3): face, voice, words."""

    def to(self, device: str) -> PaperBatch:
        """The same on a device."""
        return PaperBatch._make(tensor.to(device, non_blocking=True) for tensor in self)


@dataclass(slots=True)
class PaperAnswer:
    """What a system says of a batch."""

    logits: Tensor
    """(n, 7)."""
    beside: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Logits of auxiliary ways and of each modality alone, and (n,) which of them count."""
    speech: Tensor | None = None
    """(pieces, 1): how much of each is taken for speech."""


class PaperNetwork(nn.Module):
    """A system in training form."""

    def __init__(self, preset: PaperPreset, *, seed: int = 0) -> None:
        super().__init__()
        self.preset = preset
        self.face = _built("face", preset.face, seed)
        self.voice = _built("voice", preset.voice, seed)
        self.fusion = _built("fusion", preset.fusion, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.words = None
            if preset.words is not None:
                from liveaffect.engines.model.words import AlbertWords

                self.words = AlbertWords(preset.words)
            timed = [name for name in ("face", "voice") if getattr(self, name) is not None]
            encoders = {name: ClsTransformer(width=VECTOR, positions=False) for name in timed}
            self.encoders = nn.ModuleDict(encoders if preset.order_free else {})
        self._leave_unused()

    def _leave_unused(self) -> None:
        """What no loss of this system reaches does not learn, so the optimiser need not hold it."""
        if self.preset.order_free:
            for part in (self.face, self.voice):
                if part is not None and hasattr(part, "to_score"):
                    part.to_score.requires_grad_(False)
        if isinstance(self.fusion, BilinearFusion) and self.words is None:
            self.fusion.words_gain.requires_grad_(False)

    @property
    def modalities(self) -> list[str]:
        """Those that it has."""
        return [name for name in MODALITIES if getattr(self, name) is not None]

    @property
    def sound(self) -> VoiceNetwork | None:
        """The voice network, with the pieces that it wants."""
        assert self.voice is None or isinstance(self.voice, VoiceNetwork)
        return self.voice

    def forward(self, batch: PaperBatch) -> PaperAnswer:
        count, mask = len(batch.mask), batch.mask
        nothing = batch.mask.new_zeros(count, len(LABELS))
        empty = batch.mask.new_zeros(count, VECTOR)
        short, long = [empty, empty], [empty, empty]
        logits, speech = [nothing, nothing, nothing], None
        if self.face is not None and len(batch.crops):
            said = self.face(batch.crops)
            at = _Items(batch.crop_owner, batch.crop_age_s, count)
            short[0], long[0] = self._over_time("face", said.vector, said.score, at)
            logits[0] = self.face.to_logits(long[0])  # type: ignore[operator]
        if self.voice is not None and len(batch.samples):
            heard = self.voice(batch.samples, batch.mean, batch.istd)
            speech = heard.speech
            score = heard.score
            if not self.preset.whole_utterance:
                # Learnt with what is speech; live it has to find that out itself.
                speaks = batch.speech[:, None] if self.training else heard.speech
                score = score + speaks.float().clamp(min=LOUDEST_SILENCE).log()
            at = _Items(batch.piece_owner, batch.piece_age_s, count)
            short[1], long[1] = self._over_time("voice", heard.vector, score, at)
            logits[1] = self.voice.to_logits(long[1])  # type: ignore[operator]
        if self.words is not None and batch.tokens.shape[1]:
            logits[2] = self.words(batch.tokens, batch.present).float()
        logits = [one * mask[:, at : at + 1] for at, one in enumerate(logits)]
        alone = [(logits[at], mask[:, at]) for at, name in enumerate(MODALITIES) if name in self.modalities]
        if self.fusion is None:
            return PaperAnswer(alone[0][0], [], speech)
        assert isinstance(self.fusion, Fusion)
        evidence = FusionEvidence._make([short[0], long[0], short[1], long[1], *logits, mask])
        if isinstance(self.fusion, BilinearFusion):
            answer, ways = self.fusion.with_auxiliaries(evidence)
            everywhere = torch.ones_like(mask[:, 0])
            return PaperAnswer(answer.logits, [*((way, everywhere) for way in ways), *alone], speech)
        return PaperAnswer(self.fusion(*evidence).logits, alone, speech)

    def _over_time(self, name: str, vector: Tensor, score: Tensor, at: _Items) -> tuple[Tensor, Tensor]:
        """(n, 64) of the last seconds and of all."""
        vectors, ages_s = at.laid_out(vector.float()), at.ages_s
        if self.preset.order_free:
            there = torch.isfinite(ages_s)
            whole = self.encoders[name](vectors, torch.zeros_like(ages_s), there).float()
            whole = whole * there.any(1, keepdim=True)
            return whole, whole
        scores = at.laid_out(score.float()).squeeze(2)
        half_life_s = FOREVER_S if self.preset.whole_utterance else HALF_LIFE_S
        recent = ages_s.masked_fill(ages_s > SHORT_S, math.inf)
        short = attention_pool(vectors, scores, recent, FOREVER_S)
        return short, attention_pool(vectors, scores, ages_s, half_life_s)


class _Items:
    """Where the items of utterances of different length lie in one table."""

    def __init__(self, owner: Tensor, ages_s: Tensor, count: int) -> None:
        self._kept = owner >= 0
        owner = owner[self._kept]
        order = torch.arange(len(owner), device=owner.device)
        sizes = torch.bincount(owner, minlength=count)
        begins = sizes.cumsum(0) - sizes
        self._place = (owner, order - begins[owner])
        self._shape = (count, max(int(sizes.max()) if len(sizes) else 0, 1))
        table = ages_s.new_full(self._shape, math.inf)
        self.ages_s = table.index_put(self._place, ages_s[self._kept])
        """(n, items), infinite where there is none."""

    def laid_out(self, values: Tensor) -> Tensor:
        """(items, width) to (n, items, width)."""
        table = values.new_zeros(*self._shape, values.shape[1])
        return table.index_put(self._place, values[self._kept])


def _built(kind: str, preset: str | None, seed: int) -> Network | None:
    return None if preset is None else presets.build(kind, preset, seed=seed)


def silence_unlearnt(network: nn.Module, learnt: Sequence[int], *, neutral_is_none: bool) -> None:
    """Make the labels that a part never learnt unlikely, so that live it never says them.

    `neutral_is_none`: it learnt emotions as yes or no each; neutral is then where none of them holds.
    """
    for name in ("to_logits", "to_global", "to_local", "to_both"):
        layer = getattr(network, name, None)
        if not isinstance(layer, nn.Linear):
            continue
        with torch.no_grad():
            for at, label in enumerate(LABELS):
                if at in learnt:
                    continue
                layer.weight[at] = 0.0
                layer.bias[at] = 0.0 if neutral_is_none and label == "neutral" else UNLIKELY


UNLIKELY = -10.0
"""Logit of a label that no utterance of the training carried."""
