"""Makes the voice networks: layers that hear, and behind them a head that judges.

The small network first learns what Whisper's layers say, then what people call it (`tune_voice`); the full
one has Whisper's own, and over them a listener (`train_listener`). Then all of that stands still and what is
behind it is fitted: prior, head, judge of speech, and the temperature that makes a probability mean what it
says. Nothing is learnt from speakers of the sides calibrate and test; on the first the temperature is fitted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from liveaffect.engines import manifest as manifests
from liveaffect.engines import whisper
from liveaffect.engines.build.export_onnx import export, in_halves, write_beside
from liveaffect.engines.build.quantize import quantize
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.model import presets
from liveaffect.engines.model.voice_statistics import (
    SpeechJudge,
    StatisticsHead,
    StatisticsVoice,
    VoiceStudent,
    VoiceWhisper,
)
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import EngineError, Tensors
from liveaffect.engines.recipe import LABELS, SAMPLE_RATE
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training import (
    corpora_voices,
    loop,
    piece_bank,
    splits,
    synthetic_sounds,
    train_listener,
    voice_heads,
)
from liveaffect.engines.training.corpora_voices import LICENCES, Take
from liveaffect.engines.training.listen import listen, pieces_of
from liveaffect.engines.training.loop import source_commit
from liveaffect.engines.training.piece_bank import NOTHING, PieceBank, Sound
from liveaffect.engines.training.splits import few, found_in, sided
from liveaffect.engines.training.tune_voice import DistilTask, Labelled, Pupil, Sounds, TuneTask, with_head
from liveaffect.engines.training.voice_heads import HeadSchedule, Voices

TRAINED_PRESETS = ("student", "whisper")
DISTIL_EPOCHS, TUNE_EPOCHS = 50, 30
DISTIL_RATE, TUNE_RATE, AVERAGE = 2e-3, 1e-3, 0.995
COPIES = 2
"""Each recording as it is, and once somewhere else."""
NOISES_EACH, NOISES_SEED = 12, 1
QUANTISE_EACH = 8
"""Recordings of each label that INT8 is calibrated on."""
SMOKE_STEPS, SMOKE_BATCH = 2, 4
TEMPERATURES = np.geomspace(0.4, 4.0, 60)
Report = Callable[[str], None]
_log = logging.getLogger(__name__)
STEPS, BATCH, RATE = 600, 256, 2e-3
SOUNDS = 0.35
"""Share of a batch that nobody speaks in."""


@dataclass(frozen=True, slots=True)
class VoiceOptions:
    """What is made, and for how long."""

    whisper: Path
    """The folder with the `model.bin` that the layers, or what they learn from, are taken from."""
    preset: str = "student"
    smoke: bool = False
    """A small part of everything, to see that it works."""
    seed: int = 0
    epochs: int | None = None
    """Of both trainings of the small network, where they are not the usual ones."""
    limit_s: float = math.inf
    """Ends after it; the same call goes on."""
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Corpora:
    """All recordings with the side of each speaker, and what that was hashed to."""

    takes: Mapping[str, Sequence[Take]]
    sounds: tuple[Sound, ...]
    sides: Mapping[str, str]
    digest: str

    def on(self, side: str) -> list[Sound]:
        """The recordings of one side."""
        return [one for one in self.sounds if one.take is not None and self.sides[one.take.speaker] == side]


def train_voice(data: Path, out: Path, options: VoiceOptions, *, report: Report = _log.info) -> Path | None:
    """Make a voice network from the corpora in `data`, or go on; network, manifest and a fusion beside it.

    The manifest's path, or None when the time limit came first: the same call goes on then. Raises
    EngineError for a preset that is not trained here.
    """
    if options.preset not in TRAINED_PRESETS:
        raise EngineError(
            f"the voice preset '{options.preset}' is not trained here; {' and '.join(TRAINED_PRESETS)} are"
        )
    torch.set_num_threads(options.threads)
    start_ns = wall_ns()

    def left_s() -> float:
        return options.limit_s - (wall_ns() - start_ns) * 1e-9

    out.mkdir(parents=True, exist_ok=True)
    corpora = read_corpora(data, out / splits.FROZEN.name, smoke=options.smoke, report=report)
    network = with_layers(options, corpora, out, left_s, report)
    if network is None:
        return None
    noises = synthetic_sounds.bank(1 if options.smoke else NOISES_EACH, NOISES_SEED)
    sounds = [*corpora.sounds, *(Sound(samples) for kind in noises.values() for samples in kind)]
    copies = 1 if options.smoke else COPIES
    bank = piece_bank.filled(network, sounds, copies, out / "bank", limit_s=left_s(), report=report)
    if bank is not None and isinstance(network, VoiceWhisper):
        report("a listener learns what the moments of Whisper's layers say of moods")
        train = np.array([corpora.sides.get(speaker) == "train" for speaker in bank.speaker])
        lessons = SMOKE_STEPS if options.smoke else train_listener.STEPS
        task = train_listener.ListenTask(bank, train, options.seed, lessons)
        plan = train_listener.usual_schedule(options.seed, left_s())
        plan = replace(plan, epochs=1) if options.smoke else plan
        bank = train_listener.teach(network, task, out / "listened", plan, report=report)
    if bank is None:
        return None
    schedule = HeadSchedule(seed=options.seed)
    schedule = replace(schedule, steps=20, batch=8) if options.smoke else schedule
    training: dict[str, Any] = {
        "corpora": list(corpora.takes),
        "licence": "; ".join(dict.fromkeys(LICENCES[corpus] for corpus in corpora.takes)),
        "splits": corpora.digest,
        **fit_behind_layers(network, bank, corpora.sides, schedule),
        "seed": options.seed,
        "commit": source_commit(),
        "recipe": asdict(schedule),
    }
    if isinstance(network, VoiceStudent):
        distilled, tuned = (epochs_of(options, usual) for usual in (DISTIL_EPOCHS, TUNE_EPOCHS))
        training |= {"distilled_epochs": distilled, "tuned_epochs": tuned}
    else:
        training["listened_epochs"] = 1 if options.smoke else train_listener.EPOCHS
        in_halves(network)
    path = export("voice", options.preset, out, state=network.state_dict(), training=training)
    if isinstance(network, VoiceStudent):
        quantize(path, int8_batches(path, corpora.on("calibrate") or corpora.on("train")))
    write_beside(SHIPPED, out)
    report(f"wrote {path}, its networks and a fusion beside them")
    return path


def read_corpora(data: Path, frozen: Path, *, smoke: bool = False, report: Report = _log.info) -> Corpora:
    """Every corpus in a data folder, decoded."""
    takes = found_in(data)
    sides, digest = sided(takes, frozen)
    if smoke:
        takes = {corpus: few(these, sides) for corpus, these in takes.items()}
    cache = corpora_voices.default_folder()
    sounds = [
        Sound(samples, take)
        for these in takes.values()
        for take, samples in zip(these, corpora_voices.load_takes(these, cache, report), strict=True)
    ]
    return Corpora(takes, tuple(sounds), sides, digest)


def full_network(folder: Path) -> VoiceWhisper:
    """A network on Whisper's layers, nothing behind them."""
    network = presets.build("voice", "whisper")
    assert isinstance(network, VoiceWhisper)
    network.ears.take(whisper.read(folder, whisper.KNOWN[network.preset.whisper]))
    return network.eval()


