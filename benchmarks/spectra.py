"""Attention on spectra against convolutions of equal size, in a form that a processor can end.

Sound becomes log-mel once, each take in its own mean and spread a band, and lies in memory. Every way
learns from the same windows of 1.6 s in the same order at the same rate, and says of a take the mean of its
windows. What a training said is kept, so a run that was stopped goes on with the next one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.model.frontend import SoundPreset, fourier_basis, mel_filters
from liveaffect.engines.model.heads import Classifier, PooledVector
from liveaffect.engines.model.presets import VOICE_NEST
from liveaffect.engines.model.voice_spectrogram import Level, NestTrunk, StemConv
from liveaffect.engines.recipe import LABELS, LOG_FLOOR
from liveaffect.engines.training import corpora_voices, pairs
from liveaffect.engines.training.loop import Schedule, train

FRAMES = 64
SOUND = SoundPreset(piece=640 + (FRAMES - 1) * 400, hop=200 * FRAMES, window=640, step=400, n_fft=640)
NEST = replace(
    VOICE_NEST,
    name="nest-small",
    sound=SOUND,
    stem=(StemConv(24, (2, 2)), StemConv(32, (2, 2))),
    block=4,
    levels=(Level(32, 2, 1), Level(64, 4, 1), Level(128, 8, 2)),
    drop_path=0.0,
)
"""Three levels as published: 16, 4 and 1 block of 4x4 cells, where published are blocks of 8x8."""
CORPORA = {"ravdess": 1, "nemo": 3, "emodb": 1}
"""Of nEMO every third take, or it would drown the others."""
FOLDS, BATCH, EPOCHS = 3, 32, 24
QUIET = 5.0
"""Spectra at both ends of a take this far below its loudest, in natural logarithms of power, are cut off."""
Answers = NDArray[np.int64]


class PlainCnn(nn.Module):
    """Convolutions, batch normalisation and pools, without blocks and without positions."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = list[nn.Module](), 1
        for width, stride in ((24, 2), (48, 2), (96, 1), (144, 2), (160, 1), (160, 1)):
            conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        out: Tensor = self.layers(picture[:, None])
        return out


class Listener(nn.Module):
    """(n, 64, 64) pictures of sound to (n, 7) logits.

    What is averaged over a normalised map is nearly the same for every picture; standardised over the batch
    it is told apart from the first step on.
    """

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.standardise = nn.BatchNorm1d(width)
        self.to_vector = PooledVector(width, 0.2)
        self.to_logits = Classifier()

    def forward(self, picture: Tensor) -> Tensor:
        features = self.standardise(self.trunk(picture).mean((2, 3)))
        logits: Tensor = self.to_logits(self.to_vector(features))
        return logits


WAYS: dict[str, Callable[[], Listener]] = {
    "plain CNN": lambda: Listener(PlainCnn(), 160),
    "convolutions in its place": lambda: Listener(NestTrunk(replace(NEST, attends=False)), 128),
    "hierarchical attention": lambda: Listener(NestTrunk(NEST), 128),
}


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Takes of all corpora, one row each."""

    pictures: list[NDArray[np.float32]]
    """(64, spectra), at least one window long."""
    truth: Answers
    speakers: NDArray[np.str_]
    corpora: NDArray[np.str_]

    @property
    def folds(self) -> Answers:
        """Every third speaker of each corpus in the order of their names is of the same fold."""
        order = {name: at for at, name in enumerate(sorted(set(self.speakers)))}
        return np.array([order[name] % FOLDS for name in self.speakers])


def hear(data: Path) -> Heard:
    """Read, decode and analyse what is compared on. Raises CorpusError if a corpus is missing."""
    places, takes, pictures = corpora_voices.find(data), [], []
    for corpus, every in CORPORA.items():
        if corpus not in places:
            raise corpora_voices.CorpusError(f"{data} holds no {corpus}; wanted are {', '.join(CORPORA)}")
        read = corpora_voices.read_corpus(corpus, places[corpus])
        sounds = corpora_voices.load_takes(read, corpora_voices.default_folder())
        takes += read[::every]
        pictures += [_picture(samples.astype(np.float32)) for samples in sounds[::every]]
    truth = np.array([LABELS.index(take.label) for take in takes])
    return Heard(
        pictures, truth, np.array([take.speaker for take in takes]), np.array([take.corpus for take in takes])
    )


def log_mel(samples: NDArray[np.float32], sound: SoundPreset) -> NDArray[np.float32]:
    """(bands, spectra), uncentred, as the networks make it of a piece."""
    taper, filters = _analysis(sound)
    frames = np.lib.stride_tricks.sliding_window_view(samples, sound.window)[:: sound.step]
    power = np.abs(np.fft.rfft(frames * taper, sound.n_fft)) ** 2
    picture: NDArray[np.float32] = np.log(filters @ power.T.astype(np.float32) + LOG_FLOOR)
    return picture


@lru_cache(maxsize=2)
def _analysis(sound: SoundPreset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    filters = mel_filters(sound.bands, sound.n_fft // 2 + 1)
    return fourier_basis(sound)[0, 0].astype(np.float32), filters.astype(np.float32)


def loud_log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(bands, spectra) of a take, from its first loud moment to its last."""
    found = log_mel(samples, SOUND)
    level = found.mean(0)
    loud = np.flatnonzero(level > level.max() - QUIET)
    return found[:, loud[0] : loud[-1] + 1]


