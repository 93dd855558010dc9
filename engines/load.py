"""The only module that knows which back ends there are, and which of them and which voice are used here.

`auto` takes the best one that really works, in the order TensorRT, TensorRT-RTX, torch on a GPU, ONNX
Runtime: it opens the file, runs it, compares it with fp32 in answers on this very machine, and says in one
line what it took and why nothing better. It never hides damage: a weight file that is there and does not fit
is refused.

Of the two voice networks the small one is always there. Files can wait, so they get the full one wherever
Whisper is; live takes it where this very machine carries it, which is measured, not guessed from a name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from liveaffect.engines import gpu_driver, manifest, parity, stopwatch, whisper
from liveaffect.engines.fallback import FallbackEngine
from liveaffect.engines.manifest import SHIPPED, Manifest, RecipeNumbers
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.protocol import Engine, EngineError, EngineFileError, EngineUnavailable
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.triton_engine import TritonEngine, names_servers, servers_of

CHOICES = ("auto", "tensorrt", "torch-gpu", "onnx-int8", "onnx", "torch", "scripted")
ON_THE_GPU = ("face", "voice")
"""Fusion is too small to be worth the way there."""
GPU_CHOICES = ("tensorrt", "torch-gpu")
ITEMS = 16
"""Made-up inputs on which INT8 is compared with fp32."""
ROUNDS = 5

Report = Callable[[str], None]
_log = logging.getLogger(__name__)
VOICES = ("auto", "small", "full")
FULL = "full"
"""The folder beside the small network's files that holds the full one's, and a fusion of its own."""
MOST_OF_A_CORE = 0.15
"""A live machine carries the full network if it takes no larger share of a core than this."""


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
    is tiny and runs in fp32 on the CPU whatever is asked for. 'tensorrt', 'torch-gpu' and `require_gpu` build
    what is missing before anything else, and a required GPU is never replaced, not even when it is lost.
    `report` gets one line about what was taken.
    Raises EngineFileError for missing or damaged files, EngineUnavailable for a back end that cannot work.
    """
    _refuse_unknown(kind, choice)
    if names_servers(choice):
        if require_gpu:
            raise EngineUnavailable(
                "a required GPU is one of this machine: leave out --require-gpu with triton://"
            )
        return _on_servers(kind, choice, weights, threads, report)
    wants_gpu = kind in ON_THE_GPU and (require_gpu or choice in GPU_CHOICES)
    if kind not in ON_THE_GPU:
        choice = "onnx" if choice in (*GPU_CHOICES, "onnx-int8") else choice
    elif wants_gpu and (why := why_not_on_gpu(choice)) is not None:
        raise EngineUnavailable(f"the {kind} network cannot run on a GPU here: {why}")
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
    if wants_gpu:
        engine, why = _on_gpu(found, path.parent, choice, threads, report)
        engine = (
            engine
            if require_gpu
            else FallbackEngine(engine, lambda: _best_on_cpu(found, path.parent, threads)[0], report=report)
        )
    elif choice == "auto" and kind in ON_THE_GPU:
        engine, why = _best_backend(found, path.parent, threads, report)
    else:
        engine, why = _opened_engine(found, path.parent, choice, threads)
    report(f"{kind}: '{engine.spec.name}'{why}")
    return engine


def recipe_numbers(kind: str, *, choice: str = "auto", weights: Path | None = None) -> RecipeNumbers:
    """Piece, hop and evidence of the network that `load` would open, for the planner."""
    _refuse_unknown(kind, choice)
    path = manifest_path(kind, weights)
    if names_servers(choice):
        return manifest.read(path).recipe
    if choice == "scripted" or (choice == "auto" and weights is None and not path.exists()):
        return manifest.describe(kind, "scripted").recipe
    return manifest.read(path).recipe


def manifest_path(kind: str, weights: Path | None = None) -> Path:
    """Where the manifest of one kind lies or should lie."""
    if weights is not None and weights.suffix == ".json":
        return weights
    return (weights or SHIPPED) / f"{kind}.json"


