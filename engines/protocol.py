"""The whole contract between the live path and whatever runs a network.

    EngineError
      + EngineInputError     the caller gave tensors the spec does not allow
      + EngineFileError      a weight file or manifest is missing, damaged, or of another network
      + EngineUnavailable    this back end cannot work on this machine
      + EngineFailed         it could work, and failed while running
          + EngineLost       and will not work again: what it ran on is gone

An engine is a function with a warm-up and an end. It owns no thread, no queue and no clock, which is
why the scheduler can treat a GPU and a scripted stand-in alike. `submit` may return before the work is
done; the scheduler submits everything that is due and then waits once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import CROP_SIZE, LABELS, MEL_BANDS, PIECE

Tensors = Mapping[str, NDArray[Any]]
VECTOR = 64
"""Length of the vectors that face and voice networks hand to pooling and fusion."""


class EngineError(Exception):
    """Anything an engine refuses or fails at."""


class EngineInputError(EngineError):
    """The tensors given do not fit the spec; says what was wanted and what was given."""


class EngineFileError(EngineError):
    """A weight file or manifest is missing, damaged, or belongs to another network."""


class EngineUnavailable(EngineError):
    """This back end cannot work here; says why in one line."""


class EngineFailed(EngineError):
    """The engine failed while running; the scheduler drops it and says so."""


class EngineLost(EngineFailed):
    """What the engine ran on is gone for good, such as a GPU that was unplugged; ask another one."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. The first axis is the batch and is not part of `shape`."""

    name: str
    dtype: str
    """NumPy's name, such as 'uint8' or 'float32'."""
    shape: tuple[int, ...]

    def __str__(self) -> str:
        inside = ", ".join(["n", *map(str, self.shape)])
        return f"{self.name} ({inside}) {self.dtype}"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine wants and what it answers."""

    name: str
    """Such as 'face-live/onnx-int8'; shown in the overlay and in errors."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    model: str
    """Short hash of the weights, or 'scripted'; goes into every cue."""
    trained: bool
    """False for random weights and scripted stand-ins: the overlay then says so plainly."""
    weighs_words: bool = False
    """A fusion that learnt how much words count; behind any other they join by a fixed rule."""


class Pending(Protocol):
    """Work that was handed in."""

    def result(self) -> Tensors:
        """Wait for the answer. The caller owns the arrays. Raises EngineFailed."""
        ...


class Engine(Protocol):
    """Raw crops or samples in, uncalibrated answers out. Not thread-safe: one caller."""

    @property
    def spec(self) -> EngineSpec:
        """What goes in and what comes out."""
        ...

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch. Raises EngineInputError before any work is done."""
        ...

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        ...

    def warm_up(self) -> None:
        """Do once what only the first call does slowly."""
        ...

    def close(self) -> None:
        """Free everything. Safe to call twice; `submit` afterwards raises EngineError."""
        ...


class Staged(Protocol):
    """Room for one batch where the device will fetch it."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Arrays to be filled, every row of them; nobody checks what is laid there."""
        ...

    def submit(self) -> Pending:
        """Hand it in. Raises EngineLost if the device is gone."""
        ...


@runtime_checkable
class Staging(Protocol):
    """An engine whose caller may lay rows that were checked before straight into page-locked memory."""

    def stage(self, count: int) -> Staged | None:
        """Room for so many items; None where the engine in use has none, so that `submit` must be asked."""
        ...


FACE_INPUTS = (TensorSpec("crop", "uint8", (CROP_SIZE, CROP_SIZE, 3)),)
FACE_OUTPUTS = (
    TensorSpec("vector", "float32", (VECTOR,)),
    TensorSpec("score", "float32", (1,)),
    TensorSpec("logits", "float32", (len(LABELS),)),
)
VOICE_INPUTS = (
    TensorSpec("samples", "float32", (PIECE,)),
    TensorSpec("mean", "float32", (MEL_BANDS,)),
    TensorSpec("istd", "float32", (MEL_BANDS,)),
)
VOICE_OUTPUTS = (
    *FACE_OUTPUTS,
    TensorSpec("speech", "float32", (1,)),
    TensorSpec("stat_sum", "float32", (MEL_BANDS,)),
    TensorSpec("stat_sumsq", "float32", (MEL_BANDS,)),
)
"""`speech` is a probability 0..1, the sigmoid already applied; `stat_sum` and `stat_sumsq` add up what is
kept of a speaker and its square: log-mel over all frames of the piece, or features of a piece as a whole.
How wide `mean`, `istd` and they are stands in the manifest."""
FUSION_INPUTS = (
    TensorSpec("face_short", "float32", (VECTOR,)),
    TensorSpec("face_long", "float32", (VECTOR,)),
    TensorSpec("voice_short", "float32", (VECTOR,)),
    TensorSpec("voice_long", "float32", (VECTOR,)),
    TensorSpec("face_logits", "float32", (len(LABELS),)),
    TensorSpec("voice_logits", "float32", (len(LABELS),)),
    TensorSpec("words_logits", "float32", (len(LABELS),)),
    TensorSpec("mask", "float32", (3,)),
)
"""`mask` holds 1 where a modality has evidence, in the order face, voice, words."""
FUSION_OUTPUTS = (
    TensorSpec("logits", "float32", (len(LABELS),)),
    TensorSpec("weights", "float32", (3,)),
)


