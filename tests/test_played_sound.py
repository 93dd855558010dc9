"""`--mic output` hears what the loudspeaker plays, at its time, and says when there is nothing to ask."""

from __future__ import annotations

import numpy as np
import pytest

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import SECOND, MonotonicClock
from liveaffect.realtime.errors import MissingLibrary, SourceNotFound
from liveaffect.realtime.feeds import microphone_feed
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.testing.devices import virtual_microphone, why_no_virtual_microphone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_virtual_microphone() is not None, reason=why_no_virtual_microphone() or ""),
]
RATE_HZ = 48_000


def test_what_is_played_is_heard_in_pitch_and_in_time() -> None:
    clock = MonotonicClock()
    tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE_HZ) / RATE_HZ)).astype(np.float32)
    with virtual_microphone() as microphone:
        source = microphone_feed("output", clock).make()
        source.open()
        began_ns = clock.now_ns()
        player = microphone.play(tone, RATE_HZ)
        blocks: list[AudioBlock] = []
        while clock.now_ns() - began_ns < 4 * SECOND:
            item = source.read(0.1)
            if isinstance(item, AudioBlock):
                blocks.append(item)
        ended_ns = clock.now_ns()
        source.close()
        player.kill()
        player.wait()
    sound = np.concatenate([block.samples for block in blocks])
    loud = sound[
        np.abs(sound).max() * 0.5 < np.convolve(np.abs(sound), np.ones(160) / 160, "same") * np.pi / 2
    ]
    peak = np.argmax(np.abs(np.fft.rfft(loud))) * SAMPLE_RATE / len(loud)
    assert len(loud) > 2 * SAMPLE_RATE
    assert abs(peak - 440) < 3
    stamps = [block.captured_ns for block in blocks]
    assert stamps == sorted(stamps)
    assert began_ns - SECOND < stamps[0]
    assert stamps[-1] <= ended_ns


def test_without_a_sound_server_or_its_recorder_the_way_out_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = str(tmp_path_factory.mktemp("empty"))
    for name in ("XDG_RUNTIME_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, empty)
    monkeypatch.setenv("PULSE_SERVER", f"unix:{empty}/none")
    with pytest.raises(SourceNotFound, match="no sound server answers"):
        microphone_feed("output", MonotonicClock()).make().open()
    monkeypatch.setenv("PATH", empty)
    with pytest.raises(MissingLibrary, match="pulseaudio-utils"):
        microphone_feed("output", MonotonicClock()).make().open()
