"""What every test gets: the folder of shared media where it exists, no thread left behind, no lazy skip.

With LIVEAFFECT_CI set, everything a test may need has been installed on purpose, so a test that skips for
want of a package is a failure. Only hardware and what cannot be installed everywhere may still be absent.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

# How long a busy machine takes says nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
MAY_BE_ABSENT = re.compile(
    r"\b(GPU|NVIDIA|CUDA|hardware|display|shared clips|torch|tensorrt\w*|Chromium|Windows|macOS|POSIX)\b",
    re.IGNORECASE,
)
"""What a test may skip for even in CI; the reason of the skip has to name it."""


def is_lazy(reason: str) -> bool:
    """Whether a skip in CI for this reason hides a test that should have run."""
    return MAY_BE_ABSENT.search(reason) is None


R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at every skipped test."""
    return _without_lazy_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at every module that skips as a whole."""
    return _without_lazy_skip((yield))


def _without_lazy_skip(report: R) -> R:
    if os.environ.get("LIVEAFFECT_CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if is_lazy(reason):
            report.outcome = "failed"
            report.longrepr = (
                f"{reason}\nA skip in CI has to name hardware; install what is missing in .ci/run."
            )
    return report


@pytest.fixture
def shared_data() -> Path:
    """Real clips and portraits that are not part of the project; tests that want them skip without."""
    folder = Path(os.environ.get("LIVEAFFECT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the shared clips; set LIVEAFFECT_TEST_DATA to their folder")
    return folder


LIBRARY_THREADS = re.compile(r"Dummy-\d+")
"""Threads that a library starts outside Python and keeps; ours have names of their own."""


def threads_left(before: Collection[threading.Thread], grace_s: float = 5.0) -> list[str]:
    """Names of threads that were not there before and do not end within the grace, daemons included.

    Loading cannot be broken off: whoever ends meanwhile is done with it soon, on a busy machine later.
    """
    left = [t for t in threading.enumerate() if t not in before and not LIBRARY_THREADS.fullmatch(t.name)]
    for thread in left:
        thread.join(grace_s)
    return sorted(thread.name for thread in left if thread.is_alive())


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = threads_left(before)
    assert not left, f"threads left running: {left}"


def imported_by_bare_names() -> list[str]:
    """Modules of ours without the `liveaffect.`: every class in them exists a second time."""
    return sorted(n for n in sys.modules if n.split(".")[0] in ("realtime", "engines", "calibration"))


@pytest.fixture(autouse=True)
def _no_second_copy() -> Iterator[None]:
    yield
    twice = imported_by_bare_names()
    assert not twice, f"imported by their bare names: {twice[:5]}"
