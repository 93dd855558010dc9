"""What does it save that a crop and a piece of sound pass their network only once?

    uv run python benchmarks/bench_incremental.py [--weights DIR] [--write]

Incremental is what the live path does: the newest item through the network, then pooling over what is
remembered. Recomputed is what the published system does: every item of the window through the network
again. Both in turns in one run, processor time; without weights the networks are random ones of the live
presets, exported for the occasion, which needs the extra `train`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import compare_calls

from liveaffect.engines import parity
from liveaffect.engines.load import load
from liveaffect.engines.protocol import Engine, Tensors
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime import expression
from liveaffect.realtime.clock import SECOND
from liveaffect.realtime.expression import Dynamics, Evidence, Memory, pool

FACE_STEP_NS = SECOND // 30
VOICE_STEP_NS = 6_400 * SECOND // SAMPLE_RATE


def evidence(answer: Tensors, row: int, at_ns: int) -> Evidence:
    """One row of an engine's answer."""
    return Evidence(at_ns, answer["vector"][row], answer["logits"][row], float(answer["score"][row, 0]))


def compare(kind: str, engine: Engine, dynamics: Dynamics, window_ns: int, step_ns: int) -> None:
    """One modality both ways."""
    count = window_ns // step_ns
    inputs = parity.for_tensors(kind, count, engine.spec.inputs)
    one = {name: array[:1] for name, array in inputs.items()}
    parts = parity.split(inputs, (16,))
    memory = Memory(dynamics)
    clock = iter(range(0, 10**18, step_ns))

    def incremental() -> None:
        now_ns = next(clock)
        memory.add(evidence(engine.infer(one), 0, now_ns), step_ns)
        memory.read()

    def recomputed() -> None:
        answers = [engine.infer(part) for part in parts]
        items = [evidence(answer, i, 0) for answer in answers for i in range(len(answer["score"]))]
        pool(items, None)

    for _ in range(count):
        incremental()
    name = f"incremental/{kind}/{engine.spec.name}/window of {count}"
    calls = {f"{name}/recomputed": recomputed, f"{name}/incremental": incremental}
    for result in compare_calls(calls, rounds=60).values():
        result.print_json()


def main() -> None:
    """Face and voice, fp32 and, where there is a file, INT8."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.weights or Path(scratch)
        for kind, preset, dynamics, window_ns, step_ns in (
            ("face", "live", expression.FACE, 2 * SECOND, FACE_STEP_NS),
            ("voice", "student", expression.VOICE, 4 * SECOND, VOICE_STEP_NS),
        ):
            if given.weights is None:
                from liveaffect.engines.build.export_onnx import export

                export(kind, preset, folder)
            compare(kind, load(kind, choice="onnx", weights=folder), dynamics, window_ns, step_ns)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
