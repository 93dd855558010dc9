"""What of the papers' claims holds here: their speed, their fusion, their attention on spectra.

    python benchmarks/bench_papers.py speed
    python benchmarks/bench_papers.py throughput --film ../shared/data/clips/demo_grid_10speakers.mp4
    python benchmarks/bench_papers.py fusion --data ../shared/data [--seeds 3]
    python benchmarks/bench_papers.py sound --data ../shared/data [--folds 5] [--seeds 3] [--epochs 12]

`speed` runs every pair in turns in one process, torch on one thread, processor time; random weights change no
cost. `fusion` learns face, voice and fusion together from action units and statistics of the sound
of the same RAVDESS takes, five folds of actors. `sound` learns from raw sound with attention and with
convolutions of equal size, five folds of the speakers of three corpora; hours on a processor. `throughput` is
the processor time of one thread for cutting and for learning from utterances of 4.5 s, made up.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import attention_pool
from liveaffect.engines.model.frontend import fourier_basis, mel_filters
from liveaffect.engines.model.fusion import BilinearFusion, Fusion, FusionEvidence
from liveaffect.engines.model.paper import PaperNetwork, PaperPreset
from liveaffect.engines.model.voice_spectrogram import VoiceFcn, VoiceNest
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS, LOG_FLOOR, MEL_BANDS
from liveaffect.engines.stopwatch import all_threads_cpu_ns, median_ns
from liveaffect.engines.training import corpora_voices, pairs
from liveaffect.engines.training.corpora_films import FilmTake
from liveaffect.engines.training.loop import Schedule, best_device, train
from liveaffect.engines.training.paper_task import PaperRecipe, PaperTask, Shower, system_answers
from liveaffect.engines.training.protocols import PROTOCOLS, Protocol
from liveaffect.engines.training.scores import markdown_table, unweighted_recall
from liveaffect.engines.training.train_paper import PaperOptions, paper_preset
from liveaffect.placing import cut_film

ROUNDS = 15
WINDOW = 30
"""Pieces of sound in six seconds, as live cuts them."""
FUSIONS = ("late", "late-masked", "gfbp", "agfbp")
CONDITIONS = {"both": (1.0, 1.0, 0.0), "no voice": (1.0, 0.0, 0.0), "no face": (0.0, 1.0, 0.0)}
DROPPED, EPOCHS, BATCH = 0.5, 25, 64


def main() -> None:
    """Measure one of the three, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("speed", "throughput", "fusion", "sound"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--film", type=Path, help="of at least 12 s, to be cut")
    parser.add_argument("--folds", type=int, default=pairs.FOLDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--most", type=int, help="takes of each corpus, to see that it works")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "speed":
        print(speed_table())
    elif asked.what == "throughput":
        print(throughput_table(asked.film))
    elif asked.data is None:
        parser.error(f"{asked.what} needs --data")
    elif asked.what == "fusion":
        print(fusion_table(asked.data, asked.folds, asked.seeds))
    else:
        print(sound_table(asked.data, asked.folds, asked.seeds, asked.epochs, asked.most))


def speed_table() -> str:
    """One row a claim: what is compared, both medians in milliseconds, their ratio."""
    rows = []
    with torch.inference_mode():
        for claim, (slow, fast) in speed_pairs().items():
            first, second = (ns / 1e6 for ns in median_ns([slow, fast], rounds=ROUNDS))
            rows.append((claim, f"{first:.2f}", f"{second:.2f}", f"{first / second:.2f}"))
    return markdown_table(("first against second", "first, ms", "second, ms", "ratio"), rows)


Call = Callable[[], object]


def speed_pairs() -> dict[str, tuple[Call, Call]]:
    """Both ways of every speed claim, as calls."""
    crop = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8)
    found: dict[str, tuple[Call, Call]] = {}
    faces = []
    for preset in ("fv2es", "live"):
        many = presets.build("face", preset).eval()
        faces.append(presets.deploy(many))
        found[f"face {preset}: branches / one branch"] = (partial(many, crop), partial(faces[-1], crop))
    found["a face: published / live"] = (partial(faces[0], crop), partial(faces[1], crop))
    heard = {name: _voice(name) for name in ("fv2es", "nest", "nest-conv", "amfbp")}
    calls = {name: _hearing(network) for name, network in heard.items()}
    found["a piece of sound: published NesT-B / mended"] = (calls["fv2es"], calls["nest"])
    found["a piece of sound: published FCN / mended NesT"] = (calls["amfbp"], calls["nest"])
    found["a piece of sound: attention / convolutions of equal size"] = (calls["nest"], calls["nest-conv"])
    found["log-mel outside (NumPy) / inside the network"] = _log_mels(heard["nest"])
    found[f"window of {WINDOW} pieces: recomputed / incremental"] = _windows(heard["nest"])
    return found


def _voice(preset: str) -> VoiceNest | VoiceFcn:
    network = presets.build("voice", preset).eval()
    assert isinstance(network, VoiceNest | VoiceFcn)
    return network


def _hearing(network: VoiceNest | VoiceFcn, count: int = 1) -> Call:
    sound = network.sound
    samples = 0.1 * torch.randn(count, sound.piece)
    flat = torch.zeros(count, MEL_BANDS)
    return lambda: network(samples, flat, flat + 1)


def _log_mels(network: VoiceNest | VoiceFcn) -> tuple[Call, Call]:
    """The same network fed with a picture of sound made outside, against one that makes it."""
    assert isinstance(network, VoiceNest)
    front, trunk, head = network.front, network.trunk, network.to_vector
    sound = front.preset
    samples = (0.1 * np.random.default_rng(0).standard_normal(sound.piece)).astype(np.float32)
    bins = sound.n_fft // 2 + 1
    filters = mel_filters(sound.bands, bins).astype(np.float32)
    taper = fourier_basis(sound)[0, 0].astype(np.float32)

    def outside() -> Tensor:
        frames = np.lib.stride_tricks.sliding_window_view(samples, sound.window)[:: sound.step]
        power = np.abs(np.fft.rfft(frames * taper, sound.n_fft)) ** 2
        picture = np.log(filters @ power.T.astype(np.float32) + LOG_FLOOR)
        answer: Tensor = head(trunk(torch.from_numpy(picture)[None]).mean((2, 3)))
        return answer

    flat, given = torch.zeros(1, MEL_BANDS), torch.from_numpy(samples)[None]

    def inside() -> Tensor:
        answer: Tensor = head(trunk(front(given, flat, flat + 1).picture).mean((2, 3)))
        return answer

    torch.testing.assert_close(outside(), inside(), atol=1e-2, rtol=1e-2)
    return outside, inside


def _windows(network: VoiceNest | VoiceFcn) -> tuple[Call, Call]:
    newest, everything = _hearing(network), _hearing(network, WINDOW)
    ages = torch.arange(WINDOW)[None] * 0.2
    kept, scores = torch.randn(1, WINDOW, VECTOR), torch.randn(1, WINDOW)

    def pooled(hear: Call) -> Tensor:
        hear()
        return attention_pool(kept, scores, ages, 8.0)

    return lambda: pooled(everything), lambda: pooled(newest)


def throughput_table(film: Path | None) -> str:
    """What a second of film costs to cut, and an utterance to learn from."""
    rows = []
    if film is not None:
        takes = [
            FilmTake("x", f"{at}", "x", (), film, begin_s=3.0 * at, end_s=3.0 * at + 3.0) for at in range(4)
        ]
        list(cut_film(takes[:1], 5.0))
        cost_s = median_ns([lambda: list(cut_film(takes, 5.0))], rounds=3, now=all_threads_cpu_ns)[0] / 1e9
        rows.append(("cutting, a second of film", f"{cost_s / 12:.2f}"))
    with tempfile.TemporaryDirectory() as scratch:
        takes, files = _made_up(Path(scratch), 4)
        for system in ("fv2es", "fcn", "amfbp"):
            network = PaperNetwork(paper_preset(PaperOptions(system, "iemocap"))).train()
            protocol, shower = PROTOCOLS["iemocap-4-session"], Shower(takes, files, network, None)
            task = PaperTask(system, shower, range(len(takes)), protocol, PaperRecipe())

            def learn(task: PaperTask = task, network: PaperNetwork = network) -> None:
                for batch in task.batches(0, np.random.default_rng(0)):
                    torch.autograd.backward(task.loss(network, batch))

            cost_s = median_ns([learn], rounds=3, now=all_threads_cpu_ns)[0] / 1e9
            rows.append((f"{system}, mended, without words, an utterance", f"{cost_s / len(takes):.2f}"))
    return markdown_table(("what", "processor time, s"), rows)


def _made_up(folder: Path, count: int) -> tuple[list[FilmTake], dict[str, Path]]:
    rng, takes, files = np.random.default_rng(0), [], {}
    for at in range(count):
        name = f"u{at}"
        files[name] = folder / f"{name}.npz"
        crops = rng.integers(0, 255, (22, 64, 64, 3)).astype(np.uint8)
        samples = (0.1 * rng.standard_normal(72_000)).astype(np.float16)
        np.savez(files[name], crops=crops, times_s=np.arange(22, dtype=np.float32) / 5, samples=samples)
        takes.append(FilmTake("iemocap", name, name, (("ang", "hap", "neu", "sad")[at % 4],)))
    return takes, files


class Joined(nn.Module):
    """Numbers of a face and of a voice to vectors and logits, and a fusion of them; all learnt together."""

    def __init__(self, numbers: tuple[int, int], fusion: str) -> None:
        super().__init__()
        self.ways = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(0.1), nn.Linear(n, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, VECTOR)
            )
            for n in numbers
        )
        self.heads = nn.ModuleList(nn.Linear(VECTOR, len(LABELS)) for _ in numbers)
        made = presets.build("fusion", fusion, seed=0)
        assert isinstance(made, Fusion)
        self.fusion = made

    def forward(self, face: Tensor, voice: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        vectors = [way(part) for way, part in zip(self.ways, (face, voice), strict=True)]
        logits = [head(vector) for head, vector in zip(self.heads, vectors, strict=True)]
        none = torch.zeros(len(mask), len(LABELS))
        both = (vectors[0], vectors[0], vectors[1], vectors[1])
        evidence = FusionEvidence(*both, logits[0], logits[1], none, mask)
        if isinstance(self.fusion, BilinearFusion):
            return self.fusion.with_auxiliaries(evidence)[0].logits, logits
        return self.fusion(*evidence).logits, logits


def fusion_table(data: Path, folds: int, seeds: int) -> str:
    """Unweighted recall of each fusion with and without each modality, intervals over actors."""
    real = pairs.read_pairs(data)
    said: dict[tuple[str, str], NDArray[np.int64]] = {}
    for fusion in FUSIONS:
        whole = {name: np.zeros((seeds, len(real)), np.int64) for name in CONDITIONS}
        for seed in range(seeds):
            for fold in range(folds):
                out = real.folds == fold
                network, inputs = _learn_joined(real, ~out, fusion, seed)
                for name, mask in CONDITIONS.items():
                    masks = torch.tensor([mask]).expand(int(out.sum()), -1)
                    with torch.inference_mode():
                        logits, _ = network(*(part[torch.from_numpy(out)] for part in inputs), masks)
                    whole[name][seed, out] = logits.argmax(1).numpy()
        said |= {(fusion, name): found for name, found in whole.items()}
    kept = np.isin(real.folds, range(folds))
    return compared_table(said, "late-masked", real.truth[kept], np.array(real.actors)[kept], kept)


def _learn_joined(
    real: pairs.Pairs, train_rows: NDArray[np.bool_], fusion: str, seed: int
) -> tuple[Joined, list[Tensor]]:
    inputs = []
    for numbers in (real.face, real.sound):
        mean, spread = numbers[train_rows].mean(0), numbers[train_rows].std(0) + 1e-6
        inputs.append(torch.from_numpy(np.clip((numbers - mean) / spread, -5, 5).astype(np.float32)))
    torch.manual_seed(seed)
    network = Joined((real.face.shape[1], real.sound.shape[1]), fusion)
    truth, rows = torch.from_numpy(real.truth), torch.from_numpy(np.flatnonzero(train_rows))
    weight = pairs.balanced_weights(truth[rows])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = EPOCHS * -(-len(rows) // BATCH)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    masks = torch.tensor([*CONDITIONS.values()])
    for _ in range(EPOCHS):
        for at in rows[torch.randperm(len(rows))].split(BATCH):  # type: ignore[no-untyped-call]
            which = torch.multinomial(torch.tensor([1 - DROPPED, DROPPED / 2, DROPPED / 2]), len(at), True)
            parts = [part[at] + 0.2 * torch.randn(len(at), part.shape[1]) for part in inputs]
            logits, alone = network(*parts, masks[which])
            price = functional.cross_entropy(logits, truth[at], weight=weight)
            for one in alone:
                price = price + 0.3 * functional.cross_entropy(one, truth[at], weight=weight)
            optimiser.zero_grad()
            price.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()
    return network.eval(), inputs


def compared_table(
    said: dict[tuple[str, str], NDArray[np.int64]],
    beside: str,
    truth: NDArray[np.int64],
    groups: NDArray[np.str_],
    kept: NDArray[np.bool_],
) -> str:
    """Recall of every way, mean over seeds, and its difference to one; intervals draw whole groups."""
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    draws = [
        np.concatenate([np.flatnonzero(groups == one) for one in rng.choice(names, len(names))])
        for _ in range(400)
    ]

    def recall(found: NDArray[np.int64], at: NDArray[np.int64]) -> float:
        seeds = found[:, kept][:, at]
        return float(np.mean([unweighted_recall(truth[at], one, len(LABELS)) for one in seeds]))

    everything, rows = np.arange(len(truth)), []
    for (way, condition), found in said.items():
        other = said[beside, condition]
        drawn = [recall(found, at) for at in draws]
        gains = [one - recall(other, at) for one, at in zip(drawn, draws, strict=True)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        least, most = np.percentile(gains, [2.5, 97.5])
        mean = recall(found, everything)
        gain = mean - recall(other, everything)
        cell = "" if way == beside else f"{100 * gain:+.1f} ({100 * least:+.1f} to {100 * most:+.1f})"
        rows.append((way, condition, f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})", cell))
    return markdown_table(("way", "with", "unweighted recall, %", f"against {beside}"), rows)


def sound_table(data: Path, folds: int, seeds: int, epochs: int, most: int | None) -> str:
    """Attention against convolutions of equal size, from raw sound, on speakers nobody heard."""
    takes: list[FilmTake] = []
    with tempfile.TemporaryDirectory() as scratch:
        files = _sounds(data, Path(scratch), takes, most)
        speakers = sorted({take.speaker for take in takes})
        fold_of = np.array([speakers.index(take.speaker) % pairs.FOLDS for take in takes])
        protocol = replace(
            PROTOCOLS["ravdess-7"],
            name="voices",
            classes={label: (label,) for label in LABELS},
            slots=tuple(range(len(LABELS))),
        )
        said: dict[tuple[str, str], NDArray[np.int64]] = {}
        for way in ("nest-conv", "nest"):
            found = np.zeros((seeds, len(takes)), np.int64)
            for seed in range(seeds):
                for fold in range(folds):
                    place = Path(scratch) / f"{way}-{seed}-{fold}"
                    rows = _learn_sound(protocol, takes, files, (way, seed, epochs), fold_of != fold, place)
                    found[seed, fold_of == fold] = rows
            said[way, "sound alone"] = found
    kept = fold_of < folds
    truth = protocol.truth(takes).argmax(1)
    return compared_table(said, "nest-conv", truth[kept], np.array([t.speaker for t in takes])[kept], kept)


def _sounds(data: Path, scratch: Path, takes: list[FilmTake], most: int | None) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for corpus, where in corpora_voices.find(data).items():
        if corpus not in ("ravdess", "nemo", "emodb"):
            continue
        read = corpora_voices.read_corpus(corpus, where)
        sounds = corpora_voices.load_takes(read, corpora_voices.default_folder())
        step = 1 if most is None else max(1, len(read) // most)
        for take, samples in zip(read[::step], sounds[::step], strict=True):
            name = f"{corpus}-{take.name}"
            files[name] = scratch / f"{name}.npz"
            no_crops = np.zeros((0, 64, 64, 3), np.uint8)
            np.savez(files[name], crops=no_crops, times_s=np.zeros(0, np.float32), samples=samples)
            takes.append(FilmTake(corpus, name, take.speaker, (take.label,)))
    return files


def _learn_sound(
    protocol: Protocol,
    takes: Sequence[FilmTake],
    files: dict[str, Path],
    how: tuple[str, int, int],
    learn: NDArray[np.bool_],
    place: Path,
) -> NDArray[np.int64]:
    way, seed, epochs = how
    device = best_device()
    network = PaperNetwork(PaperPreset(way, voice=way), seed=seed)
    shower, recipe = Shower(takes, files, network, None), PaperRecipe(batch=32)
    rows = [int(row) for row in np.flatnonzero(learn)]
    task = PaperTask(place.name, shower, rows, protocol, recipe, device)
    plan = Schedule(epochs, rate=1e-3, clip=1.0, seed=seed, device=device, bf16=device != "cpu")
    outcome = train(network, task, plan, place, report=print)
    tested = [int(row) for row in np.flatnonzero(~learn)]
    said = system_answers(outcome.network, shower, tested, protocol.slots, 32, device)
    return np.asarray(said.argmax(1), np.int64)


if __name__ == "__main__":
    main()
