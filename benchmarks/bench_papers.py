"""What of the papers' claims holds here: their speed, their fusion, their attention on spectra.

    python benchmarks/bench_papers.py speed
    python benchmarks/bench_papers.py branches --data ../shared/data
    python benchmarks/bench_papers.py learning --data ../shared/data [--seeds 3] [--kept DIR]
    python benchmarks/bench_papers.py throughput --film ../shared/data/clips/demo_grid_10speakers.mp4
    python benchmarks/bench_papers.py fusion --data ../shared/data [--seeds 3]
    python benchmarks/bench_papers.py sound --data ../shared/data [--seeds 3] [--folds 3] [--kept DIR]

`speed` runs every pair in turns in one process, torch on one thread, processor time; random weights change
no cost. `branches` folds networks and compares both forms on real pictures and sound, `learning` learns faces
with branches and without (both branches.py).
`throughput` is the processor time of one thread for cutting and for learning from utterances of 4.5 s, made
up. `fusion` learns face, voice and fusion together from action units and pieces of the sound of the same
RAVDESS takes (fusions.py), five folds of actors. `sound` learns log-mel of three corpora with attention and
with convolutions of equal size (spectra.py), three folds of speakers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import fusions
import numpy as np
import spectra
import torch
from branches import branches_table, learning_table
from numpy.typing import NDArray
from torch import Tensor

from liveaffect.engines.model import presets
from liveaffect.engines.model.blocks import attention_pool
from liveaffect.engines.model.paper import PaperNetwork
from liveaffect.engines.model.voice_spectrogram import VoiceFcn, VoiceNest
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS, MEL_BANDS
from liveaffect.engines.stopwatch import all_threads_cpu_ns, median_ns
from liveaffect.engines.training import pairs
from liveaffect.engines.training.corpora_films import FilmTake
from liveaffect.engines.training.paper_task import PaperRecipe, PaperTask, Shower
from liveaffect.engines.training.protocols import PROTOCOLS
from liveaffect.engines.training.scores import markdown_table, unweighted_recall
from liveaffect.engines.training.train_paper import PaperOptions, paper_preset
from liveaffect.placing import cut_film

ROUNDS = 15
WINDOW = 30
"""Pieces of sound in six seconds, as live cuts them."""
COMPARED = ("way", "with", "unweighted recall, %")
ATTENTION = "hierarchical attention"


def main() -> None:
    """Measure one of them, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("speed", "branches", "learning", "throughput", "fusion", "sound"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--film", type=Path, help="of at least 12 s, to be cut")
    parser.add_argument("--folds", type=int, default=pairs.FOLDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, help="folder of trainings, to go on where one was stopped")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "speed":
        print(speed_table())
    elif asked.what == "throughput":
        print(throughput_table(asked.film))
    elif asked.data is None:
        parser.error(f"{asked.what} needs --data")
    elif asked.what == "branches":
        print(branches_table(asked.data))
    elif asked.what == "fusion":
        print(fusion_table(asked.data, asked.folds, asked.seeds))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            kept = asked.kept or Path(scratch)
            if asked.what == "learning":
                print(learning_table(asked.data, asked.seeds, kept))
            else:
                print(sound_table(asked.data, asked.folds, asked.seeds, kept))


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
    network = presets.deploy(presets.build("voice", preset))
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

    def outside() -> Tensor:
        picture = spectra.log_mel(samples, sound)
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
    rows = list[tuple[str, ...]]()
    if film is not None:
        takes = [
            FilmTake("x", f"{at}", "x", (), film, begin_s=3.0 * at, end_s=3.0 * at + 3.0) for at in range(4)
        ]
        list(cut_film(takes[:1], 5.0))
        cost_s = median_ns([lambda: list(cut_film(takes, 5.0))], rounds=3, now=all_threads_cpu_ns)[0] / 1e9
        rows.append(("cutting, a second of film", f"{cost_s / 12:.2f}", ""))
    with tempfile.TemporaryDirectory() as scratch:
        takes, files = _made_up(Path(scratch), 4)
        for system in ("fv2es", "fcn", "amfbp"):
            network = PaperNetwork(paper_preset(PaperOptions(system, "iemocap"))).train()
            protocol, shower = PROTOCOLS["iemocap-4-session"], Shower(takes, files, network, None)
            task = PaperTask(system, shower, range(len(takes)), protocol, PaperRecipe())

            def learn(bf16: bool, task: PaperTask = task, network: PaperNetwork = network) -> None:
                for batch in task.batches(0, np.random.default_rng(0)):
                    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                        loss = task.loss(network, batch)
                    torch.autograd.backward(loss)

            ways = [partial(learn, False), partial(learn, True)]
            each = [
                f"{ns / 1e9 / len(takes):.2f}" for ns in median_ns(ways, rounds=3, now=all_threads_cpu_ns)
            ]
            rows.append((f"{system}, mended, without words, an utterance", *each))
    return markdown_table(("what", "processor time, s", "in half precision"), rows)


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


def fusion_table(data: Path, folds: int, seeds: int) -> str:
    """Unweighted recall of each fusion with and without each modality, intervals over actors."""
    said, truth, actors = fusions.everything_said(data, folds, seeds)
    rows = compared_rows(said, "late-masked", truth, actors)
    adaptive = {key: found for key, found in said.items() if key[0] in ("amfbp", "agfbp")}
    beside = [row for row in compared_rows(adaptive, "agfbp", truth, actors) if row[0] == "amfbp"]
    rows += [("amfbp against agfbp", name, "", gain) for _, name, _, gain in beside]
    return markdown_table((*COMPARED, "against late-masked"), rows)


def compared_rows(
    said: dict[tuple[str, str], NDArray[np.int64]],
    beside: str,
    truth: NDArray[np.int64],
    groups: NDArray[np.str_],
) -> list[tuple[str, str, str, str]]:
    """Recall of every way, mean over seeds, and how far it is above one; intervals draw whole groups."""
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    draws = [
        np.concatenate([np.flatnonzero(groups == one) for one in rng.choice(names, len(names))])
        for _ in range(400)
    ]

    def recall(found: NDArray[np.int64], at: NDArray[np.int64]) -> float:
        return float(np.mean([unweighted_recall(truth[at], one, len(LABELS)) for one in found[:, at]]))

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
    return rows


def sound_table(data: Path, folds: int, seeds: int, kept: Path) -> str:
    """Attention against convolutions of equal size on speakers nobody heard, over all and in each corpus."""
    heard = spectra.hear(data)
    folds = min(folds, spectra.FOLDS)
    said = spectra.everything_said(heard, folds, seeds, kept)
    rows = []
    for name in ("all", *spectra.CORPORA):
        of_it = (heard.folds < folds) & ((name == "all") | (heard.corpora == name))
        those = {(way, name): found[:, of_it] for way, found in said.items()}
        rows += compared_rows(those, ATTENTION, heard.truth[of_it], heard.speakers[of_it])
    first = heard.folds == 0
    for way, found in said.items():
        each = [unweighted_recall(heard.truth[first], one[first], len(LABELS)) for one in found]
        rows.append((way, "first fold, each seed", ", ".join(f"{100 * one:.1f}" for one in each), ""))
    return markdown_table((*COMPARED, f"against {ATTENTION}"), rows)


if __name__ == "__main__":
    main()
