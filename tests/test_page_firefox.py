"""The page in Debian's Firefox, which gives no tracks to read and perhaps no sound: it runs all the same.

Firefox is driven by WebDriver BiDi, which it speaks itself. Its camera and microphone are made up by itself,
so nobody is in the picture; that answers come, and are drawn, is what can be asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from liveaffect import Settings
from liveaffect.realtime.blazeface import FULL_RANGE, model_path
from liveaffect.realtime.errors import MissingFile
from liveaffect.realtime.testing.devices import virtual_microphone, why_no_virtual_microphone
from liveaffect.serve import Served

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(FIREFOX is None, reason="needs Firefox to show the page: firefox-esr"),
]
WANTED = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "remote.active-protocols": 1,
    "datareporting.policy.dataSubmissionEnabled": False,
}


class Page:
    """One page of a running Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._asked = socket, 0
        self.said: list[str] = []
        """What came to the console."""
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self._context = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **params: Any) -> Any:
        """One command and its answer."""
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._asked:
                assert message["type"] == "success", message
                return message["result"]
            if message.get("method") == "log.entryAdded":
                self.said.append(f"{message['params']['level']}: {message['params']['text']}")

    def go(self, url: str) -> None:
        self.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def js(self, code: str) -> Any:
        """What a script on the page gives, as JSON."""
        asked = {"expression": f"JSON.stringify({code})", "target": {"context": self._context}}
        answer = self.ask("script.evaluate", **asked, awaitPromise=True, userActivation=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def until(self, code: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not self.js(code):
            state = self.js("document.getElementById('curtain').textContent")
            assert time.monotonic() < end, f"not so: {code}; the page says '{state}', {self.said}"
            time.sleep(0.2)


@contextmanager
def firefox(profile: Path, environment: dict[str, str]) -> Iterator[Page]:
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in WANTED.items())
    (profile / "user.js").write_text("".join(lines), "utf-8")
    command = [str(FIREFOX), "--headless", "--no-remote", "--profile", str(profile)]
    with subprocess.Popen(
        [*command, "--remote-debugging-port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "HOME": str(profile)},
    ) as run:
        try:
            assert run.stderr is not None
            address = next(line.split()[-1] for line in run.stderr if "BiDi listening on" in line)
            with connect(f"{address}/session", max_size=None) as socket:
                yield Page(socket)
        finally:
            run.kill()


@pytest.mark.parametrize("sound", [True, False], ids=["with a sound server", "without one"])
def test_firefox_shows_live_answers_also_where_the_machine_plays_no_sound(
    tmp_path: Path, sound: bool
) -> None:
    try:
        files = model_path(FULL_RANGE).parent
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    if sound and (why := why_no_virtual_microphone()) is not None:
        pytest.skip(why)
    around = virtual_microphone() if sound else nullcontext()
    with around as server, Served(Settings(port=0, voice="small", face_model=str(files))) as served:
        environment = {**os.environ, "PULSE_SERVER": "none"} if server is None else server.environment
        with firefox(tmp_path, environment) as page:
            page.go(f"http://127.0.0.1:{served.server.port}/")
            page.js("document.getElementById('consent').click() ?? 0")
            page.js("document.getElementById('start').click() ?? 0")
            page.until("document.getElementById('state').dataset.state === 'live'")
            page.until("!document.getElementById('run').hidden")
            page.until("liveaffect.drawn.length > 20 && liveaffect.health.answered > 20")
            if sound:
                page.until("liveaffect.health.samples > 16000")
            else:
                page.until("document.getElementById('health').textContent.includes('none comes')")
            assert page.said == []
