"""Which emotion each person in view shows, and how sure that is: from cameras, microphones and files.

    import liveaffect

    for cue in liveaffect.analyze("talk.mp4"):
        print(cue.t, cue.track, cue.label, cue.confidence)

`predict` answers once for a whole picture, sound or video, `analyze` ten times a second of a file, `watch`
live; `Analyzer` is for programs that have pictures and sound already. Pictures are RGB unless said otherwise,
times are seconds, distributions have the order of `LABELS`. Importing this package loads nothing large and
changes nothing in the process; what it does when it works stands in docs/api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from liveaffect.engines import LABELS
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.errors import (
    InputRefused,
    MissingFile,
    MissingLibrary,
    RealtimeError,
    SettingsError,
    SinkError,
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceLost,
    SourceNotFound,
    SourceRefused,
)

if TYPE_CHECKING:
    from liveaffect.analyzer import Analyzer
    from liveaffect.api import Cues, analyze, predict, watch
    from liveaffect.engines.protocol import EngineError
    from liveaffect.prediction import PredictedFace, Prediction
    from liveaffect.realtime.sinks import Sink
    from liveaffect.settings import Settings
else:

    def __getattr__(name: str) -> object:
        # Type checkers are not shown this: they would take any misspelt name for one that is loaded later.
        if name not in _LATER:
            raise AttributeError(f"module 'liveaffect' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found


__all__ = [
    "LABELS",
    "NOT_SURE",
    "Analyzer",
    "Cue",
    "Cues",
    "EngineError",
    "InputRefused",
    "MissingFile",
    "MissingLibrary",
    "PredictedFace",
    "Prediction",
    "RealtimeError",
    "Settings",
    "SettingsError",
    "Sink",
    "SinkError",
    "SourceBusy",
    "SourceChanged",
    "SourceError",
    "SourceLost",
    "SourceNotFound",
    "SourceRefused",
    "analyze",
    "predict",
    "watch",
]

_LATER = {
    "Analyzer": "liveaffect.analyzer",
    "Cues": "liveaffect.api",
    "EngineError": "liveaffect.engines.protocol",
    "PredictedFace": "liveaffect.prediction",
    "Prediction": "liveaffect.prediction",
    "Settings": "liveaffect.settings",
    "Sink": "liveaffect.realtime.sinks",
    "analyze": "liveaffect.api",
    "predict": "liveaffect.api",
    "watch": "liveaffect.api",
}
"""What is loaded when it is first asked for, because it brings NumPy, OpenCV and ONNX Runtime along."""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
