"""A plan that was opened: its runtime, its engine, its stream, and a lane for every size it was built for.

Made and ended in one order: runtime, engine, stream, lanes, and back. What a batch needs exists before the
first one comes; `lane` makes a flexible one for sizes in between, which is for warming up and for measuring.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import Any

import numpy as np

from liveaffect.engines.device_memory import DeviceMemory
from liveaffect.engines.protocol import EngineFileError, EngineInputError, EngineSpec, TensorSpec
from liveaffect.engines.tensorrt_backend import Backend
from liveaffect.engines.tensorrt_lane import Ground, Lane, do_all

_REMEMBERED = 20
"""Lines of TensorRT's log that are kept while running."""


class PlanRun:
    """One plan on one stream of one device. Used inside `memory.active()`."""

    def __init__(
        self,
        plan: bytes,
        spec: EngineSpec,
        backend: Backend,
        memory: DeviceMemory,
        *,
        runtime_cache: bytes = b"",
    ) -> None:
        """Open it. Raises EngineFileError if TensorRT refuses it or it is of another network."""
        self.ranges: tuple[tuple[int, int], ...] = ()
        """Smallest and largest batch of each profile."""
        self.stream = 0
        self.lanes: tuple[Lane, ...] = ()
        """One for each profile, of its largest batch."""
        self._backend = backend
        self._memory = memory
        self._spec = spec
        self._flexible: dict[int, Lane] = {}
        self._said = _listener(backend.module)
        self._runtime: Any = backend.module.Runtime(self._said)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._config: Any = None
        self._cache: Any = None
        with ExitStack() as undo:
            undo.callback(self.close)
            self._open(runtime_cache)
            undo.pop_all()

    def _open(self, runtime_cache: bytes) -> None:
        if self._engine is None:
            raise EngineFileError(
                f"{self._backend} cannot open the plan of '{self._spec.name}': {self._said.complaint()}; "
                "remove it with 'liveaffect engines clean' and build it anew"
            )
        self._check("inputs", self._backend.module.TensorIOMode.INPUT, self._spec.inputs)
        self._check("outputs", self._backend.module.TensorIOMode.OUTPUT, self._spec.outputs)
        self.ranges = self._profiles()
        self.stream = self._memory.stream()
        if self._backend.is_rtx:
            self._config = self._engine.create_runtime_config()
            self._cache = self._config.create_runtime_cache()
            # A cache of another driver or card is refused, and then everything is made anew.
            _ = runtime_cache and self._cache.deserialize(runtime_cache)
        ground = Ground(
            memory=self._memory,
            stream=self.stream,
            inputs=self._spec.inputs,
            outputs=self._spec.outputs,
            context=self._context,
            complaint=self._said.complaint,
            makes_graphs=self._backend.is_rtx,
        )
        self._ground = ground
        for profile, (_low, high) in enumerate(self.ranges):
            self.lanes += (Lane(ground, profile, high),)

    @property
    def max_batch(self) -> int:
        """The largest batch that fits a profile."""
        return max(high for _low, high in self.ranges)

    def padded(self, count: int) -> Lane:
        """The smallest lane that this many rows fit into."""
        return min((lane for lane in self.lanes if lane.size >= count), key=lambda lane: lane.size)

    def lane(self, count: int) -> Lane:
        """A lane set for exactly this many rows; nothing may wait in it."""
        if any(lane.size == count for lane in self.lanes):
            return self.padded(count)
        lane = self.flexible(count)
        lane.shape(count)
        return lane

    def flexible(self, count: int) -> Lane:
        """The flexible lane of the profile for this many rows, made if there is none yet."""
        profile = self._profile_of(count)
        if profile not in self._flexible:
            self._flexible[profile] = Lane(self._ground, profile, self.ranges[profile][1], flexible=True)
        return self._flexible[profile]

    def forget_flexible(self, count: int) -> None:
        """Give back the flexible lane for this many rows."""
        lane = self._flexible.pop(self._profile_of(count), None)
        if lane is not None:
            lane.close()

    def runtime_cache(self) -> bytes:
        """The kernels TensorRT-RTX has made so far, for the next start; nothing from others."""
        return b"" if self._cache is None else bytes(self._cache.serialize())

    def close(self) -> None:
        """End lanes, stream, engine and runtime, in this order. Safe twice, and on a device that is lost."""
        for lane in (*self.lanes, *self._flexible.values()):
            lane.close()
        self.lanes = ()
        self._flexible.clear()
        if self.stream:
            stream, self.stream = self.stream, 0
            do_all([lambda: self._memory.close_stream(stream)])
        self._cache = self._config = None
        self._engine = None
        self._runtime = None

    def _check(self, what: str, mode: Any, wanted: tuple[TensorSpec, ...]) -> None:
        """The plan itself must say what the manifest says."""
        engine, trt = self._engine, self._backend.module
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        found = {
            name: TensorSpec(
                name,
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name,
                tuple(engine.get_tensor_shape(name))[1:],
            )
            for name in names
            if engine.get_tensor_mode(name) == mode
        }
        if found != {tensor.name: tensor for tensor in wanted}:
            raise EngineFileError(
                f"the plan of '{self._spec.name}' is of another network: its {what} are "
                f"{', '.join(map(str, found.values()))}; wanted {', '.join(map(str, wanted))}"
            )

    def _profile_of(self, count: int) -> int:
        for profile, (low, high) in enumerate(self.ranges):
            if low <= count <= high:
                return profile
        raise EngineInputError(f"the plan of '{self._spec.name}' has no profile for {count} items")

    def _profiles(self) -> tuple[tuple[int, int], ...]:
        name = self._spec.inputs[0].name
        shapes = [
            self._engine.get_tensor_profile_shape(name, at)
            for at in range(self._engine.num_optimization_profiles)
        ]
        return tuple((int(low[0]), int(high[0])) for low, _best, high in shapes)

    def _context(self, kind: str) -> Any:
        """A context; with TensorRT-RTX one that makes graphs or not, and never compiles while it runs."""
        if not self._backend.is_rtx:
            return self._engine.create_execution_context()
        trt = self._backend.module
        graphs, kernels = trt.CudaGraphStrategy, trt.DynamicShapesKernelSpecializationStrategy
        config = self._engine.create_runtime_config()
        config.set_runtime_cache(self._cache)
        config.cuda_graph_strategy = graphs.WHOLE_GRAPH_CAPTURE if kind == "graph" else graphs.DISABLED
        config.dynamic_shapes_kernel_specialization_strategy = (
            kernels.NONE if kind == "flexible" else kernels.EAGER
        )
        return self._engine.create_execution_context(config)


def _listener(trt: Any) -> Any:
    """A logger that remembers the last lines and prints nothing; its class derives from the module's."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        """Keeps the newest warnings and errors."""

        def __init__(self) -> None:
            super().__init__()
            self._errors: deque[str] = deque(maxlen=_REMEMBERED)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self._errors.append(msg)

        def complaint(self) -> str:
            """The newest error, or that there was none."""
            return self._errors[-1] if self._errors else "TensorRT does not say why"

    return Listener()
