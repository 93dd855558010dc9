"""CUDA graphs by the driver itself, for memory packages that have none: pycuda does not offer them.

Seven functions of libcuda, called by ctypes with the handles the packages give. What happens in one stream is
noted down as one graph, which is then launched with one call instead of a dozen.
"""

from __future__ import annotations

import ctypes

from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.gpu_driver import LIBRARY

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating meanwhile."""


class DriverGraphs:
    """The graphs of one device. The caller has its context current."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._driver = ctypes.CDLL(library)
        self.made = 0

    def begin(self, stream: int) -> None:
        """Note down what this stream is given from here on."""
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end(self, stream: int) -> int:
        """The executable graph of what was noted; its handle."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        self.made += 1
        return int(ready.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Do all of it."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def close(self, graph: int) -> None:
        """Give the executable graph back."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: object) -> None:
        status = int(getattr(self._driver, name)(*arguments))
        if status:
            raise DeviceError(name, self._said(status))

    def _said(self, status: int) -> str:
        text = ctypes.c_char_p()
        if self._driver.cuGetErrorName(status, ctypes.byref(text)) or not text.value:
            return f"CUDA error {status}"
        return text.value.decode("ascii", "replace")


class CapturingMemory:
    """The part of a device memory that is about graphs, for every package that leaves them to the driver."""

    _graphs: DriverGraphs

    def begin_capture(self, stream: int) -> None:
        """Note down from here on."""
        self._graphs.begin(stream)

    def end_capture(self, stream: int) -> int:
        """The graph of what was noted."""
        return self._graphs.end(stream)

    def launch(self, graph: int, stream: int) -> None:
        """Do all of it."""
        self._graphs.launch(graph, stream)

    def close_graph(self, graph: int) -> None:
        """Give it back."""
        self._graphs.close(graph)
