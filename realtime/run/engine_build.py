"""`liveaffect build`: the faster forms of the networks in a folder of weights.

INT8 is made here from the fp32 file. Plans for TensorRT are not made yet, and asking for one says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines import probe
from engines.load import manifest_path, recipe_numbers
from engines.manifest import KINDS
from engines.protocol import EngineUnavailable

CALIBRATION_ITEMS = 64
BATCH = 8
PLANS = ("fp32", "fp16")


def build(precisions: Sequence[str], weights: Path | None) -> Iterator[str]:
    """Build every precision for every network that is there; one line for each file."""
    for precision in precisions:
        if precision in PLANS:
            raise EngineUnavailable(
                f"{precision} plans are built by TensorRT, and this version has no TensorRT engine yet; "
                "the fp32 ONNX file runs as it is, and --precision int8 works"
            )
        if precision != "int8":
            raise EngineUnavailable(f"no precision '{precision}'; known are int8, fp32, fp16")
    found = [kind for kind in KINDS if manifest_path(kind, weights).exists()]
    if not found:
        raise EngineUnavailable(
            f"there are no weights in {manifest_path('face', weights).parent} to build from"
        )
    for kind in found:
        if kind == "fusion":
            yield "fusion: stays fp32, it is too small to gain anything"
            continue
        yield f"{kind}: {_int8(kind, weights)} (calibrated on made-up inputs)"


def _int8(kind: str, weights: Path | None) -> Path:
    from engines.build.quantize import quantize

    piece = recipe_numbers(kind, weights=weights).piece
    inputs = probe.inputs(kind, CALIBRATION_ITEMS, piece=piece)
    return quantize(manifest_path(kind, weights), probe.split(inputs, (BATCH,)))
