"""Trains what stands on frozen layers, Whisper's or the student's: head, prior, judge of speech, temperature.

The speakers of the frozen sides `calibrate` and `test` are left out of everything that learns; on the first
the temperature is fitted that makes a probability mean what it says.

    python -m liveaffect.engines.training.train_statistics_voice whisper --data DIR --whisper DIR --out OUT
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from liveaffect.engines import whisper
from liveaffect.engines.build.export_onnx import export
from liveaffect.engines.build.fusion_beside import write_beside
from liveaffect.engines.manifest import SHIPPED
from liveaffect.engines.model import presets
from liveaffect.engines.model.voice_statistics import StatisticsHead, StatisticsVoice
from liveaffect.engines.model.voice_student import VoiceStudent
from liveaffect.engines.model.voice_whisper import VoiceWhisper
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training import (
    corpora_voices,
    loop,
    piece_bank,
    sound_store,
    speech_judge,
    splits,
    synthetic_sounds,
    voice_heads,
)
from liveaffect.engines.training.corpora_voices import LICENCES
from liveaffect.engines.training.distil_voice import Pupil
from liveaffect.engines.training.piece_bank import PieceBank, Sound
from liveaffect.engines.training.ship import source_commit
from liveaffect.engines.training.sided_voices import found_in, sided
from liveaffect.engines.training.voice_heads import HeadSchedule, Voices

COPIES = 2
"""Each recording as it is, and once somewhere else."""
NOISES_EACH, NOISES_SEED = 12, 1
_FAR = -1e4
TEMPERATURES = np.geomspace(0.4, 4.0, 60)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What stands on the layers now, and how far it is."""

    network: StatisticsVoice
    training: Mapping[str, Any]


def train(
    network: StatisticsVoice, bank: PieceBank, sides: Mapping[str, str], schedule: HeadSchedule
) -> Trained:
    """Fit everything behind the layers on the train side; the same network, ready to be exported."""
    side = np.array([sides.get(speaker, "") for speaker in bank.speaker])
    chosen = side == "train"
    measure = voice_heads.measure_of(bank, chosen)
    voices = Voices(bank, measure)
    head = voice_heads.fit(voices, chosen, network.head_preset, schedule)
    network.head.load_state_dict(head.state_dict())
    network.believe(measure.mean, measure.deviation)
    speech_judge.fit(bank, chosen, network.speech, seed=schedule.seed)
    hop_s = network.sound.hop / SAMPLE_RATE
    watched = np.flatnonzero((side == "calibrate") & (bank.copy == 0))
    temperature = fitted_temperature(voices, head, watched, hop_s)
    with torch.no_grad():
        network.head.decide.weight.div_(temperature)
        network.head.decide.bias.div_(temperature)
    speakers = sorted(set(bank.speaker[chosen]))
    told = {
        "speakers": speakers,
        "recordings": int((chosen & (bank.copy == 0)).sum()),
        "temperature": temperature,
    }
    return Trained(network.eval(), told)


def fitted_temperature(voices: Voices, head: StatisticsHead, rows: NDArray[np.int64], hop_s: float) -> float:
    """By which pooled logits are divided so that they mean what they say, every corpus counting alike."""
    bank, possible = voices.bank, voices.possible()
    corpus, logits, asked = bank.corpus, list[NDArray[np.float32]](), list[int]()
    for known in (False, True):
        for row, said in voice_heads.asked(voices, head, rows, known=known).items():
            logits.append(said.pooled(hop_s))
            asked.append(row)
    stacked = torch.from_numpy(np.stack(logits)).masked_fill(~possible[asked], _FAR)
    truth = torch.from_numpy(bank.label[asked])
    share = torch.tensor([1.0 / (corpus[rows] == corpus[row]).sum() for row in asked])
    losses = [
        float((functional.cross_entropy(stacked / t, truth, reduction="none") * share).sum())
        for t in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def sounds_of(takes: Mapping[str, Sequence[corpora_voices.Take]], cache: Path) -> list[Sound]:
    """All recordings, and sounds that nobody speaks in."""
    found = []
    for these in takes.values():
        found += [
            Sound(samples, take)
            for take, samples in zip(these, sound_store.load_takes(these, cache, _log.info), strict=True)
        ]
    noises = synthetic_sounds.bank(NOISES_EACH, NOISES_SEED)
    return found + [Sound(samples) for kind in noises.values() for samples in kind]


def ready(preset: str, whisper_folder: Path | None, student: Path | None) -> StatisticsVoice:
    """A network with its layers in place and nothing behind them."""
    network = presets.build("voice", preset)
    assert isinstance(network, StatisticsVoice)
    if isinstance(network, VoiceWhisper) and whisper_folder is not None:
        network.ears.take(whisper.read(whisper_folder, whisper.KNOWN[network.preset.whisper]))
    if isinstance(network, VoiceStudent) and student is not None:
        state = loop.read_checkpoint(student / loop.CHECKPOINT)["averaged"]
        pupil = Pupil(network, state["tell.weight"].shape[0])
        pupil.load_state_dict(state)
        network = pupil.student
    return network.eval()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m liveaffect.engines.training.train_statistics_voice", description=__doc__
    )
    parser.add_argument("preset", choices=("whisper", "student"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, help="a folder with the model.bin that the preset names")
    parser.add_argument("--student", type=Path, help="the folder in which the student was taught")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    takes = found_in(given.data)
    sides, digest = sided(takes, given.out / splits.FROZEN.name)
    network = ready(given.preset, given.whisper, given.student)
    sounds = sounds_of(takes, sound_store.default_folder())
    bank = piece_bank.filled(
        network, sounds, COPIES, given.out / "bank", limit_s=given.limit_s, report=_log.info
    )
    if bank is None:
        return 75
    schedule = HeadSchedule(seed=given.seed)
    done = train(network, bank, sides, schedule)
    licence = "; ".join(dict.fromkeys(LICENCES[corpus] for corpus in takes))
    training = {
        "corpora": list(takes),
        "licence": licence,
        "splits": digest,
        **done.training,
        "seed": given.seed,
        "commit": source_commit(),
        "recipe": asdict(schedule),
    }
    path = export("voice", given.preset, given.out, state=done.network.state_dict(), training=training)
    _log.info("wrote %s and %s", path, write_beside(SHIPPED, given.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
