"""No sound is lost silently: files hear all of it or refuse, and a live run says what it left out and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from liveaffect.engines.recipe import HOP, PIECE, SAMPLE_RATE, Statistics
from liveaffect.prediction import predict_sound
from liveaffect.realtime.acting import tone_voice
from liveaffect.realtime.attribution import Attribution, Voice
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import EndOfStream, RealtimeError
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.lockstep import LockStep, Summary, Watched, analyse
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.ring import AudioRing
from liveaffect.realtime.sinks import Outputs
from liveaffect.realtime.testing.devices import tone
from liveaffect.realtime.testing.engines import ConstantEngine, CountingEngine
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.voice_analyzer import BROKEN, LATE, SHED, UNDECIDED, VoiceAnalyzer
from liveaffect.realtime.window import PIECES, PieceGrid
from liveaffect.realtime.wiring import Rings, Tools, Wiring

MICROPHONE = "mic:0"


def blocks_of(samples: int, block: int) -> Iterator[AudioBlock]:
    """A voice in blocks of one size."""
    voice = np.resize(tone_voice(2.0), samples)
    for first in range(0, samples, block):
        yield AudioBlock(
            MICROPHONE, first, first * SECOND // SAMPLE_RATE, voice[first : first + block].copy()
        )


class Sound:
    """A source of sound alone, in blocks of one size."""

    def __init__(self, samples: int, block: int, *, missing: range = range(0)) -> None:
        self._blocks = (each for each in blocks_of(samples, block) if each.first not in missing)

    def read(self, timeout_s: float) -> AudioBlock:
        block = next(self._blocks, None)
        if block is None:
            raise EndOfStream("the sound is over")
        return block


def run(samples: int, block: int) -> int:
    """How many pieces the voice network was given in lock-step."""
    voice = CountingEngine(ConstantEngine("voice", "sad"))
    networks = Networks(ConstantEngine("face", "sad"), voice, ConstantEngine("fusion", "sad"))
    rings = Rings.plain([], [MICROPHONE])
    wiring = Wiring(rings, networks, lambda: pytest.fail("no camera, no finder"), lambda _: None)
    LockStep(wiring, None, Outputs([])).run(Sound(samples, block))
    return sum(voice.batches)


@pytest.mark.parametrize("past_the_grid", [0, 1, 700, 1599])
def test_lock_step_hears_every_piece_wherever_between_two_grid_points_the_sound_ends(
    past_the_grid: int,
) -> None:
    """The last piece may be complete after the last grid point."""
    for count in range(1, 4):
        samples = PIECE + count * HOP + past_the_grid
        assert run(samples, 320) == 1 + count + past_the_grid // HOP


def test_lock_step_refuses_to_go_on_as_if_nothing_was_lost_when_sound_comes_too_late_to_be_heard() -> None:
    with pytest.raises(RealtimeError, match=LATE):
        run(10 * SAMPLE_RATE, 10 * SAMPLE_RATE)


def test_what_a_recording_says_last_is_heard_out_by_a_prediction_as_it_is_live() -> None:
    """A microphone goes on behind the last word, a recording may not: silence follows it."""
    voice = CountingEngine(ConstantEngine("voice", "sad"))
    networks = Networks(ConstantEngine("face", "sad"), voice, ConstantEngine("fusion", "sad"))
    grid = PieceGrid(PIECE, HOP, PIECE - HOP)
    tools = Tools(networks, lambda: pytest.fail("no camera, no finder"), grid)
    samples = 10 * HOP
    found = predict_sound(list(blocks_of(samples, 320)), tools)
    assert sum(voice.batches) == (samples + grid.lead) // HOP
    assert found.voice is not None


def analyzer(samples: int, *, gap_at: int | None = None) -> VoiceAnalyzer:
    """One whose microphone has delivered so much, in blocks, of which one may be missing."""
    ring = AudioRing(20 * SAMPLE_RATE)
    for first in range(0, samples, HOP):
        if first != gap_at:
            ring.push(tone(first, HOP, first * SECOND // SAMPLE_RATE))
    return VoiceAnalyzer(MICROPHONE, ring, PIECES)


def test_every_piece_is_heard_or_counted_with_its_cause() -> None:
    late = analyzer(10 * HOP)
    complete = (10 * HOP - PIECE) // HOP + 1
    assert late.unheard == complete
    assert len(late.due(hop_doubled=False)) + late.lost[LATE] == complete
    assert late.unheard == 0
    calm = analyzer(PIECE + HOP)
    assert (len(calm.due(hop_doubled=True)), calm.lost[SHED]) == (1, 1)
    broken = analyzer(PIECE + HOP, gap_at=HOP)
    assert (broken.due(hop_doubled=False), broken.lost[BROKEN]) == ([], 2)


def answer(speech: float) -> dict[str, np.ndarray]:
    engine = ConstantEngine("voice", "sad")
    spec = {tensor.name: tensor for tensor in engine.spec.inputs}
    inputs = {name: np.zeros((1, *tensor.shape), tensor.dtype) for name, tensor in spec.items()}
    row = {name: array[0] for name, array in engine.infer(inputs).items()}
    return {**row, "speech": np.array([speech], np.float32)}


def test_speech_that_stays_undecided_is_counted_and_said_in_the_summary() -> None:
    hearing = analyzer(PIECE)
    (piece,) = hearing.due(hop_doubled=False)
    hearing.take(piece, answer(1.0))
    for at_ms in itertools.count(450, 100):
        hearing.assign(at_ms * MS, anyone_in_view=True)
        if hearing.lost[UNDECIDED] or at_ms > 5_000:
            break
    assert hearing.lost[UNDECIDED] == 1
    line = Summary(lost_sound=dict(hearing.lost)).line()
    assert line.endswith("; 1 piece of speech dropped because it stayed undecided who spoke")


class Says(Attribution):
    """Whoever is said to speak."""

    voice = Voice("track", 7, 1.0)

    def decide(self, now_ns: int) -> Voice:
        """As said."""
        del now_ns
        return self.voice


def test_the_end_of_a_sentence_belongs_to_whoever_spoke_and_to_nobody_once_they_left() -> None:
    hop = 2 * HOP
    grid = PieceGrid(4 * hop, hop, 3 * hop, Statistics(3, "pieces"))
    ring, says = AudioRing(20 * SAMPLE_RATE), Says()
    hearing = VoiceAnalyzer(MICROPHONE, ring, grid, attribution=says)
    said = answer(0.0) | {"stat_sum": np.ones(3, np.float32), "stat_sumsq": np.ones(3, np.float32)}

    def hear(at: int, speech: float) -> list[int | None]:
        ring.push(tone(at * hop, hop, at * hop * SECOND // SAMPLE_RATE))
        (piece,) = hearing.due(hop_doubled=False)
        hearing.take(piece, {**said, "speech": np.array([speech], np.float32)})
        heard = hearing.assign(piece.captured_ns, anyone_in_view=True)
        assert all(one.covers_ns == round(speech * hop * SECOND / SAMPLE_RATE) for one in heard)
        return [one.track for one in heard]

    # What begins to speak is heard at once, though little of the piece is speech yet.
    assert [hear(0, 0.625), hear(1, 1.0)] == [[7], [7]]
    says.voice = Voice("nobody speaks", None, 1.0)
    assert [hear(at, 0.0) for at in range(2, 6)] == [[7], [7], [7], []]
    says.voice = Voice("track", 7, 1.0)
    assert hear(6, 1.0) == [7]
    says.voice = Voice("nobody speaks", None, 1.0)
    hearing.forget(7)
    assert hear(7, 0.0) == []


@pytest.mark.parametrize("gap_s", [1, 30])
def test_the_summary_of_a_file_reports_what_its_sound_lost(gap_s: int) -> None:
    """Part of a recording is missing, even more than a ring holds: that is no fault of lock-step."""
    gap = range(SAMPLE_RATE, (1 + gap_s) * SAMPLE_RATE)
    watched = Watched(Sound(gap.stop + SAMPLE_RATE, 320, missing=gap), None, MICROPHONE)
    tools = Tools(constant_networks(), lambda: pytest.fail("no camera, no finder"))
    summary = analyse(watched, tools, Outputs([]), lambda _: None)
    lost = summary.lost_sound[BROKEN]
    assert 0 <= lost - len(gap) // HOP <= PIECE // HOP + 1
    assert summary.line().endswith(f"; {lost} {BROKEN}")
