"""A microphone that exists only in software: a PulseAudio server of our own, with its own home.

What a test plays into it comes out of PortAudio like any microphone's sound, so the real callback, its bursts
and its time stamps are tested without hardware. Needs no root, no systemd and no D-Bus.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins libportaudio2"
_UP_S = 10.0


def why_no_virtual_microphone() -> str | None:
    """Why there can be no virtual microphone here, in one sentence, or None."""
    absent = [tool for tool in ("pulseaudio", "pactl", "pacat") if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}; install the Debian packages {PACKAGES}"
    return None


class VirtualMicrophone:
    """The sound server while it runs."""

    def __init__(self, environment: dict[str, str], server: subprocess.Popen[bytes]) -> None:
        self.environment = environment
        """With it, other programs find the server."""
        self._server = server

    def stand_still(self) -> None:
        """Answer nobody any more, as a server does that hangs."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stand_still`."""
        self._server.send_signal(signal.SIGCONT)

    def play(self, samples: NDArray[np.float32], rate_hz: int) -> subprocess.Popen[bytes]:
        """Begin to speak mono samples into the microphone; wait for the process to hear them out."""
        player = subprocess.Popen(
            [
                "pacat",
                "--playback",
                "--device=vmic",
                "--format=float32le",
                f"--rate={rate_hz}",
                "--channels=1",
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )
        assert player.stdin is not None
        feeder = threading.Thread(target=_feed, args=(player, samples.astype("<f4").tobytes()), daemon=True)
        feeder.start()
        return player


@contextmanager
def virtual_microphone(rate_hz: int = 48_000, channels: int = 2) -> Iterator[VirtualMicrophone]:
    """Start the server, make its microphone the default of this process, and end it again."""
    with tempfile.TemporaryDirectory(prefix="pulse") as folder:
        own = {"XDG_RUNTIME_DIR": f"{folder}/run", "HOME": f"{folder}/home"}
        for path in own.values():
            os.mkdir(path, 0o700)
        before = {key: os.environ.get(key) for key in own}
        os.environ.update(own)
        sink = f"module-null-sink sink_name=vmic rate={rate_hz} channels={channels}"
        source = "module-remap-source master=vmic.monitor source_name=mic"
        server = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "-n"]
            + [f"--load={module}" for module in ("module-native-protocol-unix", sink, source)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_server(server)
            yield VirtualMicrophone({**os.environ}, server)
        finally:
            server.terminate()
            server.wait(5.0)
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key)
                else:
                    os.environ[key] = value


def _await_server(server: subprocess.Popen[bytes]) -> None:
    for _ in range(round(_UP_S / 0.05)):
        done = subprocess.run(["pactl", "set-default-source", "mic"], capture_output=True, check=False)
        if done.returncode == 0:
            return
        if server.poll() is not None:
            break
        threading.Event().wait(0.05)
    raise RuntimeError("pulseaudio did not come up")


def _feed(player: subprocess.Popen[bytes], data: bytes) -> None:
    assert player.stdin is not None
    try:
        player.stdin.write(data)
        player.stdin.close()
    except BrokenPipeError:
        return
