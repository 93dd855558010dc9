"""The doctor hides nothing, dies of nothing, and calls only what is needed and does not work broken."""

from __future__ import annotations

import io
import json
import socket
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from liveaffect import doctor as examination
from liveaffect import findings
from liveaffect.doctor import doctor
from liveaffect.engines.protocol import Tensors
from liveaffect.engines.scripted_engine import ScriptedVoice
from liveaffect.findings import Finding, Section
from liveaffect.realtime.acting import read_wav
from liveaffect.realtime.errors import MissingLibrary
from liveaffect.self_test import judge_voice, try_engines
from liveaffect.settings import Settings

FINE = Finding("camera", "ok", "looks at you")
ABSENT = Finding("GPU", "absent", "none", "buy one")
BROKEN = Finding("cv2", "broken", "libxcb.so.1 is not there", "apt-get install libxcb1")


def ask(*findings: Finding, as_json: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    sections: list[Section] = [("parts", lambda: findings)]
    return doctor(as_json, out=out, sections=sections), out.getvalue()


def test_a_machine_without_camera_or_gpu_is_healthy() -> None:
    status, text = ask(FINE, ABSENT)
    assert status == 0
    assert "if wanted: buy one" in text


def test_one_broken_part_makes_the_status_1_and_its_cure_is_printed() -> None:
    status, text = ask(FINE, BROKEN)
    assert status == 1
    assert "BROKEN  cv2: libxcb.so.1 is not there" in text
    assert "mend it: apt-get install libxcb1" in text


def test_json_says_the_same_as_the_text() -> None:
    status, text = ask(FINE, ABSENT, BROKEN, as_json=True)
    report = json.loads(text)
    assert (status, report["ok"], report["v"]) == (1, False, 1)
    assert [f["state"] for f in report["sections"]["parts"]] == ["ok", "absent", "broken"]
    assert report["sections"]["parts"][2]["cure"] == "apt-get install libxcb1"


def test_a_section_that_fails_is_a_finding_and_the_next_one_is_still_looked_at() -> None:
    def fails() -> Iterator[Finding]:
        yield FINE
        raise OSError("libGL.so.1: cannot open shared object file")

    out = io.StringIO()
    status = doctor(out=out, sections=[("first", fails), ("second", lambda: [FINE])])
    assert status == 1
    assert out.getvalue().count("ok      camera") == 2
    assert "BROKEN  examination: OSError: libGL.so.1" in out.getvalue()


def test_every_broken_or_absent_finding_on_this_machine_names_a_cure() -> None:
    for title, look in examination.all_sections(Settings()):
        if title.startswith(("engines", "self-test")):
            continue
        for finding in look():
            assert finding.state == "ok" or finding.cure, (title, finding)


def test_missing_libraries_are_told_as_the_packages_that_bring_them() -> None:
    absent = findings.missing_libraries(lambda name: name != "libGL.so.1", lambda _: False, "linux")
    assert [needed.package for needed in absent] == ["libgl1", "espeak-ng"]
    assert findings.install_command(absent) == "sudo apt-get install libgl1 espeak-ng"


def test_other_platforms_are_not_asked_for_linux_libraries() -> None:
    assert findings.missing_libraries(lambda _: False, lambda _: True, "darwin") == ()


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (ImportError("libxcb.so.1: cannot open shared object file: No such file or directory"), "libxcb1"),
        (OSError("PortAudio library not found"), "libportaudio2"),
        (OSError("libGLESv2.so.2: cannot open shared object file"), "libgles2"),
    ],
)
def test_a_failed_import_is_explained_by_its_package(error: ImportError | OSError, package: str) -> None:
    explained = findings.explain(error)
    assert isinstance(explained, MissingLibrary)
    assert str(explained).endswith(f"apt-get install {package}")


def test_an_import_that_fails_for_another_reason_is_not_explained_away() -> None:
    assert findings.explain(ImportError("No module named 'cv3'")) is None


def test_a_display_that_nobody_serves_is_broken_and_none_at_all_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert [f.state for f in examination.display({"DISPLAY": ":4711"})] == ["broken"]
    assert [f.state for f in examination.display({})] == ["absent"]
    assert [f.state for f in examination.display({"WAYLAND_DISPLAY": "wayland-0"})] == ["ok"]


def test_a_sound_server_counts_only_if_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    place = tmp_path / "pulse" / "native"
    place.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        dead = list(examination.sound_server({"XDG_RUNTIME_DIR": str(tmp_path)}))
        server.listen(1)
        alive = list(examination.sound_server({"XDG_RUNTIME_DIR": str(tmp_path)}))
    assert [f.state for f in dead] == ["absent"]
    assert [(f.name, f.state) for f in alive] == [("PulseAudio", "ok")]


def test_a_damaged_detector_is_broken_and_fetch_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liveaffect.realtime.blazeface import COMMAND, FILES

    monkeypatch.setenv("LIVEAFFECT_FILES", str(tmp_path))
    (tmp_path / FILES[0].name).write_bytes(b"not the file")
    damaged, absent = examination.files(Settings())
    assert (damaged.state, damaged.cure) == ("broken", COMMAND)
    assert "SHA-256" in damaged.detail
    assert (absent.state, absent.cure) == ("broken", COMMAND)


def test_linked_files_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 8192)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert 8192 <= examination.size_of(tmp_path) < 2 * 8192


def test_engines_are_opened_as_a_run_would_and_untrained_ones_say_so() -> None:
    found = list(try_engines(Settings(engine="scripted")))
    assert [f.name for f in found] == ["face", "voice", "fusion"]
    assert all(f.state == "ok" and "no trained network yet" in f.detail for f in found)


def test_a_weights_folder_without_weights_is_broken(tmp_path: Path) -> None:
    assert {f.state for f in try_engines(Settings(weights=str(tmp_path)))} == {"broken"}


class Deaf(ScriptedVoice):
    """Claims to be trained, and hears speech only where there is none."""

    def infer(self, inputs: Tensors) -> Tensors:
        """The answer with `speech` turned round."""
        answer = dict(super().infer(inputs))
        return answer | {"speech": 1.0 - answer["speech"]}


def test_a_trained_voice_engine_that_takes_silence_for_speech_is_broken() -> None:
    from dataclasses import replace

    t = np.arange(16_000) / 16_000
    buzz = (0.3 * np.sign(np.sin(2 * np.pi * 140 * t))).astype(np.float32)
    engine, deaf = ScriptedVoice(), Deaf()
    assert judge_voice(engine, buzz).state == "ok"
    assert "no trained network yet" in judge_voice(engine, buzz).detail
    deaf._spec = replace(deaf.spec, trained=True)
    assert judge_voice(deaf, buzz).state == "broken"


def test_spoken_files_of_any_rate_come_out_at_the_rate_of_the_networks(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes((tone * 16_000).astype("<i2").tobytes())
    samples = read_wav(path)
    assert abs(len(samples) - 16_000) <= 1
    spectrum = np.abs(np.fft.rfft(samples[:16_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1
