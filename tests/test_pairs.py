"""A microphone that is paired with a camera gives no voice to faces before another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from liveaffect.realtime.cue import Cue
from liveaffect.realtime.errors import EndOfStream, SettingsError
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.testing.people import Talkers
from liveaffect.realtime.testing.virtual_time import constant_networks
from liveaffect.realtime.wiring import Rings, Wiring
from liveaffect.settings import Settings

WEBCAM, SCREEN, MIC = "camera:0", "camera:screen", "mic:default"


def speakers(pairs: Mapping[str, str]) -> set[int | None]:
    """Who is said to speak when somebody on the screen moves the mouth with the sound of the microphone."""
    cues: list[Cue] = []
    film = Talkers(5.0)
    rings = Rings.plain([WEBCAM, SCREEN], [MIC])
    wiring = Wiring(rings, constant_networks(), film.make_finders, cues.extend)
    wiring.pair(pairs)
    film.open()
    while True:
        try:
            item = film.read(1.0)
        except EndOfStream:
            return {cue.track for cue in cues if cue.speaking}
        source = SCREEN if isinstance(item, VideoFrame) else MIC
        item = replace(item, source=source)
        rings.take(item)
        if isinstance(item, VideoFrame):
            wiring.look(item)
            wiring.scheduler.step(item.captured_ns)


def test_without_pairs_a_voice_goes_to_whoever_moves_the_mouth() -> None:
    assert speakers({}) >= {1}


def test_a_microphone_paired_with_the_screen_hears_the_people_there() -> None:
    assert speakers({MIC: SCREEN}) >= {1}


def test_a_microphone_paired_with_the_webcam_gives_nobody_on_the_screen_a_voice() -> None:
    assert 1 not in speakers({MIC: WEBCAM})


def test_a_microphone_without_a_pair_does_not_hear_the_paired_camera() -> None:
    assert 1 not in speakers({"mic:output": SCREEN})


def test_a_pair_names_what_was_opened() -> None:
    both = Settings(camera=("screen", "0"), mic=("output", "default"), pair=("screen=output", "0=default"))
    assert both.pairs == {"mic:output": "camera:screen", "mic:default": "camera:0"}
    for pair in ("screen", "screen=default", "1=output"):
        with pytest.raises(SettingsError, match="CAMERA=MIC"):
            _ = Settings(camera=("screen",), mic=("output",), pair=(pair,)).pairs
