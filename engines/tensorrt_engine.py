"""A network on TensorRT or TensorRT-RTX, on an NVIDIA GPU.

The plan is opened on whichever thread builds it and used on another: the context is the device's primary
one, which every thread may make its own. Everything a batch needs is made at the start; steady work
allocates nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from liveaffect.engines.device_memory import DeviceMemory
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.slots import SlotEngine
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.tensorrt_run import PlanRun, do_all


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    graphs: bool = True
    """Use CUDA graphs where they answer like the plain way."""
    runtime_cache: bytes = b""
    """What `runtime_cache` gave the last time, for TensorRT-RTX."""
    owns_memory: bool = False
    """Close the memory with the engine."""


class TensorRTEngine(SlotEngine):
    """One plan."""

    def __init__(
        self,
        manifest: Manifest,
        precision: str,
        plan: bytes,
        *,
        backend: Backend,
        memory: DeviceMemory,
        options: RunOptions | None = None,
    ) -> None:
        """Open the plan. Raises EngineFileError if it does not fit, EngineFailed if the GPU refuses."""
        self._options = options or RunOptions()
        spec = manifest.spec("int8" if precision == "int8" else "fp32", f"{backend.flavour}-{precision}")
        super().__init__(spec, manifest.kind, graphs=self._options.graphs)
        self.precision = precision
        """Of the plan."""
        self._memory = memory
        self._run: PlanRun | None = None
        try:
            with self._device("opening the plan"):
                self._run = PlanRun(plan, spec, backend, memory, self._options.runtime_cache)
        except EngineError:
            self._let_go()
            raise
        self._use(self._run.slots)
        self._spec = replace(spec, max_batch=self._run.max_batch)

    @property
    def run(self) -> PlanRun:
        """The opened plan, for measuring its parts."""
        self._refuse_if_over()
        assert self._run is not None
        return self._run

    def runtime_cache(self) -> bytes:
        """What a later start can be given to be faster; empty where TensorRT has no such thing."""
        with self._device("reading its kernels"):
            return self.run.runtime_cache()

    def _active(self) -> AbstractContextManager[None]:
        return self._memory.active()

    def _look_for_loss(self) -> None:
        """TensorRT only says no; a device that is lost says so when it is waited for."""
        if self._run is not None:
            self._memory.synchronise(self._run.stream)

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _let_go(self) -> None:
        if self._options.owns_memory:
            do_all([self._memory.close])
