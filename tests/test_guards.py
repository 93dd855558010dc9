"""What watches over every test sees what it is there for."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def guards(request: pytest.FixtureRequest) -> Any:
    """The module of the guards, which pytest loads as a plugin."""
    plugins = request.config.pluginmanager.get_plugins()
    return next(plugin for plugin in plugins if hasattr(plugin, "threads_left"))


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_goes_on_is_named_whether_it_is_a_daemon_or_not(guards: Any, daemon: bool) -> None:
    """All threads of the product are daemons, so that a hanging device cannot keep the process."""
    before = set(threading.enumerate())
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="source camera:9", daemon=daemon)
    thread.start()
    try:
        assert guards.threads_left(before, grace_s=0.01) == ["source camera:9"]
    finally:
        over.set()
        thread.join()
    assert guards.threads_left(before, grace_s=0.01) == []


def test_only_what_cannot_be_installed_everywhere_may_be_skipped_in_ci(guards: Any) -> None:
    assert guards.is_lazy("onnx is not installed")
    assert not guards.is_lazy("needs an NVIDIA GPU that works")


def test_a_module_of_ours_by_its_bare_name_is_seen(guards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guards.imported_by_bare_names() == []
    monkeypatch.setitem(sys.modules, "engines.load", ModuleType("engines.load"))
    assert guards.imported_by_bare_names() == ["engines.load"]
