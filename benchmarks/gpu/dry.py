"""Stand-ins for everything a GPU machine has, so that every line of the kit can be walked without one.

A scripted TensorRT computes by ONNX Runtime on the host's memory, torch runs on the processor behind streams
and graphs that are none, and NVML answers every question with one. On a machine that `refuses` nothing works:
TensorRT refuses the card, torch is missing, clocks cannot be read. One that `limps` runs some of it, and a
`bare` one has neither TensorRT nor torch.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu.card import Nvml
from gpu.equipment import Machine
from gpu.networks import LIST, Network
from gpu.tensorrt_path import Builder

from liveaffect.engines.build.plan import BuiltPlan
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.protocol import EngineUnavailable
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.realtime.testing import scripted_tensorrt

GPU = Gpu(0, "no GPU (dry run)", (0, 0), (0, 0), 0)
NETWORKS = ("face-live", "voice-student")
ITEMS = 20


def machine(mood: str) -> Machine:
    """All stand-ins, in one of the moods."""
    refuses = mood == "refuses"
    return Machine(
        gpus=lambda: (GPU, GPU) if refuses else (GPU,),
        backend=no_backend if mood == "bare" else backend,
        memory=LimpingMemory if mood == "limps" else HostMemory,
        build={"refuses": refuse_to_build, "limps": build_half}.get(mood, build),
        nvml=lambda: Nvml(library=object() if refuses else ScriptedNvml()),
        torch_card=torch_card if mood == "works" else no_torch,
        cache=Path(tempfile.mkdtemp(prefix="liveaffect-dry-plans-")),
        execute=execute,
        options=("--dry-run", mood),
    )


def networks() -> Path:
    """Two prepared networks, made when they are missing; needs the extra 'train'."""
    from gpu.prepare import prepare

    folder = Path(tempfile.gettempdir()) / "liveaffect-dry-networks"
    if not (folder / LIST).exists():
        prepare(folder, NETWORKS, 64.0, items=ITEMS, shipped=False)
    return folder


def backend() -> Backend:
    """The scripted TensorRT."""
    return scripted_tensorrt.backend()


def no_backend() -> Backend:
    """As if nothing were installed."""
    raise EngineUnavailable("there is no TensorRT: a scripted lack")


def build(_backend: Backend) -> Builder:
    """Plans that the scripted TensorRT can run."""

    def built(network: Network, precision: str, sizes: Sequence[int]) -> BuiltPlan:
        return BuiltPlan(scripted_tensorrt.plan(network.content(precision), sizes), (), 0.0)

    return built


def refuse_to_build(_backend: Backend) -> Builder:
    """As if the card were of a kind that TensorRT does not know."""

    def refused(network: Network, precision: str, sizes: Sequence[int]) -> BuiltPlan:
        raise EngineUnavailable(f"scripted refusal of {network.name} in {precision} for {list(sizes)}")

    return refused


def build_half(_backend: Backend) -> Builder:
    """Everything but INT8 of the voice."""
    good, bad = build(_backend), refuse_to_build(_backend)

    def built(network: Network, precision: str, sizes: Sequence[int]) -> BuiltPlan:
        is_bad = (network.kind, precision) == ("voice", "int8")
        return (bad if is_bad else good)(network, precision, sizes)

    return built


class LimpingMemory(HostMemory):
    """No graph that is captured can be used."""

    def end_capture(self, stream: int) -> int:
        """Fails after it gave the graph back."""
        self.close_graph(super().end_capture(stream))
        raise DeviceError("cuStreamEndCapture", "a scripted error")


def execute(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """The process for a first use, without the process."""
    from gpu import run

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = run.main(list(command[2:]))
    return subprocess.CompletedProcess(list(command), code, said.getvalue(), "")


class ScriptedNvml:
    """Answers every question with one; nothing to mistake for a card."""

    def nvmlInit_v2(self) -> int:  # noqa: N802  the library's own name
        """Works."""
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, _index: Any, _device: Any) -> int:  # noqa: N802
        """Works."""
        return 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        def answer(*given: Any) -> int:
            given[-1]._obj.value = 1
            return 0

        return answer


def torch_card() -> Any:
    """The processor, as a card with streams and graphs."""
    import torch
    from gpu.torch_path import Card

    torch.set_num_threads(1)
    return Card("cpu", ScriptedCuda, False, torch.float32, lambda _graph, work: work)


def no_torch() -> Any:
    """As if torch were not installed."""
    raise ImportError("No module named 'torch'")


class ScriptedCuda:
    """The part of torch.cuda that the kit uses; work is done when it is handed in."""

    class Stream:
        """Nothing waits in it."""

        def synchronize(self) -> None:
            """Nothing to wait for."""

    class Event:
        """A moment."""

        def __init__(self, *, enable_timing: bool) -> None:
            self.at_ns = 0 if enable_timing else -1

        def record(self, _stream: Any) -> None:
            """Now."""
            self.at_ns = time.perf_counter_ns()

        def synchronize(self) -> None:
            """Nothing to wait for."""

        def elapsed_time(self, end: Any) -> float:
            """Milliseconds from this to that."""
            return float(end.at_ns - self.at_ns) / 1e6

    class CUDAGraph:
        """Is captured, and never launched: the work itself is done again."""

    @staticmethod
    def synchronize() -> None:
        """Nothing to wait for."""

    @staticmethod
    @contextlib.contextmanager
    def stream(_stream: Any) -> Iterator[None]:
        """Inside, work belongs to the stream."""
        yield

    @staticmethod
    @contextlib.contextmanager
    def graph(_graph: Any, *, stream: Any) -> Iterator[None]:
        """Inside, work is captured; here it is done."""
        assert stream is not None
        yield
