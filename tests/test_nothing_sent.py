"""Nothing leaves the machine and nothing foreign is left on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOUND = """
import numpy as np, sys, wave
from liveaffect.realtime.speech import tone_voice, write_wav
from pathlib import Path
write_wav(Path(sys.argv[1]), tone_voice(3.0))
"""


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("command", ["predict", "engines"])
def test_a_run_leaves_no_foreign_file_in_a_fresh_home(command: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    environ |= {"HOME": str(home), "TMPDIR": str(tmp_path)}
    sound = tmp_path / "voice.wav"
    subprocess.run([sys.executable, "-c", SOUND, str(sound)], check=True, env=environ)
    arguments = {
        "predict": ["predict", "--weights", str(ROOT / "engines" / "weights"), str(sound)],
        "engines": ["engines", "compare", "onnx", "onnx-int8", "--items", "4"],
    }[command]
    ran = subprocess.run(
        [sys.executable, "-m", "liveaffect", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert files_below(home) == []


def test_onnx_runtime_is_imported_by_one_module_only() -> None:
    importing = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT))
        for folder in ("engines", "realtime", "calibration", "liveaffect", "benchmarks", "tests")
        for at, _, names in os.walk(ROOT / folder)
        for path in (Path(at) / name for name in names if name.endswith(".py"))
        if importing.search(path.read_text("utf-8"))
    }
    # The quantiser takes submodules of it, behind an import of ours.
    assert found == {"engines/onnx_runtime.py", "engines/build/quantize.py"}
