"""`liveaffect calibrate report`: gathers what other commands measured and writes one page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from liveaffect.calibration.report import Network, OffsetOfPair, Sources, html
from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import manifest_path
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.realtime.clock import MS
from liveaffect.realtime.device_pairs import load_pairs
from liveaffect.realtime.errors import CalibrationRefused

RESULTS = Path("docs") / "results"


def write(out: Path, results: Path, weights: Path | None, say: Callable[[str], None]) -> None:
    """Write the page. What is damaged is said and shown as missing."""
    networks = []
    for kind in manifests.KINDS:
        path = manifest_path(kind, weights)
        if not path.exists():
            continue
        try:
            found = manifests.read(path)
        except EngineFileError as err:
            say(f"left out: {err}")
            continue
        sums = ", ".join(f"{name} {digest[:12]}" for name, digest in found.files.items())
        networks.append(Network(found.name, sums))
    try:
        pairs = [
            OffsetOfPair(
                f"{pair.camera} with {pair.microphone}",
                pair.offset_ns / MS,
                f"{pair.method}, confidence {pair.confidence:.2f}",
            )
            for pair in load_pairs()
        ]
    except CalibrationRefused as err:
        say(f"left out: {err}")
        pairs = []
    if not pairs and not (results.is_dir() and any(results.iterdir())):
        raise CalibrationRefused(
            f"there is nothing to report: no tables in {results}, and no offset was measured. Measure first "
            "(liveaffect calibrate confidence, int8, av), or name the folder: --results DIR"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, html(Sources(results, networks, pairs)).encode())
    say(f"written: {out}")
