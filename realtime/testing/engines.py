"""Engines that misbehave on purpose, each in one way, and whole networks of a few thousand weights.

A wrapper changes exactly the thing it is named for and hands everything else on, so a test that fails says
which behaviour the path cannot stand; it passes the engine contract as far as its fault allows. The tiny
networks are real weight files, made in milliseconds with `onnx` alone: the tensors of the engine protocol,
random weights from a seed, and one of everything that export and quantisation treat specially (a
convolution, a sound front end that ends in a logarithm, a product of two activations).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import recipe
from liveaffect.engines.protocol import (
    FACE_INPUTS,
    FACE_OUTPUTS,
    FUSION_INPUTS,
    FUSION_OUTPUTS,
    VECTOR,
    VOICE_INPUTS,
    VOICE_OUTPUTS,
    Done,
    Engine,
    EngineError,
    EngineFailed,
    EngineSpec,
    Pending,
    Tensors,
    TensorSpec,
    check_inputs,
)
from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.clock import Clock

_TENSORS = {
    "face": (FACE_INPUTS, FACE_OUTPUTS),
    "voice": (VOICE_INPUTS, VOICE_OUTPUTS),
    "fusion": (FUSION_INPUTS, FUSION_OUTPUTS),
}
_CERTAIN = 6.0


class ConstantEngine:
    """Always the same label, whatever goes in; for voice, everything is speech."""

    def __init__(self, kind: Literal["face", "voice", "fusion"], label: str, *, max_batch: int = 64) -> None:
        inputs, outputs = _TENSORS[kind]
        self.spec = EngineSpec(f"{kind}/constant-{label}", inputs, outputs, max_batch, "constant", False)
        self._label = LABELS.index(label)
        self._closed = False

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the answer is there at once."""
        if self._closed:
            raise EngineError(f"engine '{self.spec.name}' was closed; make a new one")
        size = check_inputs(self.spec, inputs)
        out = {t.name: np.zeros((size, *t.shape), t.dtype) for t in self.spec.outputs}
        out["logits"][:, self._label] = _CERTAIN
        if "speech" in out:
            out["speech"][:] = 1.0
        if "weights" in out:
            present = inputs["mask"] > 0.5
            out["weights"][:] = present / np.maximum(present.sum(axis=1, keepdims=True), 1)
        return Done(out)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Safe to call twice."""
        self._closed = True


class AroundEngine:
    """An engine around another one that changes nothing yet; fakes override what they bend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def spec(self) -> EngineSpec:
        """That of the engine inside."""
        return self._engine.spec

    def submit(self, inputs: Tensors) -> Pending:
        """Hand on to the engine inside."""
        return self._engine.submit(inputs)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Warm up the engine inside."""
        self._engine.warm_up()

    def close(self) -> None:
        """Close the engine inside."""
        self._engine.close()


@dataclass(frozen=True, slots=True)
class _Later:
    """An answer that passes through `then` when it is asked for."""

    inner: Pending
    then: Callable[[Tensors], Tensors]

    def result(self) -> Tensors:
        """The answer inside, changed or held back."""
        return self.then(self.inner.result())


class SlowEngine(AroundEngine):
    """Every answer comes `delay_ns` after it was asked for, on the run's clock.

    On the fake clock the caller of `result` is one more sleeper. `close` lets it go at once.
    """

    def __init__(self, engine: Engine, clock: Clock, delay_ns: int) -> None:
        super().__init__(engine)
        self._clock = clock
        self.delay_ns = delay_ns
        """May be changed while it runs."""
        self._stop = threading.Event()

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the delay starts now."""
        due_ns = self._clock.now_ns() + self.delay_ns

        def hold(answer: Tensors) -> Tensors:
            self._clock.wait_until(due_ns, self._stop)
            return answer

        return _Later(super().submit(inputs), hold)

    def close(self) -> None:
        """Let a waiting caller go and close the engine inside."""
        self._stop.set()
        super().close()


