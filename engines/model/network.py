"""What export, training and the tests know of any network: its tensors, and what live use must cut for it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from engines.model.frontend import SoundPreset
from engines.protocol import VOICE_INPUTS, VOICE_OUTPUTS, TensorSpec
from engines.recipe import CROP, SAMPLE_RATE


class Network(nn.Module):
    """A module whose `forward` takes the tensors of `inputs` and returns those of `outputs`, in order."""

    def __init__(
        self, kind: str, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.inputs = inputs
        self.outputs = outputs

    def recipe(self) -> dict[str, int]:
        """What the manifest's recipe says of this network; face: the crop template."""
        return {"crop": CROP} if self.kind == "face" else {}


class VoiceNetwork(Network):
    """A network for sound, with the piece and hop it wants."""

    def __init__(self, name: str, sound: SoundPreset) -> None:
        samples, *statistics = VOICE_INPUTS
        super().__init__("voice", name, (replace(samples, shape=(sound.piece,)), *statistics), VOICE_OUTPUTS)
        self.sound = sound

    def recipe(self) -> dict[str, int]:
        return {"sample_rate": SAMPLE_RATE, "piece": self.sound.piece, "hop": self.sound.hop}