def _picture(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    found = loud_log_mel(samples)
    found = np.clip((found - found.mean(1, keepdims=True)) / (found.std(1, keepdims=True) + 0.1), -4, 4)
    return np.pad(found, ((0, 0), (0, max(0, FRAMES - found.shape[1]))))


class SpectraTask:
    """One window of every take an epoch, a stripe of time and one of bands blanked."""

    def __init__(self, name: str, heard: Heard, rows: Answers) -> None:
        self.name, self._heard, self._rows = name, heard, rows
        self.steps = -(-len(rows) // BATCH)
        self._weight = pairs.balanced_weights(torch.from_numpy(heard.truth[rows]))

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every take once, in chance order."""
        order = rng.permutation(self._rows)
        for rows in np.array_split(order, self.steps):
            shown = np.stack([self._window(self._heard.pictures[row], rng) for row in rows])
            yield torch.from_numpy(shown), torch.from_numpy(self._heard.truth[rows])

    @staticmethod
    def _window(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        begin = rng.integers(picture.shape[1] - FRAMES + 1)
        shown = picture[:, begin : begin + FRAMES].copy()
        for along, most in ((shown, 10), (shown.T, 12)):
            at = rng.integers(FRAMES)
            along[at : at + rng.integers(most + 1)] = 0.0
        return shown

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Every label counts the same."""
        shown, truth = batch
        said = network(shown).float()
        return functional.cross_entropy(said, truth, weight=self._weight, label_smoothing=0.1)

    def figures(self, network: nn.Module) -> dict[str, float]:
        """None: nothing is chosen by a figure."""
        return {}


def everything_said(heard: Heard, folds: int, seeds: int, kept: Path) -> dict[str, Answers]:
    """(seeds, takes) of each way: the first fold by every seed, the others by one, which stands for all."""
    said = {way: np.zeros((seeds, len(heard.truth)), np.int64) for way in WAYS}
    for fold, seed in [*((fold, 0) for fold in range(folds)), *((0, seed) for seed in range(1, seeds))]:
        for way, found in said.items():
            rows = said_by(way, fold, seed, heard, kept / f"{way.replace(' ', '-')}-{fold}-{seed}")
            found[slice(None) if seed == 0 else slice(seed, seed + 1), heard.folds == fold] = rows
    return said


def said_by(way: str, fold: int, seed: int, heard: Heard, place: Path) -> Answers:
    """What the takes of a fold are to one way that learnt from the other folds; kept in `place`."""
    out = np.flatnonzero(heard.folds == fold)
    kept = place / "said.npz"
    if kept.exists():
        with np.load(kept) as found:
            return np.asarray(found["said"], np.int64)
    torch.manual_seed(seed)
    plan = Schedule(EPOCHS, rate=1e-3, average=0.98, clip=1.0, seed=seed, bf16=True, threads=1)
    task = SpectraTask(f"{way} {fold} {seed}", heard, np.flatnonzero(heard.folds != fold))
    network = train(WAYS[way](), task, plan, place, report=print).network
    said = _answers(network, [heard.pictures[row] for row in out])
    packed = io.BytesIO()
    np.savez(packed, said=said)
    write_whole(kept, packed.getvalue())
    return said


def _answers(network: nn.Module, pictures: list[NDArray[np.float32]]) -> Answers:
    """The label of each take: the largest mean of its windows, which overlap by half."""
    said, windows, owners = np.zeros((len(pictures), len(LABELS))), list[NDArray[np.float32]](), list[int]()
    for row, picture in enumerate(pictures):
        last = picture.shape[1] - FRAMES
        begins = sorted({*range(0, last, FRAMES // 2), last})
        windows += [picture[:, at : at + FRAMES] for at in begins]
        owners += [row] * len(begins)
    each = np.array(owners)
    for at in range(0, len(each), 128):
        shown = torch.from_numpy(np.stack(windows[at : at + 128]))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits = network(shown).float().numpy()
        np.add.at(said, each[at : at + 128], logits)
    return np.asarray((said / np.bincount(each)[:, None]).argmax(1), np.int64)
