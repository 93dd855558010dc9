"""The same networks on torch, eager and as a CUDA graph, to hold the plans against in the same run.

Where TensorRT refuses the card, the CUDA graph is the measured path. The precision is set by hand: torch
would use TF32 unasked, and half precision by autocast converts the weights in every call. What is halved
follows the plans: products with learnt weights, everything in front of them stays fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu.networks import Network
from torch import Tensor, nn

from liveaffect.engines.model import presets
from liveaffect.engines.model.voice_fcn import LocalNorm
from liveaffect.engines.protocol import EngineError, EngineFailed, EngineSpec, Pending, Tensors, check_inputs
from liveaffect.engines.torch_engine import open_weights

PRECISIONS = ("fp16", "fp32", "fp32-tf32")
_HALVED = (nn.Conv2d, nn.Linear, nn.LayerNorm)
_KEPT = (LocalNorm,)
"""Squares, which leave the range of half precision."""
_WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class Card:
    """Where tensors lie and whose streams, events and graphs are used; the dry run brings its own."""

    device: str = "cuda"
    cuda: Any = torch.cuda
    pinned: bool = True
    half: torch.dtype = torch.float16
    replay_of: Callable[[Any, Callable[[], None]], Callable[[], None]] = lambda graph, _work: graph.replay
    """How a graph that was captured from some work is launched."""


class TorchPath:
    """Torch, eager or as a CUDA graph."""

    precisions: Sequence[str] = PRECISIONS

    def __init__(self, sizes: Sequence[int], *, graph: bool, card: Card) -> None:
        self.name = "torch, CUDA graph" if graph else "torch, eager"
        self.graph = graph
        self._sizes, self._card = sizes, card

    def open(self, network: Network, precision: str) -> TorchOpened:
        """The network, warm. Raises EngineError where this cannot be run."""
        set_tf32(precision == "fp32-tf32")
        module = weights_of(network).to(self._card.device)
        spec = network.manifest.spec("fp32", f"torch-{precision}")
        spec = replace(spec, max_batch=max(self._sizes))
        ready = halved(module, self._card.half) if precision == "fp16" else module
        return TorchOpened(ready, spec, self._sizes, graph=self.graph, card=self._card)


class TorchOpened:
    """One network as an engine: a batch goes through the smallest lane of the sizes that holds it."""

    def __init__(
        self, module: nn.Module, spec: EngineSpec, sizes: Sequence[int], *, graph: bool, card: Card
    ) -> None:
        self.spec = spec
        self._module: nn.Module | None = module
        self._graph, self._card, self._sizes = graph, card, sorted(sizes)
        self._lanes: dict[int, TorchLane] = {}

    @property
    def engine(self) -> TorchOpened:
        """Itself, warm."""
        self.warm_up()
        return self

    def lane(self, batch: int) -> TorchLane:
        """The lane of this batch, which was run. Raises EngineError where it cannot be."""
        if self._module is None:
            raise EngineError(f"engine '{self.spec.name}' is closed")
        if batch not in self._lanes:
            try:
                lane = TorchLane(self._module, self.spec, batch, graph=self._graph, card=self._card)
            except RuntimeError as err:
                raise EngineFailed(f"'{self.spec.name}' at batch {batch} failed: {err}") from err
            self._lanes[batch] = lane
        return self._lanes[batch]

    def submit(self, inputs: Tensors) -> Pending:
        """Hand in one batch; returns before it is done."""
        count = check_inputs(self.spec, inputs)
        lane = self.lane(next(size for size in self._sizes if size >= count))
        lane.hand_in(inputs)
        return _Handed(lane, count)

    def infer(self, inputs: Tensors) -> Tensors:
        """`submit` and wait."""
        return self.submit(inputs).result()

    def warm_up(self) -> None:
        """Make the lane of every size; each runs when it is made."""
        for size in self._sizes:
            self.lane(size)

    def close(self) -> None:
        """Free module and lanes. Safe to call twice."""
        self._module = None
        while self._lanes:
            self._lanes.popitem()[1].close()


def weights_of(network: Network) -> nn.Module:
    """The network with the weights of its file; without the package `onnx`, with those it was exported with.

    Raises EngineError where the file holds weights that cannot be made again.
    """
    try:
        return open_weights(network.manifest, network.folder)._module or nn.Identity()
    except EngineError as err:
        if network.manifest.training:
            raise EngineError(f"torch cannot run the trained weights of {network.name}: {err}") from err
    return presets.deploy(presets.build(network.kind, network.manifest.preset)).eval()


def set_tf32(allowed: bool) -> None:
    """Whether products of fp32 may be rounded to TF32; by default torch does it in convolutions."""
    backends: Any = torch.backends
    for part in (backends.cuda.matmul, backends.cudnn.conv):
        part.fp32_precision = "tf32" if allowed else "ieee"


def halved(module: nn.Module, half: torch.dtype) -> nn.Module:
    """Learnt products and norms in half precision, converted once; squares stay fp32."""
    for part in module.modules():
        if isinstance(part, _HALVED):
            part.to(half).register_forward_pre_hook(_as(half))
        elif isinstance(part, _KEPT):
            part.register_forward_pre_hook(_as(torch.float32))
    return module


def _as(kind: torch.dtype) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _module, given: tuple(tensor.to(kind) for tensor in given)


class TorchLane:
    """One module at one batch, on a stream of its own."""

    no_graph: str | None = None

    def __init__(self, module: nn.Module, spec: EngineSpec, batch: int, *, graph: bool, card: Card) -> None:
        self._module, self._card, self._cuda = module, card, card.cuda
        self._stream = card.cuda.Stream()
        self._first, self._last = (card.cuda.Event(enable_timing=True) for _ in range(2))
        self._answers: list[Tensor] = []
        self._host_in = _tensors(spec.inputs, batch, "cpu", card.pinned)
        self._on_card = _tensors(spec.inputs, batch, card.device, False)
        self._host_out = _tensors(spec.outputs, batch, "cpu", card.pinned)
        self._views = {name: tensor.numpy() for name, tensor in self._host_out.items()}
        # Weights and memory were filled on another stream than the one that uses them.
        self._cuda.synchronize()
        self._run: Callable[[], None] = self._compute
        self._run_whole: Callable[[], None] = partial(self._copy_and, self._compute)
        with torch.inference_mode(), self._on_stream():
            for _ in range(_WARM_UPS):
                self._run_whole()
        self._stream.synchronize()
        if graph:
            self._capture()

    def hand_in(self, inputs: Tensors) -> None:
        """Copy in, compute, copy out; returns before it is done."""
        for name, array in inputs.items():
            self._host_in[name].numpy()[: len(array)] = array
        with torch.inference_mode(), self._on_stream():
            self._run_whole()

    def answers(self) -> Tensors:
        """Wait, and copy the answers into arrays of the caller's own."""
        self._stream.synchronize()
        return {name: view.copy() for name, view in self._views.items()}

    def start(self) -> None:
        """Hand in the network alone."""
        with torch.inference_mode(), self._on_stream():
            self._run()

    def wait(self) -> None:
        """Until everything that was handed in is done."""
        self._stream.synchronize()

    def device_ms(self) -> float:
        """What two events around `start` say."""
        with torch.inference_mode(), self._on_stream():
            self._first.record(self._stream)
            self._run()
            self._last.record(self._stream)
        self._last.synchronize()
        return float(self._first.elapsed_time(self._last))

    def close(self) -> None:
        """Let go of tensors and graphs."""
        self._stream.synchronize()
        self._run = self._run_whole = _closed
        self._answers, self._host_in, self._on_card, self._host_out = [], {}, {}, {}

    def _on_stream(self) -> AbstractContextManager[None]:
        entered: AbstractContextManager[None] = self._cuda.stream(self._stream)
        return entered

    def _compute(self) -> None:
        self._answers = list(self._module(*self._on_card.values()))

    def _copy_and(self, compute: Callable[[], None]) -> None:
        for name, tensor in self._on_card.items():
            tensor.copy_(self._host_in[name], non_blocking=True)
        compute()
        for tensor, answer in zip(self._host_out.values(), self._answers, strict=True):
            tensor.copy_(answer, non_blocking=True)

    def _capture(self) -> None:
        """A graph of the network, and one that holds the copies too, where torch lets them be captured."""
        self._run = self._captured(self._compute)
        try:
            self._run_whole = self._captured(self._run_whole)
        except RuntimeError:
            self._run_whole = partial(self._copy_and, self._run)

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """The same work as one graph. Its answers stay where the capture put them."""
        graph = self._cuda.CUDAGraph()
        with torch.inference_mode(), self._cuda.graph(graph, stream=self._stream):
            work()
        held, launch = list(self._answers), self._card.replay_of(graph, work)
        self._stream.synchronize()

        def replay() -> None:
            launch()
            self._answers = held

        return replay


@dataclass(frozen=True, slots=True)
class _Handed:
    """Work in one lane; the next batch of that lane may only follow its result."""

    lane: TorchLane
    count: int

    def result(self) -> Tensors:
        """Wait for the answer."""
        return {name: array[: self.count] for name, array in self.lane.answers().items()}


def _closed() -> None:
    raise EngineError("this lane is closed")


def _tensors(specs: Sequence[Any], batch: int, device: str, pinned: bool) -> dict[str, Tensor]:
    return {
        one.name: torch.zeros(
            (batch, *one.shape),
            dtype=torch.from_numpy(np.zeros(1, one.dtype)).dtype,
            device=device,
            pin_memory=pinned,
        )
        for one in specs
    }
