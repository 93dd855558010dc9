"""A portrait, a short film of it and a voice, made anew: what examples and documents are tried with.

    python -m liveaffect.realtime.testing.small_media FOLDER

The portrait is one that an installed package carries, since the project has no pictures of people.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.sinks.video_file import VideoFile
from liveaffect.realtime.speech import tone_voice, write_wav

FPS = 25
SECONDS = 2


def write_media(folder: Path) -> Path:
    """Write portrait.jpg, talk.mp4 and voice.wav into the folder, which is returned.

    Raises FileNotFoundError where no installed package carries a portrait.
    """
    found = packaged_portraits()
    if not found:
        raise FileNotFoundError("no installed package carries a portrait; mediapipe brings one along")
    portrait = load_picture(found[0])
    cv2.imwrite(str(folder / "portrait.jpg"), cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))
    voice = tone_voice(SECONDS)
    write_wav(folder / "voice.wav", voice)
    film = VideoFile(str(folder / "talk.mp4"))
    camera = Portraits([portrait], (320, 240), FPS, frames=FPS * SECONDS)
    camera.open()
    period = SAMPLE_RATE // FPS
    for seq in range(FPS * SECONDS):
        frame = camera.read(1.0)
        samples = voice[seq * period : (seq + 1) * period]
        film.hear(AudioBlock("microphone", seq * period, frame.captured_ns, samples.copy()))
        film.show(frame.image, frame)
    film.close()
    return folder


if __name__ == "__main__":
    write_media(Path(sys.argv[1]))