def learnt_layers(folder: Path, seed: int = 0) -> VoiceStudent:
    """The small network with the layers that a training in `folder` stopped at, nothing behind them."""
    state = loop.read_checkpoint(folder / loop.CHECKPOINT)["averaged"]
    pupil = Pupil(new_student(seed), state["tell.weight"].shape[0])
    pupil.load_state_dict(state)
    return pupil.student.eval()


def new_student(seed: int) -> VoiceStudent:
    """A small network that knows nothing."""
    student = presets.build("voice", "student", seed=seed)
    assert isinstance(student, VoiceStudent)
    return student


def with_layers(
    options: VoiceOptions, corpora: Corpora, out: Path, left_s: Callable[[], float], report: Report
) -> StatisticsVoice | None:
    """The network with its layers in place; the small one's are learnt. None when the time was up."""
    teacher = full_network(options.whisper)
    if options.preset == "whisper":
        return teacher
    teacher = with_head(teacher, SHIPPED / "full" / "voice.onnx")
    everything = Sounds.of(
        [one.samples for one in corpora.on("train")],
        [one.samples for one in corpora.on("calibrate") or corpora.on("train")],
        smoke=options.smoke,
    )
    steps = {"steps": SMOKE_STEPS, "batch": SMOKE_BATCH} if options.smoke else {}
    distil = DistilTask(everything, teacher, **steps)
    pupil = Pupil(new_student(options.seed), distil.told)

    def plan(rate: float, epochs: int) -> loop.Schedule:
        return loop.Schedule(
            epochs=epochs_of(options, epochs),
            rate=rate,
            average=AVERAGE,
            seed=options.seed,
            threads=options.threads,
            limit_s=left_s(),
        )

    report("the small network learns what Whisper's layers say")
    heard = loop.train(pupil, distil, plan(DISTIL_RATE, DISTIL_EPOCHS), out / "distilled", report=report)
    if not heard.finished:
        return None
    report("the small network learns what people call it")
    task = TuneTask(
        distil,
        Labelled(corpora.on("train")),
        Labelled(corpora.on("calibrate") or corpora.on("train")),
        f"tune-{options.seed}",
    )
    pupil.load_state_dict(heard.state)
    tuned = loop.train(pupil, task, plan(TUNE_RATE, TUNE_EPOCHS), out / "tuned", report=report)
    return learnt_layers(out / "tuned", options.seed) if tuned.finished else None


