"""A network on torch: the reference on the CPU, and the way to run on GPUs that TensorRT refuses.

Its weights come out of the exported file, by their own names, so that reference and export share the one
checked artefact and a difference between them can only be a difference in computing. On a GPU it runs in half
precision, converted once, channels last, with page-locked slots and one CUDA graph for each of them. What is
halved follows the plans: learnt products and norms; what lies in front of them, and squares, stay fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from liveaffect.engines import manifest as manifests
from liveaffect.engines import stopwatch, whisper
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineFailed, EngineFileError, EngineSpec, EngineUnavailable
from liveaffect.engines.slots import PLACES, SIZES, Outputs, Slot, SlotEngine

_cuda: Any = torch.cuda
"""Parts of it have no types."""


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """Where and how a module runs; as it stands, the reference."""

    device: str = "cpu"
    """'cpu', or 'cuda:0'."""
    precision: str = "fp32"
    """Or 'fp16', 'fp32-tf32'."""
    graphs: bool = False
    """CUDA graphs, where they answer like the plain way."""
    compiled: str = ""
    """A back end of torch.compile, such as 'inductor'; empty, none. Takes a minute and a C compiler."""
    sizes: tuple[int, ...] = SIZES
    """Batches that run as they are."""


class TorchEngine(SlotEngine):
    """One torch module."""

    def __init__(
        self, module: nn.Module, spec: EngineSpec, kind: str, options: TorchOptions | None = None
    ) -> None:
        """Take over a module whose forward has the protocol's tensors, in their order."""
        self._options = options or TorchOptions()
        super().__init__(replace(spec, max_batch=max(self._options.sizes)), kind, graphs=self._options.graphs)
        with self._device("loading the network"):
            _set_tf32(self._options.precision == "fp32-tf32")
            ready = module.eval().to(self._options.device)
            if self._options.precision == "fp16":
                ready = halved(ready)
            if self._options.device != "cpu":
                ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self._options.compiled:
                ready = _compiled(ready, self._options.compiled)
            run = _ModuleRun(ready, self._options.device)
            rooms = [_Rooms(spec, self._options.device) for _ in range(PLACES)]
            self._use(
                {
                    size: tuple(TorchSlot(run, spec, size, place, room) for place, room in enumerate(rooms))
                    for size in self._options.sizes
                }
            )

    @contextmanager
    def _active(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as err:
            line = (str(err).splitlines() or [type(err).__name__])[0]
            if self._options.device == "cpu":
                raise EngineFailed(f"engine '{self._spec.name}' failed: {line}") from err
            raise DeviceError("torch", line) from err

    def _warm_up_slot(self, slot: Slot) -> None:
        if self._options.device != "cpu" or slot.size == min(self._options.sizes):
            super()._warm_up_slot(slot)

    def _end(self) -> None:
        for slots in self._slots.values():
            for slot in slots:
                slot.drop_graph()


class _ModuleRun:
    """The module, and on a GPU the stream and the pool of memory that all its graphs share."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self.module = module
        self.stream: Any = None if device == "cpu" else _cuda.Stream(device)
        self.pool: Any = None if device == "cpu" else torch.cuda.graph_pool_handle()

    def on_stream(self) -> AbstractContextManager[Any]:
        """Inside, work goes to the stream of this network."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


class _Rooms:
    """Memory of one place, on both sides; every size uses the first rows of it."""

    def __init__(self, spec: EngineSpec, device: str) -> None:
        def room(tensors: Any, where: str, *, pinned: bool) -> dict[str, Tensor]:
            types = {one.name: torch.from_numpy(np.zeros(0, one.dtype)).dtype for one in tensors}
            return {
                one.name: torch.zeros(
                    (max(SIZES), *one.shape), dtype=types[one.name], device=where, pin_memory=pinned
                )
                for one in tensors
            }

        on_gpu = device != "cpu"
        self.there = room(spec.inputs, "cpu", pinned=on_gpu)
        self.on_device = room(spec.inputs, device, pinned=False) if on_gpu else self.there
        self.back = room(spec.outputs, "cpu", pinned=on_gpu)


class TorchSlot:
    """One place for one size."""

    def __init__(self, run: _ModuleRun, spec: EngineSpec, size: int, place: int, rooms: _Rooms) -> None:
        self.size, self.place, self.graphed = size, place, False
        self._run = run
        self._there, self._on_device, self._back = (
            [tensor[:size] for tensor in room.values()] for room in (rooms.there, rooms.on_device, rooms.back)
        )
        self.inputs: Outputs = {name: tensor[:size].numpy() for name, tensor in rooms.there.items()}
        self._views: Outputs = {name: tensor[:size].numpy() for name, tensor in rooms.back.items()}
        self._answers: list[Tensor] = []
        self._replay: Callable[[], None] | None = None
        self._done: Any = None if run.stream is None else _cuda.Event()

    def enqueue(self, count: int) -> None:
        """Copies, network and copies of so many rows, or all of it as a graph, and the mark behind them."""
        with torch.inference_mode(), self._run.on_stream():
            if self._replay is None:
                self._plainly(count)
            else:
                self._replay()
            if self._done is not None:
                self._done.record(self._run.stream)

    def compute(self, count: int | None = None) -> None:
        """The network alone, on the first rows of what lies on the device."""
        self._answers = list(self._run.module(*(tensor[:count] for tensor in self._on_device)))

    def wait(self) -> None:
        """Until the device has passed the mark."""
        if self._done is not None:
            self._done.synchronize()

    def answers(self, count: int) -> Outputs:
        """Copies of the first rows of what came back."""
        return {name: view[:count].copy() for name, view in self._views.items()}

    def queued_ms(self, times: int, *, whole: bool) -> float:
        """Milliseconds of the device, or on the CPU of the wall, for so many full batches in a row."""
        on_gpu = self._run.stream is not None
        marks: Any = [_cuda.Event(enable_timing=True) for _ in range(2)] if on_gpu else None
        start_ns = stopwatch.wall_ns()
        with torch.inference_mode(), self._run.on_stream():
            if on_gpu:
                marks[0].record(self._run.stream)
            for _ in range(times):
                if whole:
                    self.enqueue(self.size)
                else:
                    self.compute(self.size)
            if on_gpu:
                marks[1].record(self._run.stream)
                marks[1].synchronize()
        return float(marks[0].elapsed_time(marks[1])) if on_gpu else (stopwatch.wall_ns() - start_ns) / 1e6

    def make_graph(self) -> str | None:
        """Capture all of it; where torch does not let copies be captured, the network alone."""
        if self._run.stream is None:
            return "there are no CUDA graphs on the CPU"
        self._run.stream.synchronize()
        why = ""
        for work in (partial(self._plainly, self.size), self.compute):
            try:
                replay = self._captured(work)
            except RuntimeError as err:
                why = (str(err).splitlines() or ["it does not say why"])[0]
                continue
            self._replay = replay
            if work == self.compute:
                self._replay = partial(self._copied_around, replay, list(self._answers))
            break
        else:
            return f"its CUDA graph cannot be made ({why})"
        self.graphed = True
        return None

    def drop_graph(self) -> None:
        """Back to the plain way."""
        self._replay, self.graphed = None, False

    def _plainly(self, count: int) -> None:
        self.copy_in(count)
        self.compute(count)
        self.copy_out(count)

    def _copied_around(self, replay: Callable[[], None], held: list[Tensor]) -> None:
        self.copy_in(self.size)
        replay()
        self._answers = held
        self.copy_out(self.size)

    def copy_in(self, count: int) -> None:
        """So many rows to the device; on the CPU they are there already."""
        if self._run.stream is not None:
            for tensor, given in zip(self._on_device, self._there, strict=True):
                tensor[:count].copy_(given[:count], non_blocking=True)

    def copy_out(self, count: int) -> None:
        """So many rows of the answers from the device."""
        for tensor, answer in zip(self._back, self._answers, strict=True):
            tensor[:count].copy_(answer, non_blocking=True)

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        run = self._run
        with (
            torch.inference_mode(),
            # Others may go on meanwhile: a network that is ready is in use while the next one is captured.
            torch.cuda.graph(graph, pool=run.pool, stream=run.stream, capture_error_mode="thread_local"),
        ):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def halved(module: nn.Module) -> nn.Module:
    """Learnt products and norms in half precision, converted once; squares stay fp32."""
    from liveaffect.engines.model.voice_spectrogram import LocalNorm

    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.LayerNorm):
            part.to(torch.float16).register_forward_pre_hook(_as(torch.float16))
        elif isinstance(part, LocalNorm):  # Squares leave the range of half precision.
            part.register_forward_pre_hook(_as(torch.float32))
    return module


