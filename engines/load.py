"""The only module that knows which back ends there are, and which of them is used here.

`auto` takes the best one that really works: it opens the file, runs it, compares INT8 with fp32 in
answers and in processor time on this very machine, and says in one line what it took and why nothing
better. It never hides damage: a file that is there and does not fit is refused, not stepped over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines import gpu_driver, manifest, probe, stopwatch
from engines.manifest import SHIPPED, Manifest, RecipeNumbers
from engines.protocol import Engine, EngineFileError, EngineUnavailable, Tensors

CHOICES = ("auto", "tensorrt", "onnx-int8", "onnx", "torch", "scripted")
LEAST_COSINE = 0.9
"""Below this INT8 does not answer like fp32 on this machine and is not used."""
ROUNDS = 5

Report = Callable[[str], None]
_log = logging.getLogger(__name__)


def load(
    kind: str,
    *,
    choice: str = "auto",
    weights: Path | None = None,
    threads: int = 1,
    require_gpu: bool = False,
    report: Report = _log.info,
) -> Engine:
    """An engine for 'face', 'voice' or 'fusion', warm and ready.

    `weights` is a folder with `<kind>.json` or that file; None means the weights of the package. Fusion
    is tiny and runs in fp32 on the CPU whatever is asked for. `report` gets one line about what was taken.
    Raises EngineFileError for missing or damaged files, EngineUnavailable for a back end that cannot work.
    """
    _check(kind, choice)
    if kind == "fusion":
        choice = "onnx" if choice in ("tensorrt", "onnx-int8") else choice
    elif require_gpu or choice == "tensorrt":
        raise EngineUnavailable(f"the {kind} network cannot run on a GPU here: {why_no_tensorrt()}")
    if choice == "scripted":
        report(f"{kind}: scripted rules, as asked for; no network was trained for this")
        return _scripted(kind)
    path = manifest_path(kind, weights)
    if choice == "auto" and weights is None and not path.exists():
        report(f"{kind}: scripted rules stand in, because no weights are installed in {path.parent}")
        return _scripted(kind)
    found = manifest.read(path)
    if found.kind != kind:
        raise EngineFileError(f"{path} describes a {found.kind} network, wanted is a {kind} network")
    engine, why = _opened(found, path.parent, choice, threads)
    report(f"{kind}: '{engine.spec.name}'{why}")
    return engine


def recipe_numbers(kind: str, *, choice: str = "auto", weights: Path | None = None) -> RecipeNumbers:
    """Piece, hop and evidence of the network that `load` would open, for the planner."""
    _check(kind, choice)
    path = manifest_path(kind, weights)
    if choice == "scripted" or (choice == "auto" and weights is None and not path.exists()):
        return manifest.describe(kind, "scripted").recipe
    return manifest.read(path).recipe


def manifest_path(kind: str, weights: Path | None = None) -> Path:
    """Where the manifest of one kind lies or should lie."""
    if weights is not None and weights.suffix == ".json":
        return weights
    return (weights or SHIPPED) / f"{kind}.json"


def why_no_tensorrt() -> str:
    """Why TensorRT is not taken, in a few words."""
    return (
        gpu_driver.why_no_tensorrt()
        or "this version has no TensorRT engine yet, it arrives with the GPU path"
    )


def _check(kind: str, choice: str) -> None:
    if kind not in manifest.KINDS:
        raise ValueError(f"no kind of network '{kind}'; known are {', '.join(manifest.KINDS)}")
    if choice not in CHOICES:
        raise EngineUnavailable(f"no engine '{choice}'; known are {', '.join(CHOICES)}")


def _opened(found: Manifest, folder: Path, choice: str, threads: int) -> tuple[Engine, str]:
    """The engine, warm, and what to say about it."""
    if choice == "torch":
        engine: Engine = _torch(found, folder)
        why = ", the reference; slower than every other"
    elif choice == "auto" and found.kind != "fusion":
        return _best(found, folder, threads)
    else:
        engine = _onnx(found, folder, "int8" if choice == "onnx-int8" else "fp32", threads)
        why = ""
    engine.warm_up()
    return engine, why


def _best(found: Manifest, folder: Path, threads: int) -> tuple[Engine, str]:
    """INT8 if it answers like fp32 and is faster here, else fp32; TensorRT once there is one."""
    not_taken = f"not TensorRT: {why_no_tensorrt()}"
    fp32 = _onnx(found, folder, "fp32", threads)
    fp32.warm_up()
    if not found.has("int8"):
        return fp32, f"; not INT8: there is no such file; {not_taken}"
    int8 = _onnx(found, folder, "int8", threads)
    int8.warm_up()
    batch = probe.inputs(found.kind, 1, piece=found.recipe.piece)
    alike = _cosine(fp32.infer(batch), int8.infer(batch))
    if alike < LEAST_COSINE:
        int8.close()
        return fp32, f"; not INT8: its answers differ from fp32 here (cosine {alike:.2f}); {not_taken}"
    fp32_ns, int8_ns = stopwatch.median_ns(
        [lambda: fp32.infer(batch), lambda: int8.infer(batch)], rounds=ROUNDS
    )
    figures = f"{int8_ns / 1e6:.2f} ms in INT8, {fp32_ns / 1e6:.2f} ms in fp32"
    taken, left = (int8, fp32) if int8_ns < fp32_ns else (fp32, int8)
    left.close()
    return taken, f", the faster here ({figures}); {not_taken}"


def _cosine(wanted: Tensors, given: Tensors) -> float:
    a, b = wanted["vector"].ravel().astype(np.float64), given["vector"].ravel().astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def _onnx(found: Manifest, folder: Path, precision: str, threads: int) -> Engine:
    try:
        from engines.onnx_engine import OnnxEngine
    except ImportError as err:
        raise EngineUnavailable(f"ONNX Runtime cannot be used: {err}; pip install onnxruntime") from err
    if manifest.file_name(found.kind, precision) not in found.files:
        raise EngineFileError(
            f"the {found.kind} network in {folder} comes without an {precision.upper()} file; "
            "use --engine onnx, or auto, which takes what is there"
        )
    return OnnxEngine(found, folder, precision, threads=threads)


def _torch(found: Manifest, folder: Path) -> Engine:
    try:
        from engines.torch_engine import open_weights
    except ImportError as err:
        raise EngineUnavailable(f"torch cannot be used: {err}; pip install 'liveaffect[train]'") from err
    return open_weights(found, folder)


def _scripted(kind: str) -> Engine:
    from engines import scripted_engine

    makers: dict[str, Callable[[], Engine]] = {
        "face": scripted_engine.ScriptedFace,
        "voice": scripted_engine.ScriptedVoice,
        "fusion": scripted_engine.ScriptedFusion,
    }
    return makers[kind]()