def why_not_on_gpu(choice: str = "auto") -> str | None:
    """Why a GPU cannot be used here by TensorRT, by torch or, for 'auto', by either; None if it can."""
    if why := gpu_driver.why_no_gpu():
        return why
    from liveaffect.engines import gpu_load

    tensorrt = None if choice == "torch-gpu" else gpu_load.why_no_tensorrt()
    torch = None if choice == "tensorrt" else gpu_load.why_no_torch()
    if choice in GPU_CHOICES:
        return tensorrt or torch
    return f"{tensorrt}; {torch}" if tensorrt and torch else None


def _refuse_unknown(kind: str, choice: str) -> None:
    if kind not in manifest.KINDS:
        raise ValueError(f"no kind of network '{kind}'; known are {', '.join(manifest.KINDS)}")
    if choice not in CHOICES and not names_servers(choice):
        raise EngineUnavailable(
            f"no engine '{choice}'; known are {', '.join(CHOICES)}, and triton://HOST:PORT"
        )


def _on_servers(kind: str, choice: str, weights: Path | None, threads: int, report: Report) -> Engine:
    """Faces on Triton servers, sound too where it may leave this machine; everything else here."""
    servers = servers_of(choice)
    path = manifest_path(kind, weights)
    if kind == "fusion" or (kind == "voice" and not servers.send_sound):
        return load(kind, weights=weights, threads=threads, report=report)
    found = manifest.read(path)
    if found.foreign:
        report(f"{kind}: '{found.name}' takes tensors from a file that is not ours, so it stays here")
        return load(kind, weights=weights, threads=threads, report=report)
    engine = TritonEngine(found, servers, _best_on_cpu(found, path.parent, threads)[0], report=report)
    report(f"{kind}: '{engine.spec.name}' on {', '.join(map(str, servers.addresses))}")
    return engine


def _opened_engine(found: Manifest, folder: Path, choice: str, threads: int) -> tuple[Engine, str]:
    """The engine that was chosen, warm, and what to say about it."""
    if choice == "torch":
        engine: Engine = _torch(found, folder)
        why = ", the reference; slower than every other"
    else:
        engine = _onnx(found, folder, "int8" if choice == "onnx-int8" else "fp32", threads)
        why = ""
    engine.warm_up()
    return engine, why


def _best_backend(found: Manifest, folder: Path, threads: int, report: Report) -> tuple[Engine, str]:
    """The GPU where it has a plan that answers right, else the CPU; the other one stands behind it.

    What a GPU lacks, a plan or torch with its graphs, takes seconds to make ready: the engine then says that
    it wants the GPU, and a live run makes it ready meanwhile.
    """
    if why_not := why_not_on_gpu():
        engine, why = _best_on_cpu(found, folder, threads)
        return engine, f"{why}; not on a GPU: {why_not}"
    from liveaffect.engines import gpu_load
    from liveaffect.engines.plans import PlanMissing

    reference = _warm_fp32(found, folder, threads)
    try:
        on_gpu, why = gpu_load.open_best(found, reference, gpu_load.find_tools(), report)
    except EngineError as err:
        why_not = str(err)
        wants_gpu = isinstance(err, PlanMissing) or gpu_load.why_no_torch() is None
    else:
        return FallbackEngine(on_gpu, lambda: _best_on_cpu(found, folder, threads)[0], report=report), why
    finally:
        reference.close()
    engine, why = _best_on_cpu(found, folder, threads)
    return FallbackEngine(engine, wants_gpu=wants_gpu, report=report), f"{why}; not TensorRT yet: {why_not}"


def _on_gpu(found: Manifest, folder: Path, choice: str, threads: int, report: Report) -> tuple[Engine, str]:
    """The way that was chosen, or the best one, after building what is missing."""
    from liveaffect.engines import gpu_load

    reference = _warm_fp32(found, folder, threads)
    try:
        if choice == "torch-gpu":
            return gpu_load.best_torch(found, folder, reference)[:2]
        if choice == "tensorrt":
            tools = gpu_load.find_tools()
            gpu_load.build_plans(found, folder, tools, report)
            return gpu_load.open_best(found, reference, tools, report)
        engine, why, _ = gpu_load.open_any(found, folder, reference, report)
        return engine, why
    finally:
        reference.close()


