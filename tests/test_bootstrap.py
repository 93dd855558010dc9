"""`./bootstrap` does what is missing and nothing else, and never pretends. Every tool is a stand-in here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from liveaffect.findings import LIBRARIES, PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "bootstrap"
SONAMES = "\n".join(f"\t{needed.name} (libc6,x86-64) => /lib/{needed.name}" for needed in LIBRARIES)
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="bootstrap is a POSIX script; Windows has none"
)


@dataclass
class Machine:
    """A checkout that holds nothing but bootstrap, and a PATH of stand-ins that log how they were called."""

    folder: Path

    def __post_init__(self) -> None:
        self.tools.mkdir()
        shutil.copy(SCRIPT, self.folder / "bootstrap")
        for name in ("uv", "apt-get", "espeak-ng"):
            self.put(name, f'echo "{name} $*" >>"{self.log}"')
        self.put("sudo", "exit 1")
        self.put("id", "echo 1000")
        self.put("ldconfig", f"cat <<'END'\n{SONAMES}\nEND")

    @property
    def tools(self) -> Path:
        """The folder of the stand-ins."""
        return self.folder / "tools"

    @property
    def log(self) -> Path:
        """One line for every call of a stand-in."""
        return self.folder / "log"

    def put(self, name: str, script: str) -> None:
        """A stand-in that runs this shell script."""
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, list[str]]:
        """Exit status, what was printed, and the calls."""
        done = subprocess.run(
            [str(self.folder / "bootstrap"), *arguments],
            env={"PATH": f"{self.tools}:/usr/bin:/bin", "HOME": str(self.folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        return done.returncode, done.stdout, calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An ordinary user without sudo, on a machine where everything is installed."""
    return Machine(tmp_path)


def without(soname: str) -> str:
    """An ldconfig that does not know this library."""
    return f"cat <<'END' | grep -v {soname}\n{SONAMES}\nEND"


def test_where_everything_is_there_only_packages_and_files_are_checked(machine: Machine) -> None:
    status, _, calls = machine.run()
    assert status == 0
    assert calls == ["uv sync --inexact --frozen", "uv run --no-sync liveaffect fetch"]


def test_root_gets_the_missing_libraries_installed_after_one_update(machine: Machine) -> None:
    machine.put("id", "echo 0")
    machine.put("ldconfig", without("libGL"))
    status, text, calls = machine.run()
    assert status == 0
    assert "installing system packages: libgl1 libgles2" in text
    assert calls[0].endswith("update")
    assert calls[1].endswith("libgl1 libgles2")
    assert sum("apt-get" in call for call in calls) == 2


def test_an_installation_that_fails_is_not_ready(machine: Machine) -> None:
    machine.put("id", "echo 0")
    machine.put("ldconfig", without("libGL"))
    machine.put("apt-get", "exit 100")
    status, text, _ = machine.run()
    assert status == 1
    assert "apt-get install libgl1 libgles2" in text
    assert "bootstrap: ready" not in text


def test_without_root_and_sudo_the_missing_libraries_are_printed_and_the_status_is_1(
    machine: Machine,
) -> None:
    machine.put("ldconfig", without("libportaudio"))
    status, text, calls = machine.run()
    assert status == 1
    assert "apt-get install libportaudio2        (as root)" in text
    assert "uv run --no-sync liveaffect fetch" in calls, "what this user may do is done all the same"
    assert not any(call.startswith("apt-get") for call in calls)


def test_a_uv_that_path_would_not_find_ends_with_the_export_line(machine: Machine) -> None:
    (machine.tools / "uv").unlink()
    made = machine.folder / ".local/share/liveaffect/uv/bin"
    machine.put(
        "python3",
        f"""case "$*" in
          *venv*) mkdir -p {made} && ln -sf {machine.tools}/venv-python {made}/python ;;
        esac""",
    )
    machine.put("venv-python", f"""echo '#!/bin/bash' >{made}/uv; chmod +x {made}/uv""")
    status, text, _ = machine.run()
    assert status == 1
    assert f'export PATH="$PATH:{machine.folder}/.local/bin"' in text
    assert (machine.folder / ".local/bin/uv").resolve() == made / "uv"
    status, text, _ = machine.run(PATH=f"{machine.tools}:/usr/bin:/bin:{machine.folder}/.local/bin")
    assert status == 0, text


def test_a_uv_that_cannot_be_downloaded_is_not_ready(machine: Machine) -> None:
    (machine.tools / "uv").unlink()
    machine.put("python3", '[ "$1" = -c ]')
    status, text, _ = machine.run()
    assert status == 1
    assert "install uv        (it could not be installed" in text
    assert "bootstrap: ready" not in text


def test_another_package_index_is_not_bypassed_by_the_addresses_in_the_lock(machine: Machine) -> None:
    _, _, calls = machine.run(UV_DEFAULT_INDEX="https://index.example/simple")
    assert calls[0] == "uv sync --inexact"


def test_a_python_that_does_not_start_is_passed_over(machine: Machine) -> None:
    machine.put("uv", f'echo "python $UV_PYTHON" >>"{machine.log}"')
    machine.put("python3", "exit 127")
    machine.put("python3.11", "echo /opt/python3.11")
    assert machine.run()[2][0] == "python /opt/python3.11"


def test_a_failed_download_is_not_ready(machine: Machine) -> None:
    machine.put("uv", '[ "$1" != run ]')
    status, text, _ = machine.run()
    assert status != 0
    assert "bootstrap: ready" not in text


def test_missing_packages_can_be_asked_for(machine: Machine) -> None:
    machine.put("ldconfig", without("libportaudio"))
    assert machine.run("--missing") == (0, "libportaudio2\n", [])


def test_bootstrap_and_doctor_know_the_same_system_packages() -> None:
    pairs = set(re.findall(r'^ {2}"(\S+) (\S+)"$', SCRIPT.read_text(), re.MULTILINE))
    assert pairs == {(needed.name, needed.package) for needed in LIBRARIES}
    programs = re.search(r'^programs=\("(\S+) (\S+)"\)$', SCRIPT.read_text(), re.MULTILINE)
    assert programs is not None
    assert {programs.groups()} == {(needed.name, needed.package) for needed in PROGRAMS}


def test_the_scripts_are_executable_and_parse() -> None:
    for name in ("bootstrap", ".ci/run", ".ci/bare-debian"):
        assert os.access(ROOT / name, os.X_OK), name
        subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