def epochs_of(options: VoiceOptions, usual: int) -> int:
    """How many epochs one training of the small network has."""
    return options.epochs or (1 if options.smoke else usual)


def fit_behind_layers(
    network: StatisticsVoice, bank: PieceBank, sides: Mapping[str, str], schedule: HeadSchedule
) -> dict[str, Any]:
    """Fit prior, head, judge of speech and temperature on the train side; what the manifest says of it."""
    side = np.array([sides.get(speaker, "") for speaker in bank.speaker])
    chosen = side == "train"
    voices = voice_heads.give_head(network, bank, chosen, schedule)
    fit(bank, chosen, network.speech, network.sound.lead // network.sound.hop, seed=schedule.seed)
    hop_s = network.sound.hop / SAMPLE_RATE
    watched = np.flatnonzero((side == "calibrate") & (bank.copy == 0))
    temperature = fitted_temperature(voices, network.head, watched, hop_s) if len(watched) else 1.0
    with torch.no_grad():
        network.head.decide.weight.div_(temperature)
        network.head.decide.bias.div_(temperature)
    network.eval()
    return {
        "speakers": sorted(set(bank.speaker[chosen])),
        "recordings": int((chosen & (bank.copy == 0)).sum()),
        "temperature": temperature,
    }


def fitted_temperature(voices: Voices, head: StatisticsHead, rows: NDArray[np.int64], hop_s: float) -> float:
    """By which pooled logits are divided so that they mean what they say, every corpus counting alike."""
    bank, possible = voices.bank, voices.possible()
    corpus, logits, asked = bank.corpus, list[NDArray[np.float32]](), list[int]()
    for known in (False, True):
        for row, said in voice_heads.asked(voices, head, rows, hop_s, known=known).items():
            if (pooled := said.pooled()) is not None:
                logits.append(pooled)
                asked.append(row)
    stacked = torch.from_numpy(np.stack(logits)).masked_fill(~possible[asked], voice_heads.FAR)
    truth = torch.from_numpy(bank.label[asked])
    share = torch.tensor([1.0 / (corpus[rows] == corpus[row]).sum() for row in asked])
    losses = [
        float((functional.cross_entropy(stacked / t, truth, reduction="none") * share).sum())
        for t in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def int8_batches(path: Path, sounds: Sequence[Sound], seed: int = 0) -> Iterator[Tensors]:
    """Pieces for INT8 as they come live: real voices in their running statistics, label by label."""
    found, rng = manifests.read(path), np.random.default_rng(seed)
    recipe = found.recipe
    with closing(OnnxEngine(found, path.parent)) as engine:
        for label in range(len(LABELS)):
            mine = [one for one in sounds if one.label == label]
            chosen = rng.permutation(len(mine))[:QUANTISE_EACH]
            recordings = [np.asarray(mine[at].samples, np.float32) for at in chosen]
            for sound, heard in zip(recordings, listen(engine.infer, recipe, recordings), strict=True):
                pieces = pieces_of(sound, recipe.piece, recipe.hop, recipe.lead)
                yield {"samples": pieces.copy(), "mean": heard.mean, "istd": heard.istd}


def fit(
    bank: PieceBank, chosen: NDArray[np.bool_], judge: SpeechJudge, behind: int, *, seed: int = 0
) -> None:
    """Train a judge on the chosen recordings and on all sounds of the bank that are no speech.

    `behind` pieces of each lie behind its last sound: silence that was put there teaches nothing.
    """
    rng = np.random.default_rng(seed)
    sound = np.arange(len(bank.owner)) < bank.edges()[1][bank.owner] - behind
    noise = np.flatnonzero((bank.label == NOTHING)[bank.owner] & sound)
    people = np.flatnonzero((chosen & (bank.label != NOTHING))[bank.owner] & sound)
    seen = torch.from_numpy(bank.newest[people[:: max(1, len(people) // 8192)]]).float()
    mean, scale = seen.mean(0), 1.0 / seen.std(0).clamp(min=1e-3)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.02)
    judge.train()
    for _ in range(STEPS):
        rows = rng.choice(people, BATCH)
        if len(noise):
            rows[: round(SOUNDS * BATCH)] = rng.choice(noise, round(SOUNDS * BATCH))
        said = judge((torch.from_numpy(bank.newest[rows]).float() - mean) * scale)[:, 0]
        loss = functional.binary_cross_entropy(said, torch.from_numpy(bank.speech[rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        # The network is handed features as they are, so the scaling becomes part of the first layer.
        judge.look.weight.mul_(scale)
        judge.look.bias.sub_(judge.look.weight @ mean)
    judge.eval()