def _as(kind: torch.dtype) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _module, given: tuple(tensor.to(kind) for tensor in given)


def _compiled(module: nn.Module, back_end: str) -> nn.Module:
    made: Any = torch.compile(module, backend=back_end, dynamic=False)
    return made  # type: ignore[no-any-return]


def _set_tf32(allowed: bool) -> None:
    """Whether products of fp32 may be rounded to TF32; by default torch does it in convolutions."""
    backends: Any = torch.backends
    for part in (backends.cuda.matmul, backends.cudnn.conv):
        part.fp32_precision = "tf32" if allowed else "ieee"


def why_no_cuda() -> str | None:
    """Why torch has no GPU here, in a few words; None if it has one."""
    if torch.cuda.is_available():
        return None
    return f"torch {torch.__version__} finds no GPU it can use; pip install 'liveaffect[torch-gpu]'"


def device_of(uuid: str) -> str:
    """Torch's name for the card with this UUID; the first card if torch does not know it."""
    for index in range(torch.cuda.device_count()):
        if f"GPU-{torch.cuda.get_device_properties(index).uuid}" == uuid:
            return f"cuda:{index}"
    return "cuda:0"


def open_weights(manifest: Manifest, folder: Path, options: TorchOptions | None = None) -> TorchEngine:
    """The deployed module of the manifest's preset, filled with the weights of its fp32 file."""
    options = options or TorchOptions()
    module, missing = load_module(manifest, folder)
    back_end = "torch" if options.device == "cpu" else f"torch-gpu-{options.precision}"
    engine = TorchEngine(module, manifest.spec("fp32", back_end), manifest.kind, options)
    try:
        # Export leaves out what only training uses. Whatever else is missing is not a number, and shows.
        engine.warm_up()
    except EngineFailed as err:
        engine.close()
        if options.device != "cpu":
            raise
        raise _not_these(manifest, folder, missing, err) from err
    return engine