class FailingEngine(AroundEngine):
    """Works `after` times, then fails for good while running."""

    def __init__(self, engine: Engine, *, after: int = 0) -> None:
        super().__init__(engine)
        self._left = after

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; `result` raises EngineFailed once the good answers are used up."""
        self._left -= 1
        return super().submit(inputs) if self._left >= 0 else _Later(super().submit(inputs), self._fail)

    def _fail(self, answer: Tensors) -> Tensors:
        raise EngineFailed(f"engine '{self.spec.name}' failed on purpose; it was asked once too often")


class NanEngine(AroundEngine):
    """Works `after` times, then every number in its answers is NaN."""

    def __init__(self, engine: Engine, *, after: int = 0) -> None:
        super().__init__(engine)
        self._left = after

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; the answer is worthless once the good ones are used up."""
        self._left -= 1
        return super().submit(inputs) if self._left >= 0 else _Later(super().submit(inputs), _worthless)


def _worthless(answer: Tensors) -> Tensors:
    return {name: np.full_like(array, np.nan) for name, array in answer.items()}


class SchooledEngine(AroundEngine):
    """Says of itself that it was trained."""

    @property
    def spec(self) -> EngineSpec:
        """That of the engine inside, trained."""
        return replace(super().spec, trained=True)


class CountingEngine(AroundEngine):
    """Remembers how it was used."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.batches: list[int] = []
        """Size of every batch handed in, in order."""
        self.warm_ups = 0
        self.closes = 0

    @property
    def calls(self) -> int:
        """How many batches were handed in."""
        return len(self.batches)

    def submit(self, inputs: Tensors) -> Pending:
        """Hand on, and note the size of the batch once it was accepted."""
        pending = super().submit(inputs)
        self.batches.append(len(next(iter(inputs.values()))))
        return pending

    def warm_up(self) -> None:
        """Count and hand on."""
        self.warm_ups += 1
        super().warm_up()

    def close(self) -> None:
        """Count and hand on."""
        self.closes += 1
        super().close()


PRESET = "tiny"
_OPSET = 17
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def write_tiny(folder: Path, kind: str, *, seed: int = 0, trained: bool = False) -> Path:
    """Write weights and manifest of one network; the manifest's path."""
    content = network(kind, seed).SerializeToString()
    manifest = manifests.record_file(manifests.describe(kind, PRESET), "fp32", content)
    if trained:
        manifest = manifests.extended(manifest, training={"corpora": ["made up"], "seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write_whole(folder / manifests.file_name(kind, "fp32"), content)
    path = folder / f"{kind}.json"
    manifests.write(manifest, path)
    return path


def network(kind: str, seed: int = 0) -> onnx.ModelProto:
    """The graph of one network."""
    graph = _Graph(seed)
    {"face": _face_nodes, "voice": _voice_nodes, "fusion": _fusion_nodes}[kind](graph)
    inputs, outputs = manifests.tensors(kind)
    made = helper.make_graph(
        graph.nodes,
        kind,
        [_value(tensor) for tensor in inputs],
        [_value(tensor) for tensor in outputs],
        graph.weights,
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8, producer_name="liveaffect"
    )


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], ["n", *tensor.shape])


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"{op}_{len(self.nodes)}", **attributes))
        return out

    def const(self, array: NDArray[Any] | np.float32) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def random(self, *shape: int) -> str:
        scale = 1.0 / np.sqrt(np.prod(shape[1:]))
        return self.const(self._rng.normal(0, scale, shape).astype(np.float32))

    def linear(self, given: str, n_in: int, n_out: int, out: str = "") -> str:
        weight, bias = self.random(n_out, n_in), self.const(np.zeros(n_out, np.float32))
        return self.add("Gemm", given, weight, bias, transB=1, out=out)

    def heads(self, vector: str) -> None:
        self.linear(vector, VECTOR, 1, out="score")
        self.linear(vector, VECTOR, len(recipe.LABELS), out="logits")


