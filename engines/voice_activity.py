"""Whether somebody speaks, 31 times a second: Silero's network, from the copy that faster-whisper carries.

Its file keeps no state, so state and the last samples are handed back with each call, and a stream costs the
same however it is cut. It is far cheaper than hearing words, which is only done where this one says speech.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.onnx_engine import ort
from liveaffect.engines.protocol import SPEECH_CHUNK as CHUNK
from liveaffect.engines.protocol import EngineUnavailable

CONTEXT = 64
FILE = "silero_vad_v6.onnx"


class VoiceActivity:
    """The network and the state of one stream."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(model_file()), options, providers=["CPUExecutionProvider"])
        self._state = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
        self._before = np.zeros(CONTEXT, np.float32)

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of speech for each CHUNK of samples; their number is a multiple of it."""
        if not len(samples):
            return np.zeros(0, np.float32)
        chunks = samples.reshape(-1, CHUNK)
        ends = np.concatenate([self._before[None], chunks[:-1, -CONTEXT:]])
        self._before = chunks[-1, -CONTEXT:].copy()
        answer, h, c = self._session.run(None, {"input": np.concatenate([ends, chunks], 1), **self._state})
        self._state = {"h": h, "c": c}
        return np.asarray(answer, np.float32).reshape(-1)


def model_file() -> Path:
    """Where the network lies. Raises EngineUnavailable without faster-whisper, which is not imported."""
    found = find_spec("faster_whisper")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / "assets" / FILE).is_file():
            return path
    raise EngineUnavailable(
        f"{FILE} is not here: it comes with faster-whisper 1.2, uv sync --inexact --extra words"
    )
