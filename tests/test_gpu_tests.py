"""The tests for a GPU are tried on one that is not there, so that they are right when one is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_tests_for_a_gpu_pass_on_a_scripted_one() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib"),
            *("-p", "no:cacheprovider", "-m", "gpu", "-k", "fp32 or steady_work", "tests/gpu"),
        ],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "LIVEAFFECT_CI"}
        | {"LIVEAFFECT_SCRIPTED_GPU": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert " passed" in ran.stdout
    assert " failed" not in ran.stdout