def _face_nodes(graph: _Graph) -> None:
    planes = graph.add("Transpose", graph.add("Cast", "crop", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    light = graph.add("Div", planes, graph.const(np.float32(255)))
    for width_in, width_out in ((3, 16), (16, 32), (32, 32)):
        weight, bias = graph.random(width_out, width_in, 3, 3), graph.const(np.zeros(width_out, np.float32))
        light = graph.add("Relu", graph.add("Conv", light, weight, bias, strides=[2, 2], pads=[1, 1, 1, 1]))
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", light))
    graph.heads(graph.linear(pooled, 32, VECTOR, out="vector"))


def _voice_nodes(graph: _Graph) -> None:
    angle = 2 * np.pi * np.outer(np.arange(1, recipe.MEL_BANDS + 1), np.arange(recipe.STFT_WINDOW))
    waves = np.hanning(recipe.STFT_WINDOW) * np.cos(angle / recipe.STFT_WINDOW)
    shaped = graph.add("Unsqueeze", "samples", graph.const(np.array([1])))
    weight = graph.const(waves[:, None, :].astype(np.float32))
    bands = graph.add("Conv", shaped, weight, strides=[recipe.STFT_STEP])
    mixing = graph.const(np.eye(recipe.MEL_BANDS, dtype=np.float32))
    power = graph.add("MatMul", mixing, graph.add("Mul", bands, bands))
    log_mel = graph.add("Log", graph.add("Add", power, graph.const(np.float32(recipe.LOG_FLOOR))))
    time_axis = graph.const(np.array([2]))
    graph.add("ReduceSum", log_mel, time_axis, keepdims=0, out="stat_sum")
    graph.add("ReduceSum", graph.add("Mul", log_mel, log_mel), time_axis, keepdims=0, out="stat_sumsq")
    moments = [graph.add("Unsqueeze", name, time_axis) for name in ("mean", "istd")]
    level = graph.add("Mul", graph.add("Sub", log_mel, moments[0]), moments[1])
    frames = graph.add("Transpose", level, perm=[0, 2, 1])
    hidden = graph.add("Tanh", graph.add("MatMul", frames, graph.random(recipe.MEL_BANDS, VECTOR)))
    # Attention: both products are of two activations and must stay out of quantisation.
    turned = graph.add("Transpose", hidden, perm=[0, 2, 1])
    attended = graph.add("MatMul", graph.add("Softmax", graph.add("MatMul", hidden, turned), axis=-1), hidden)
    fed = graph.add("MatMul", attended, graph.random(VECTOR, VECTOR))
    pooled = graph.add("ReduceMean", fed, axes=[1], keepdims=0)
    vector = graph.linear(pooled, VECTOR, VECTOR, out="vector")
    graph.heads(vector)
    graph.add("Sigmoid", graph.linear(vector, VECTOR, 1), out="speech")


def _fusion_nodes(graph: _Graph) -> None:
    vectors = graph.add("Concat", "face_short", "face_long", "voice_short", "voice_long", axis=1)
    logits = graph.add("Concat", "face_logits", "voice_logits", "words_logits", axis=1)
    both = graph.add("Concat", vectors, logits, "mask", axis=1)
    hidden = graph.add("Relu", graph.linear(both, 4 * VECTOR + 3 * len(recipe.LABELS) + 3, VECTOR))
    graph.linear(hidden, VECTOR, len(recipe.LABELS), out="logits")
    open_ = graph.add("Mul", graph.add("Exp", graph.linear(hidden, VECTOR, 3)), "mask")
    total = graph.add("ReduceSum", open_, graph.const(np.array([1])), keepdims=1)
    graph.add("Div", open_, graph.add("Add", total, graph.const(np.float32(1e-6))), out="weights")