@dataclass(frozen=True, slots=True)
class Done:
    """A `Pending` whose answer is already there."""

    outputs: Tensors

    def result(self) -> Tensors:
        """The answer."""
        return self.outputs


def zeros_for(spec: EngineSpec, count: int = 1) -> dict[str, NDArray[Any]]:
    """A batch of zeros that fits the spec."""
    return {t.name: np.zeros((count, *t.shape), t.dtype) for t in spec.inputs}


def check_finite(spec: EngineSpec, outputs: Tensors) -> None:
    """Raise EngineFailed if an answer holds a number that is not finite."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            items = sorted({int(row) for row in np.argwhere(~np.isfinite(array))[:, 0]})
            raise EngineFailed(
                f"engine '{spec.name}' answered '{name}' with numbers that are not finite (items {items}); "
                "its weights are damaged, or the input is far outside what it was made for"
            )


def check_inputs(spec: EngineSpec, inputs: Tensors) -> int:
    """The batch size of `inputs`, or EngineInputError that says what was wanted and what was given."""
    wanted = {tensor.name: tensor for tensor in spec.inputs}
    if missing := [name for name in wanted if name not in inputs]:
        raise EngineInputError(
            f"engine '{spec.name}' wants {', '.join(map(str, spec.inputs))}; "
            f"missing: {', '.join(missing)}; given: {', '.join(inputs) or 'nothing'}"
        )
    if unknown := [name for name in inputs if name not in wanted]:
        raise EngineInputError(
            f"engine '{spec.name}' does not know the input {', '.join(unknown)}; "
            f"it wants {', '.join(map(str, spec.inputs))}"
        )
    sizes = {_check_tensor(spec, tensor, inputs[name]) for name, tensor in wanted.items()}
    if len(sizes) != 1:
        given = ", ".join(f"{name} {inputs[name].shape}" for name in wanted)
        raise EngineInputError(f"engine '{spec.name}' got batches of different sizes: {given}")
    (size,) = sizes
    if not 1 <= size <= spec.max_batch:
        raise EngineInputError(f"engine '{spec.name}' takes 1 to {spec.max_batch} items, got {size}")
    return size


def _check_tensor(spec: EngineSpec, tensor: TensorSpec, given: NDArray[Any]) -> int:
    array = np.asarray(given)
    if (
        array.ndim != len(tensor.shape) + 1
        or array.shape[1:] != tensor.shape
        or array.dtype.name != tensor.dtype
    ):
        raise EngineInputError(f"engine '{spec.name}' wants {tensor}, got {array.shape} {array.dtype.name}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise EngineInputError(
            f"engine '{spec.name}' got {tensor.name} with {int((~np.isfinite(array)).sum())} values "
            "that are not finite; the sample or picture before it is damaged"
        )
    return int(array.shape[0])


SPEECH_CHUNK = 512
"""Samples for which there is one probability of speech: 32 ms."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """One word as Whisper writes it, with the space before it."""

    text: str
    begin_s: float
    """From the first sample that was handed in."""
    end_s: float
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class HeardWords:
    """What one pass made of a piece of sound."""

    words: tuple[TimedWord, ...]
    sureness: float
    """Mean logarithm of the probability of the tokens; 0 without any."""
    silence: float
    """How likely it is that nobody speaks in it."""
    language: str


class SpeechReader(Protocol):
    """Hears words: `transcriber.Transcriber`."""

    multilingual: bool

    def hear(
        self,
        samples: NDArray[np.float32],
        *,
        language: str | None = None,
        cut: bool = False,
    ) -> HeardWords:
        """What was said; `cut`: the sound ends in the middle of speech."""
        ...

    def translate(self, samples: NDArray[np.float32], language: str) -> str:
        """The same in English."""
        ...


class Activity(Protocol):
    """What finds speech: `transcriber.VoiceActivity`."""

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of speech of each chunk."""
        ...