def load_module(manifest: Manifest, folder: Path) -> tuple[nn.Module, list[str]]:
    """The module with the weights of the file, and the names of those that the file does not hold."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as err:
        raise EngineUnavailable(
            f"torch reads its weights out of the ONNX file and needs the package 'onnx' for it ({err}); "
            "pip install 'liveaffect[torch-gpu]'"
        ) from err
    from liveaffect.engines.model import presets

    if manifest.preset not in presets.preset_names(manifest.kind):
        raise EngineUnavailable(
            f"torch does not know the {manifest.kind} preset '{manifest.preset}' of {manifest.name}; "
            "the ONNX file runs without it: --engine onnx"
        )
    graph = onnx.load_model_from_string(manifests.load_bytes(manifest, folder, "fp32")).graph
    stored = {weight.name: weight for weight in graph.initializer}
    # Weights that are equal are stored once; an Identity node gives the second its name.
    stored |= {
        n.output[0]: stored[n.input[0]]
        for n in graph.node
        if n.op_type == "Identity" and n.input[0] in stored
    }
    module = presets.deploy(presets.build(manifest.kind, manifest.preset))
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in stored]
    state = {
        name: torch.full_like(array, torch.nan)
        if name in missing
        else torch.from_numpy(numpy_helper.to_array(stored[name]).copy())
        for name, array in wanted.items()
    }
    try:
        module.load_state_dict(state | _borrowed(module, manifest))
    except RuntimeError as err:
        raise _not_these(manifest, folder, missing, err) from err
    return module, missing


def _not_these(manifest: Manifest, folder: Path, missing: list[str], err: Exception) -> EngineFileError:
    path = folder / manifests.file_name(manifest.kind, "fp32")
    lacks = f"; it lacks {', '.join(missing[:3])}" if missing else ""
    return EngineFileError(
        f"{path} does not hold the weights of preset '{manifest.preset}'{lacks}: {err}; "
        f"{manifests.mend(path)}"
    )


def _borrowed(module: nn.Module, manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a network that its file only names, from the user's copy of theirs."""
    from liveaffect.engines.model.voice_statistics import FOREIGN, VoiceWhisper, foreign_names

    if not isinstance(module, VoiceWhisper):
        return {}
    theirs = whisper.tensors(manifest)
    names = foreign_names(module.ears.state_dict())
    return {FOREIGN + ours: torch.from_numpy(theirs[name].copy()) for ours, name in names.items()}
