"""What there is on this machine to measure with: card, driver, TensorRT, device memory, torch.

Everything that touches the machine comes in as a function, so that the dry run walks the same lines with
stand-ins. A missing package costs its rows and one line in the report, never the run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu import first_start
from gpu.card import Nvml
from gpu.first_start import Starter
from gpu.lanes import Path as GpuPath
from gpu.samples import Effort
from gpu.tensorrt_path import Builder, Plans, TensorRTPath, builder, starter

from liveaffect.engines import device_memory, gpu_driver, plans, tensorrt_backend
from liveaffect.engines.device_memory import DeviceMemory
from liveaffect.engines.gpu_driver import Gpu
from liveaffect.engines.protocol import EngineError, EngineUnavailable
from liveaffect.engines.tensorrt_backend import Backend


def torch_card() -> Any:
    """The card as torch sees it. Raises ImportError, or EngineUnavailable for a torch without CUDA."""
    import torch
    from gpu.torch_path import Card

    if not torch.cuda.is_available():
        raise EngineUnavailable(f"torch {torch.__version__} finds no GPU")
    return Card()


@dataclass(frozen=True, slots=True)
class Machine:
    """Where everything comes from. The dry run replaces all of it."""

    gpus: Callable[[], tuple[Gpu, ...]] = gpu_driver.gpus
    backend: Callable[[], Backend] = tensorrt_backend.find_backend
    memory: Callable[[], DeviceMemory] = device_memory.open_memory
    build: Callable[[Backend], Builder] = builder
    nvml: Callable[[], Nvml] = Nvml
    torch_card: Callable[[], Any] = torch_card
    cache: Path = field(default_factory=plans.plans_dir)
    execute: Any = subprocess.run
    options: tuple[str, ...] = ()
    """Of the script, for the processes it starts."""


@dataclass
class Found:
    """What was found, and what is missing."""

    gpu: Gpu
    nvml: Nvml
    backend: Backend | None
    why_no_backend: str
    notes: list[str]
    memories: list[DeviceMemory] = field(default_factory=list)

    def close(self) -> None:
        """Give the device back."""
        while self.memories:
            self.memories.pop().close()


def look(machine: Machine) -> Found:
    """Card, driver and TensorRT. Raises EngineUnavailable where there is no card."""
    cards = machine.gpus()
    if not cards:
        raise EngineUnavailable(gpu_driver.why_no_gpu() or "the driver describes no GPU")
    notes = [] if len(cards) == 1 else [f"the first of {len(cards)} cards is measured"]
    nvml = machine.nvml()
    try:
        return Found(cards[0], nvml, machine.backend(), "", notes)
    except EngineUnavailable as err:
        return Found(cards[0], nvml, None, str(err), notes)


def make_starter(machine: Machine, found: Found, effort: Effort) -> Starter:
    """One first use in this process, as the process made for it does it."""

    def make(cache: Path, on_step: Callable[[str], None]) -> TensorRTPath:
        backend = machine.backend()
        on_step("import")
        memory = machine.memory()
        on_step("context")
        stored = Plans(backend, found.gpu, machine.build(backend), cache, effort.sizes)
        return TensorRTPath(stored, memory, graph=True, on_step=on_step)

    return starter(make)


def outer_starter(machine: Machine, networks: Path) -> Starter:
    """The same in a process of its own."""
    script = Path(__file__).with_name("run.py")
    options = ("--networks", str(networks), *machine.options)
    return first_start.in_a_process(script, options, machine.execute)


def tensorrt_ways(machine: Machine, found: Found, effort: Effort) -> list[GpuPath]:
    """TensorRT with and without CUDA graphs, on one context."""
    if found.backend is None:
        return []
    try:
        memory = machine.memory()
    except EngineError as err:
        found.notes.append(f"TensorRT is not measured: {err}")
        return []
    found.memories.append(memory)
    found.notes.append(f"device memory: {memory.name}")
    stored = Plans(found.backend, found.gpu, machine.build(found.backend), machine.cache, effort.sizes)
    return [TensorRTPath(stored, memory, graph) for graph in (True, False)]


def torch_ways(machine: Machine, found: Found, effort: Effort) -> list[GpuPath]:
    """Torch as a CUDA graph and eager, where it is installed and sees the card."""
    try:
        card = machine.torch_card()
        from gpu.torch_path import TorchPath
    except (ImportError, EngineUnavailable) as err:
        found.notes.append(f"torch is not measured: {err}")
        return []
    return [TorchPath(effort.sizes, graph=graph, card=card) for graph in (True, False)]
