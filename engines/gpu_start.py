"""Makes a GPU ready while the CPU works, and hands each network over when it is.

Plans are built in a process of their own at low priority: it takes every core it gets, and what goes wrong
in it costs the live picture nothing. The process also finds out which way is best. The one that won is then
opened and warmed on the thread that follows the process, so that the scheduler only exchanges one engine for
the other. The process writes a line of JSON for every step:

    {"kind": "face", "say": "face fp16: building a plan for TensorRT-RTX 1.7, once"}
    {"kind": "face", "ready": "fp16"}, or "torch-fp16"        or        {"kind": "face", "failed": "why"}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from liveaffect.engines import gpu_load, manifest
from liveaffect.engines.fallback import FallbackEngine
from liveaffect.engines.load import load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import Engine, EngineError

Say = Callable[[str], None]
COMMAND = (sys.executable, "-m", "liveaffect.engines.gpu_start")
NICENESS = 10
NOTICE = "making the networks ready for the GPU"
"""The same for every network, so that it is one line for the user."""
_GRACE_S = 2.0
"""How long a process that was told to end may take."""


class GpuStart:
    """The building of one run. `start` at most once; `stop` at any time, also without a start."""

    def __init__(
        self,
        say: Say,
        *,
        command: Sequence[str] = COMMAND,
        open_way: Callable[[Manifest, Path, str], Engine] = gpu_load.open_way,
    ) -> None:
        self._say = say
        self._command = command
        self._open_way = open_way
        self._waiting: dict[str, tuple[Path, FallbackEngine]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def start(self, awaiting: Mapping[Path, FallbackEngine]) -> None:
        """Begin to build for these engines, by the manifest of each; returns at once."""
        if not awaiting:
            return
        self._waiting = {path.stem: (path, engine) for path, engine in awaiting.items()}
        for engine in awaiting.values():
            engine.notice = NOTICE
        self._process = subprocess.Popen(
            [*self._command, *map(str, awaiting)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._follow, name="builds plans", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the building; what is built by then is kept for the next run."""
        if self._process is None or self._thread is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join(_GRACE_S)

    def _follow(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        last = ""
        with process.stdout:
            for line in process.stdout:
                last = line.strip() or last
                self._take(line)
        status = process.wait()
        for kind, (_, engine) in self._waiting.items():
            engine.notice = None
            if status >= 0:  # Below that it was told to end.
                self._say(f"{kind}: stays on the CPU; building its plans ended early ({last})")

    def _take(self, line: str) -> None:
        """One line of the process; what is not JSON is a library talking, and only its last line matters."""
        try:
            told = json.loads(line)
            kind = told["kind"]
            path, engine = self._waiting[kind]
        except (ValueError, KeyError, TypeError):
            return
        if "say" in told:
            self._say(str(told["say"]))
            return
        del self._waiting[kind]
        failed = told.get("failed")
        if "ready" in told:
            try:
                engine.offer(self._open_way(manifest.read(path), path.parent, str(told["ready"])))
                return
            except EngineError as err:
                failed = err
        engine.notice = None
        self._say(f"{kind}: stays on the CPU; {failed}")


def build_all(paths: Sequence[Path], out: TextIO) -> None:
    """What the process does: build, try and choose for each manifest, and tell every step."""

    def tell(kind: str, **what: str) -> None:
        out.write(json.dumps({"kind": kind, **what}) + "\n")
        out.flush()

    for path in paths:
        kind = path.stem
        try:
            tell(kind, ready=_best_way(path, partial(_say_for, tell, kind)))
        except EngineError as err:
            tell(kind, failed=str(err))


def _best_way(path: Path, report: Say) -> str:
    """A precision whose plan is there and answers right, or torch. Raises EngineError if there is neither."""
    found = manifest.read(path)
    reference = load(path.stem, choice="onnx", weights=path, report=report)
    try:
        engine, _, way = gpu_load.open_any(found, path.parent, reference, report)
        engine.close()
        return way
    finally:
        reference.close()


def _say_for(tell: Callable[..., None], kind: str, line: str) -> None:
    tell(kind, say=line)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    build_all([Path(name) for name in sys.argv[1:]], sys.stdout)
