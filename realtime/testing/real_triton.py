"""The real `tritonserver` that the package `nvidia-pytriton` carries, started by tests and measurements.

It wants NumPy 1 and Debian's own Python with its shared library, so it gets an environment of its own in the
user's cache, made once. The server has Triton's Python back end and no other: repositories for it are written
with `--backend python`.

    python -m liveaffect.realtime.testing.real_triton                      makes the environment
    python -m liveaffect.realtime.testing.real_triton MODELS PORT [...]    is the server
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from liveaffect.engines.user_folders import cache_dir

PACKAGES = ("nvidia-pytriton==0.7.0", "numpy<2", "onnxruntime")
PYTHON = Path("/usr/bin/python3.11")
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0")


class TritonMissing(Exception):
    """The server cannot run on this machine; says what it lacks."""


def free_port() -> int:
    """A port of loopback that nobody holds at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def environment() -> Path:
    """The server's environment, made on the first call. Raises TritonMissing."""
    if not PYTHON.exists() or not LIBRARY.exists():
        raise TritonMissing(
            f"Triton's Python back end needs {PYTHON} and {LIBRARY}: apt install libpython3.11"
        )
    home = cache_dir() / "tritonserver"
    done = home / "complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != "\n".join(PACKAGES):
            shutil.rmtree(home, ignore_errors=True)
            _install(home)
            done.write_text("\n".join(PACKAGES))
    return home


def _install(home: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise TritonMissing("the environment of the server is made by uv, which is not here")
    for command in (
        [uv, "venv", "--quiet", "--python", str(PYTHON), str(home)],
        [uv, "pip", "install", "--quiet", "--python", str(home), "--no-deps", PACKAGES[0]],
        [uv, "pip", "install", "--quiet", "--python", str(home), *PACKAGES[1:]],
    ):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise TritonMissing(f"'{' '.join(command)}' failed: {run.stderr.strip()[-400:]}")


def make_certificate(folder: Path, name: str, *addresses: str) -> dict[str, str]:
    """One that signs itself, for these addresses; tritonserver's arguments for it. Clients trust NAME.pem."""
    names = ",".join(f"IP:{address}" for address in addresses)
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=triton "
        f"-keyout {name}.key -out {name}.pem -addext subjectAltName={names}".split(),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    given = {"use-ssl": "true", "server-cert": folder / f"{name}.pem", "server-key": folder / f"{name}.key"}
    return {f"--grpc-{what}": str(value) for what, value in given.items()}


class RealTriton:
    """One server process on a port; `start` and `kill` any number of times."""

    def __init__(self, repository: Path, port: int, *, folder: Path, arguments: Sequence[str] = ()) -> None:
        """`arguments` are further ones of tritonserver's; logs go to `folder`."""
        self.port = port
        self._log = folder / f"tritonserver-{port}.log"
        self._run: subprocess.Popen[bytes] | None = None
        home = environment()
        packages = home / "lib" / "python3.11" / "site-packages"
        root = packages / "pytriton" / "tritonserver"
        self._backends = _with_stub(root, folder)
        self._command = [
            str(root / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={self._backends}",
            f"--grpc-port={port}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=1",
            *arguments,
        ]
        # The back end looks for its Python on the path, and finds its packages by that alone.
        self._environment = {
            **os.environ,
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
            "OMP_NUM_THREADS": "1",
        }
        self._environment.pop("VIRTUAL_ENV", None)

    def start(self, prefix: Sequence[str] = ()) -> None:
        """Begin; returns at once. `prefix` is a command that runs it elsewhere, such as in a namespace."""
        with open(self._log, "ab") as log:
            self._run = subprocess.Popen(
                [*prefix, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """A signal to the server and its back ends."""
        assert self._run is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._run.pid, number)

    @property
    def ended(self) -> bool:
        """Whether it was started and went away by itself, which a supervisor would answer by a new start."""
        return self._run is not None and self._run.poll() is not None

    def cpu_s(self) -> float:
        """Processor time of the server and its back ends so far."""
        assert self._run is not None
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._run.pid:  # the group of the server, which began it
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it as a power cut would. Safe to call twice."""
        if self._run is not None:
            self.send(9)
            self._run.wait()
            self._run = None

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _with_stub(root: Path, folder: Path) -> Path:
    """The back ends with the stub for this Python at its place, by links."""
    backends = folder / "backends" / "python"
    backends.mkdir(parents=True, exist_ok=True)
    stub = root / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    for source in (*(root / "backends" / "python").glob("*.*"), stub):
        link = backends / source.name
        if not link.exists():
            link.symlink_to(source)
    return backends.parent


def be_a_server() -> None:
    """In the place of this process, so that signals reach it."""
    home = environment()
    if len(sys.argv) < 3:
        sys.stdout.write(f"tritonserver is in {home}\n")
        return
    server = RealTriton(
        Path(sys.argv[1]).resolve(), int(sys.argv[2]), folder=home / "served", arguments=sys.argv[3:]
    )
    os.execve(server._command[0], server._command, server._environment)


if __name__ == "__main__":
    be_a_server()
