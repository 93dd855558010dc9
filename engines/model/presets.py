"""Every network there is, as a table. `build` makes one with reproducible random weights.

To change a width, change its row here; the budget tests then say whether it still fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from liveaffect.engines.model.blocks import deploy
from liveaffect.engines.model.face import FaceNet, FacePreset, FaceStage
from liveaffect.engines.model.frontend import SoundPreset, WhisperSound
from liveaffect.engines.model.fusion import BilinearFusion, FusionPreset, LateFusion, LateMaskedFusion
from liveaffect.engines.model.heads import Network
from liveaffect.engines.model.voice_spectrogram import (
    FcnPreset,
    Level,
    NestPreset,
    StemConv,
    VoiceFcn,
    VoiceNest,
)
from liveaffect.engines.model.voice_statistics import StudentPreset, VoiceStudent, VoiceWhisper, WhisperPreset

FACE_LIVE = FacePreset(
    name="live",
    size=64,
    mean=(127.5,),
    std=(64.0,),
    stages=(
        FaceStage(32, stride=2),
        FaceStage(32),
        FaceStage(80, stride=2),
        FaceStage(80),
        FaceStage(80),
        FaceStage(160, stride=2),
        FaceStage(160),
        FaceStage(160),
        FaceStage(192, stride=2),
        FaceStage(192),
    ),
)
FACE_WIDE = FacePreset(
    name="wide",
    # Never shipped: a teacher, at the size in which the corpus has its pictures.
    size=48,
    mean=(127.5,),
    std=(64.0,),
    stages=(
        FaceStage(64, stride=2),
        FaceStage(64),
        FaceStage(128, stride=2),
        FaceStage(128),
        FaceStage(128),
        FaceStage(256, stride=2),
        FaceStage(256),
        FaceStage(256),
        FaceStage(384, stride=2),
        FaceStage(384),
    ),
    dropout=0.3,
)
FACE_LIVE_VGG = replace(FACE_LIVE, name="live-vgg", plain=True)
FACE_FV2ES = FacePreset(
    name="fv2es",
    size=48,
    mean=(159.0, 111.0, 102.0),
    std=(37.0, 33.0, 32.0),
    stem=64,
    stages=(
        FaceStage(64),
        FaceStage(64),
        FaceStage(128, pool=True),
        FaceStage(256, pool=True),
        FaceStage(512, pool=True),
    ),
    flatten=1024,
)
VOICE_FV2ES = NestPreset(
    name="fv2es",
    # As published 128 bands in pieces of 32 spectra one after the other; n_fft 1024, because with 400 four
    # bands are empty.
    sound=SoundPreset(hop=6_400, n_fft=1024, bands=128),
    sub_bands=4,
    stem=(StemConv(128),),
    block=8,
    levels=(Level(128, 4, 2), Level(256, 8, 2), Level(512, 16, 20)),
    drop_path=0.5,
    flatten=1024,
)
VOICE_NEST = NestPreset(
    name="nest",
    # The published idea mended: 64 bands as they are, halved by the stem, narrow levels, the map averaged.
    sound=SoundPreset(),
    stem=(StemConv(32, (2, 1)), StemConv(48)),
    block=8,
    levels=(Level(48, 2, 2), Level(96, 4, 2), Level(192, 8, 4)),
)
VOICE_NEST_CONV = replace(VOICE_NEST, name="nest-conv", attends=False)
"""The same without attention, to see what attention brings."""

VOICE_AMFBP = FcnPreset(
    name="amfbp",
    # Linear bins up to 4 kHz, 40 ms every 10 ms. A piece spans what one output sees (195 spectra), a hop is
    # one output column.
    sound=SoundPreset(
        piece=31_680,
        hop=5_120,
        window=640,
        step=160,
        taper="hamming",
        n_fft=800,
        bands=200,
        scale="linear",
    ),
    widths=(96, 256, 384, 384, 256),
)
_WHISPER_SOUND = WhisperSound(piece=25_600, hop=6_400)
"""1.6 s every 0.4 s."""
VOICE_WHISPER = WhisperPreset(name="whisper", sound=_WHISPER_SOUND, whisper="tiny.en", layers=3)
VOICE_STUDENT = StudentPreset(
    name="student", sound=_WHISPER_SOUND, stem=128, width=256, dilations=(1, 2, 4, 1, 2)
)
LATE = FusionPreset("late")
LATE_MASKED = FusionPreset("late-masked")
GFBP = FusionPreset("gfbp")
AGFBP = FusionPreset("agfbp", adaptive=True)
AMFBP = FusionPreset("amfbp", adaptive=True, trunks=True)

_MAKERS: dict[tuple[str, str], Callable[[], Network]] = {
    ("face", "live"): lambda: FaceNet(FACE_LIVE),
    ("face", "wide"): lambda: FaceNet(FACE_WIDE),
    ("face", "live-vgg"): lambda: FaceNet(FACE_LIVE_VGG),
    ("face", "fv2es"): lambda: FaceNet(FACE_FV2ES),
    ("voice", "fv2es"): lambda: VoiceNest(VOICE_FV2ES),
    ("voice", "nest"): lambda: VoiceNest(VOICE_NEST),
    ("voice", "nest-conv"): lambda: VoiceNest(VOICE_NEST_CONV),
    ("voice", "amfbp"): lambda: VoiceFcn(VOICE_AMFBP),
    ("voice", "whisper"): lambda: VoiceWhisper(VOICE_WHISPER),
    ("voice", "student"): lambda: VoiceStudent(VOICE_STUDENT),
    ("fusion", "late"): lambda: LateFusion(LATE),
    ("fusion", "late-masked"): lambda: LateMaskedFusion(LATE_MASKED),
    ("fusion", "gfbp"): lambda: BilinearFusion(GFBP),
    ("fusion", "agfbp"): lambda: BilinearFusion(AGFBP),
    ("fusion", "amfbp"): lambda: BilinearFusion(AMFBP),
}


def preset_names(kind: str) -> tuple[str, ...]:
    """The presets of one kind."""
    return tuple(preset for of, preset in _MAKERS if of == kind)


def build(kind: str, preset: str, *, seed: int = 0) -> Network:
    """A network in training form. The same seed gives the same weights, global random state is left alone."""
    maker = _MAKERS.get((kind, preset))
    if maker is None:
        known = ", ".join(f"{of} {name}" for of, name in _MAKERS)
        raise ValueError(f"there is no network '{kind} {preset}'; there are: {known}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return maker()


__all__ = ["build", "deploy", "preset_names"]