def _best_on_cpu(found: Manifest, folder: Path, threads: int) -> tuple[Engine, str]:
    """INT8 if it answers like fp32 and is faster here, else fp32."""

    fp32 = _warm_fp32(found, folder, threads)
    if not found.has("int8"):
        return fp32, "; not INT8: there is no such file"
    int8 = _onnx(found, folder, "int8", threads)
    int8.warm_up()
    inputs = parity.inputs(found.kind, ITEMS, piece=found.recipe.piece, statistics=found.recipe.statistics)
    compared = parity.compare(fp32, int8, inputs, tolerance=parity.FOLLOWS)
    if not compared.alike:
        int8.close()
        return fp32, f"; not INT8: its answers differ from fp32 here ({'; '.join(compared.complaints)})"
    batch = parity.inputs(found.kind, 1, piece=found.recipe.piece, statistics=found.recipe.statistics)
    fp32_ns, int8_ns = stopwatch.median_ns(
        [lambda: fp32.infer(batch), lambda: int8.infer(batch)], rounds=ROUNDS
    )
    figures = f"{int8_ns / 1e6:.2f} ms in INT8, {fp32_ns / 1e6:.2f} ms in fp32"
    taken, left = (int8, fp32) if int8_ns < fp32_ns else (fp32, int8)
    left.close()
    return taken, f", the faster here ({figures})"


def _warm_fp32(found: Manifest, folder: Path, threads: int) -> Engine:
    engine = _onnx(found, folder, "fp32", threads)
    engine.warm_up()
    return engine


def _onnx(found: Manifest, folder: Path, precision: str, threads: int) -> Engine:
    try:
        from liveaffect.engines.onnx_engine import OnnxEngine
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
        from liveaffect.engines.torch_engine import open_weights
    except ImportError as err:
        raise EngineUnavailable(f"torch cannot be used: {err}; pip install 'liveaffect[train]'") from err
    return open_weights(found, folder)


def _scripted(kind: str) -> Engine:
    from liveaffect.engines import scripted_engine

    makers: dict[str, Callable[[], Engine]] = {
        "face": scripted_engine.ScriptedFace,
        "voice": scripted_engine.ScriptedVoice,
        "fusion": scripted_engine.ScriptedFusion,
    }
    return makers[kind]()


def full_folder(weights: Path | None = None) -> Path:
    """Where the full voice lies beside other networks, whether or not it can be used here."""
    return (weights or SHIPPED) / FULL


def voice_folder(
    choice: str, weights: Path | None = None, *, live: bool = False, threads: int = 1, report: Report
) -> Path | None:
    """Where the full voice is, if it is to be used; None for the small one. `report` gets why.

    Raises EngineFileError when the full one was asked for and cannot be had.
    """
    if choice not in VOICES:
        raise ValueError(f"no voice '{choice}'; known are {', '.join(VOICES)}")
    folder = full_folder(weights)
    if choice == "small" or (weights is not None and weights.suffix == ".json"):
        return None
    path = manifest_path("voice", folder)
    if not path.is_file():
        if choice == "full":
            raise EngineFileError(f"there is no full voice network in {folder}; use --voice small")
        return None
    found = manifest.read(path)
    if why := whisper.why_not(found):
        if choice == "full":
            raise EngineFileError(f"the full voice cannot be used: {why}")
        report(f"voice: the small one; not the full one: {why}")
        return None
    if choice == "auto" and not found.confidence:
        return None  # Whatever its recall, nobody could say how far to believe it.
    if choice == "auto" and live and (share := _share(found, folder, threads)) > MOST_OF_A_CORE:
        report(f"voice: the small one; the full one would take {share:.0%} of a core here")
        return None
    return folder


def folders_of(weights: Path | None, full: Path | None) -> dict[str, Path | None]:
    """Where the manifest of each kind is: the full voice has a folder and a fusion of its own."""
    return {"face": weights, "voice": full or weights, "fusion": full or weights}


def _share(found: manifest.Manifest, folder: Path, threads: int) -> float:
    """Of a core, by the time of a piece and the time between two."""
    engine = OnnxEngine(found, folder, threads=threads)
    engine.warm_up()
    batch = parity.inputs("voice", 1, piece=found.recipe.piece, statistics=found.recipe.statistics)
    (spent_ns,) = stopwatch.median_ns([lambda: engine.infer(batch)], rounds=ROUNDS)
    engine.close()
    return spent_ns * 1e-9 * SAMPLE_RATE / found.recipe.hop
