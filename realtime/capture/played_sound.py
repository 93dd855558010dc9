"""What the loudspeaker plays, as a microphone hears a voice: `--mic output`, through PulseAudio or PipeWire.

The voices of the others in a call are there and nowhere else. PortAudio cannot name a monitor, so the sound
server's own recorder is asked, in a process of its own that may hang or die without harm.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np

from liveaffect.realtime.capture.portaudio import BLOCK_S, Heard
from liveaffect.realtime.devices import Device
from liveaffect.realtime.errors import MissingLibrary, SourceNotFound

OUTPUT = "output"
_ENDS_WITHIN_S = 2.0


class LoudspeakerSound:
    """The sound system whose only input is what is played."""

    def inputs(self) -> list[Device]:
        """The one there is."""
        return [Device(0, f"{OUTPUT}: what the loudspeaker plays")]

    def default(self) -> Device | None:
        """The same."""
        return self.inputs()[0]

    def own_format(self, device: Device) -> tuple[int, int]:
        """The recorder converts, so anything."""
        return 48_000, 1

    def start(self, device: Device, rate_hz: int, channels: int, heard: Heard) -> Recorder:
        """Begin to listen. Raises MissingLibrary without the recorder."""
        command = ["parec", "--device=@DEFAULT_MONITOR@", "--format=float32le", f"--rate={rate_hz}"]
        command += [f"--channels={channels}", f"--latency-msec={BLOCK_S * 1000:.0f}"]
        try:
            recorder = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            way = "sudo apt install pulseaudio-utils (it serves PipeWire, too)"
            if sys.platform != "linux":
                way = "on this system choose a loopback input by name, such as 'Stereo Mix' or 'BlackHole'"
            raise MissingLibrary(f"--mic {OUTPUT} needs the program parec: {way}") from error
        return Recorder(recorder, rate_hz, channels, heard)


class Recorder:
    """One recording; its thread hands on what comes."""

    def __init__(self, recorder: subprocess.Popen[bytes], rate_hz: int, channels: int, heard: Heard) -> None:
        self._recorder = recorder
        self._heard = heard
        self._shape = (round(BLOCK_S * rate_hz), channels)
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name="records what is played", daemon=True)
        self._thread.start()
        # A server that is not there is known within a moment; one that plays nothing may be silent for long.
        if not self._began.wait(0.5) and recorder.poll() is not None:
            self._refuse()

    @property
    def active(self) -> bool:
        """False when the recorder has ended, as it does with its server."""
        return self._recorder.poll() is None

    def close(self) -> None:
        """End it."""
        self._recorder.terminate()
        try:
            self._recorder.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._recorder.kill()
            self._recorder.wait()
        self._thread.join()
        for pipe in (self._recorder.stdout, self._recorder.stderr):
            if pipe is not None:
                pipe.close()

    def _run(self) -> None:
        stream: Any = self._recorder.stdout
        size = 4 * self._shape[0] * self._shape[1]
        while len(data := stream.read(size)) == size:
            self._began.set()
            self._heard(np.frombuffer(data, "<f4").reshape(self._shape), BLOCK_S, False)

    def _refuse(self) -> None:
        said = self._recorder.stderr.read().decode(errors="replace").strip() if self._recorder.stderr else ""
        self.close()
        raise SourceNotFound(f"mic:{OUTPUT}: no sound server answers ({said or 'parec ended'})")
