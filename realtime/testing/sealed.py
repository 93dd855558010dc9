"""Runs a program where there is no network at all, and tells what it would have sent and what it left behind.

The program gets a network namespace of its own with nothing but loopback, a resolver there that writes down
every name it is asked for, and an empty home. What it tries to send is seen by the kernel's counters,
whatever library it comes from and however it is hidden. Needs Linux, and either root or user namespaces.

Run as a module, it is the inner half: it prepares the namespace and starts the program in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGES = "util-linux (unshare, mount)"
_RESOLVER = ("127.0.0.1", 53)
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40
_COUNTED = {
    "Tcp": ("ActiveOpens",),
    "Udp": ("OutDatagrams",),
    "Ip": ("OutNoRoutes",),
}
"""What rises when a program connects, sends, or names an address that no route leads to."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What a program did."""

    code: int
    out: str
    err: str
    asked: tuple[str, ...]
    """Names that it wanted to be looked up."""
    sent: Mapping[str, int]
    """Attempts to reach anybody, by the kernel's name for them; only those that were made."""
    left: tuple[str, ...]
    """Files in its home when it ended."""


def missing() -> str | None:
    """Why nothing can be sealed here, or None."""
    if not sys.platform.startswith("linux"):
        return "needs the network namespaces of Linux; this is not Windows' or macOS' way"
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return f"needs {_PACKAGES}"
    tried = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return (
        f"this system's hardware or container allows no namespace: {tried.stderr}"
        if tried.returncode
        else None
    )


def sealed(
    command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None, timeout_s: float = 300.0
) -> Witness:
    """Run it with `folder` as its working folder and an empty home of its own; `environ` is added."""
    with tempfile.TemporaryDirectory(prefix="sealed") as place:
        home, notes = Path(place) / "home", Path(place) / "notes.json"
        home.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_", "HF_"))}
        ran = subprocess.run(
            [*_unshare(), sys.executable, "-m", "liveaffect.realtime.testing.sealed", str(notes), *command],
            cwd=folder,
            env={**kept, "HOME": str(home), "TMPDIR": place, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        found: dict[str, Any] = {"asked": [], "sent": {"no notes": 1}}
        if notes.exists():
            found = json.loads(notes.read_text())
        left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    return Witness(ran.returncode, ran.stdout, ran.stderr, tuple(found["asked"]), found["sent"], tuple(left))


def _unshare() -> list[str]:
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    return ["unshare", "--net", "--mount", *as_root]


class _Resolver(threading.Thread):
    """Writes down every name and says that it does not exist."""

    def __init__(self) -> None:
        super().__init__(name="resolver", daemon=True)
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(_RESOLVER)

    def run(self) -> None:
        """Answer until the process ends."""
        while True:
            query, caller = self._socket.recvfrom(4096)
            self.asked.append(_name_in(query))
            no_such_name = struct.pack("!HHHHHH", struct.unpack("!H", query[:2])[0], 0x8183, 1, 0, 0, 0)
            self._socket.sendto(no_such_name + query[12:], caller)


def _name_in(query: bytes) -> str:
    parts, at = [], 12
    while at < len(query) and (length := query[at]):
        parts.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(parts)


def _counters() -> dict[str, int]:
    found = {}
    lines = Path("/proc/net/snmp").read_text("ascii").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        kind, *columns = names.replace(":", "").split()
        row = dict(zip(columns, values.split()[1:], strict=True))
        found.update({f"{kind} {name}": int(row[name]) for name in _COUNTED.get(kind, ())})
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/snmp6").read_text("ascii").splitlines():
            name, value = line.split()
            if name in ("Ip6OutNoRoutes", "Udp6OutDatagrams"):
                found[name] = int(value)
    return found


def _inside(notes: Path, command: Sequence[str]) -> int:
    """In the namespace: loopback up, our resolver the only one, then the program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    own = notes.with_name("resolv.conf")
    own.write_text(f"nameserver {_RESOLVER[0]}\noptions attempts:1 timeout:1\n")
    subprocess.run(["mount", "--bind", str(own), os.path.realpath("/etc/resolv.conf")], check=True)
    resolver = _Resolver()
    resolver.start()
    before = _counters()
    code = subprocess.run(command, check=False).returncode
    after = _counters()
    sent = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    notes.write_text(json.dumps({"asked": resolver.asked, "sent": sent}))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_inside(Path(sys.argv[1]), sys.argv[2:]))
