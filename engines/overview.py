"""What of the networks there is on this machine (`engines list`), and making what is missing (`build`).

INT8 files are for the CPU and for TensorRT alike; one that is there and whole is kept. Plans are for TensorRT
and lie in the user's cache; those that fit are kept, so that `build` can be given again at any time. The list
says why a back end does not work here, and what is wrong with plans that no run here would take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from liveaffect.engines import gpu_driver, manifest, parity, plans, whisper
from liveaffect.engines.gpu_driver import Backend, Gpu, find_backend
from liveaffect.engines.load import CHOICES, GPU_CHOICES, ON_THE_GPU, full_folder, load, manifest_path
from liveaffect.engines.manifest import KINDS
from liveaffect.engines.parity import EXACT, ITEMS, QUANTISED, Report, Tolerance, compare
from liveaffect.engines.plans import PORTABLE, PRECISIONS, PlanKey, StoredPlan
from liveaffect.engines.protocol import Engine, EngineError, EngineFileError, EngineUnavailable
from liveaffect.engines.stopwatch import epoch_s

CALIBRATION_ITEMS = 64
BATCH = 8
Say = Callable[[str], None]


def build_forms(precisions: Sequence[str], weights: Path | None, report: Say) -> None:
    """Build every precision for every network that is there, with a line for each step.

    Raises EngineUnavailable for a precision that there is not, or for plans without TensorRT; and at the end,
    after everything else was built, if something could not be.
    """
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise EngineUnavailable(f"no precision '{', '.join(unknown)}'; known are {', '.join(PRECISIONS)}")
    found = [kind for kind in KINDS if manifest_path(kind, weights).exists()]
    if not found:
        raise EngineUnavailable(
            f"there are no weights in {manifest_path('face', weights).parent} to build from"
        )
    if "fusion" in found:
        report("fusion: stays fp32 on the CPU, it is too small to gain anything")
    found = [kind for kind in found if kind in ON_THE_GPU]
    if "int8" in precisions:
        for kind in found:
            _int8_file(manifest_path(kind, weights), report)
    try:
        backend, gpu = tensorrt_for_plans()
    except EngineUnavailable as why:
        if set(precisions) != {"int8"}:
            raise
        report(f"no plans: {why}")
        return
    wanted = [(manifest_path(kind, weights), one) for kind in found for one in precisions]
    full = manifest_path("voice", full_folder(weights))
    if full.is_file():
        if missing := whisper.why_not(manifest.read(full)):
            report(f"full voice: no plan: {missing}")
        else:  # It has no INT8 form.
            wanted += [(full, one) for one in precisions if one != "int8"]
    _build_plans(wanted, backend, gpu, report)


def tensorrt_for_plans() -> tuple[Backend, Gpu | None]:
    """What builds plans here, and for which GPU; None where TensorRT-RTX builds for all of them.

    Raises EngineUnavailable with the reason. TensorRT proper cannot build without its GPU.
    """
    backend = find_backend()
    if not backend.is_rtx and (why := gpu_driver.why_no_gpu(flavour=backend.flavour)):
        raise EngineUnavailable(f"{backend} builds plans only on the GPU that will run them: {why}")
    return backend, next(iter(gpu_driver.gpus()), None)


def _build_plans(wanted: Sequence[tuple[Path, str]], backend: Backend, gpu: Gpu | None, report: Say) -> None:
    report(f"plans for {gpu.name if gpu else 'every supported GPU, because there is none here'}")
    failed = 0
    for path, precision in wanted:
        try:
            _plan(path, precision, backend, gpu, report)
        except EngineError as err:
            report(f"{path.stem} {precision}: NOT built: {err}")
            failed += 1
    if failed:
        raise EngineUnavailable(f"{failed} of {len(wanted)} plans could not be built, see above")


def _plan(path: Path, precision: str, backend: Backend, gpu: Gpu | None, report: Say) -> None:
    found = manifest.read(path)
    key = plans.key_of(found, precision, backend, gpu)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        report(line)

    plans.obtain(key, lambda: plans.source_bytes(found, path.parent, precision), backend, report=say)
    if not said:
        report(f"{key.network} {precision}: {plans.plan_path(key)} is there and fits")


def _int8_file(path: Path, report: Say) -> None:
    """Keep an INT8 file that is whole; make one where there is none or a damaged one."""
    found = manifest.read(path)
    name = manifest.file_name(found.kind, "int8")
    if found.has("int8"):
        try:
            manifest.load_bytes(found, path.parent, "int8")
        except EngineFileError as err:
            if path.parent == manifest.SHIPPED:
                raise  # It was calibrated on people; made-up inputs are no replacement.
            report(f"{found.kind}: made anew, because {err}")
        else:
            report(f"{found.kind}: {path.parent / name} is there and whole")
            return
    from liveaffect.engines.build.quantize import quantize

    inputs = parity.inputs(
        found.kind, CALIBRATION_ITEMS, piece=found.recipe.piece, statistics=found.recipe.statistics
    )
    written = quantize(path, parity.split(inputs, (BATCH,)))
    made = manifest.read(path)
    manifest.write(manifest.extended(made, quantisation={**made.quantisation, "inputs": "made up"}), path)
    report(
        f"{found.kind}: {written}, calibrated on made-up inputs, not on people; "
        "'liveaffect calibrate int8 --data DIR' takes real ones"
    )


def engine_lines(folders: Mapping[str, Path | None]) -> Iterator[str]:
    """One line for every network and back end; each engine is really opened and run once.

    `folders`: where the network of each kind is, as `folders_of` of `load.py` says.
    """
    for kind in KINDS:
        for choice in CHOICES:
            if kind not in ON_THE_GPU and choice in (*GPU_CHOICES, "onnx-int8"):
                yield f"{kind:<7} {choice:<10} no   it is tiny and always runs in fp32 on the CPU"
                continue
            said: list[str] = []
            try:
                engine = load(kind, choice=choice, weights=folders[kind], report=said.append)
                engine.close()
            except EngineError as error:
                yield f"{kind:<7} {choice:<10} no   {error}"
            else:
                yield f"{kind:<7} {choice:<10} yes  {'; '.join(said)}"


def plan_lines(weights: Path | None, cache: Path | None = None) -> Iterator[str]:
    """One line for every plan: network, precision, size, age, and whether a run here would take it."""
    now = epoch_s()
    stored = plans.listed(cache)
    if stored:
        yield f"plans in {plans.plans_dir(cache)}; '{plans.CLEAN}' removes them"
    for plan in stored:
        what = f"{plan.key.network:<7} {plan.key.precision:<10}" if plan.key else plan.path.name
        why = why_not_taken(plan, weights, cache)
        state = "fits" if why is None else f"not taken: {why}"
        yield f"plan {what} {plan.size / 1e6:6.1f} MB  {(now - plan.built) / 86_400:.0f} days old  {state}"


def why_not_taken(plan: StoredPlan, weights: Path | None, cache: Path | None = None) -> str | None:
    """Why no run on this machine with these weights would take a plan; None if one would."""
    if plan.key is None:
        return "its description is missing or damaged"
    if why := _why_stale(plan.key, weights):
        return why
    try:
        plans.read_plan(plan.key, cache)
    except EngineError as err:
        return str(err)
    return None


def _why_stale(key: PlanKey, weights: Path | None) -> str | None:
    """What of a key is not of this machine, or not of these weights."""
    try:
        backend = find_backend()
    except EngineUnavailable:
        return f"it is for {key.flavour} {key.version}, and no TensorRT is installed"
    if (key.flavour, key.version) != (backend.flavour, backend.version):
        return f"it is for {key.flavour} {key.version}, installed is {backend}"
    if key.format != plans.FORMAT:
        return f"it was built by another liveaffect (format {key.format}, this one has {plans.FORMAT})"
    cards = {(gpu.name, gpu.sm) for gpu in gpu_driver.gpus()}
    if key.gpu != PORTABLE and (key.gpu, key.capability) not in cards:
        return f"it is for {key.gpu}, which is not here"
    refusals = [gpu_driver.why_refused(key.flavour, gpu) for gpu in gpu_driver.gpus()]
    if refusals and all(refusals):
        return refusals[0]
    path = manifest_path(key.network, full_folder(weights) if key.foreign else weights)
    try:
        found = manifest.read(path)
    except EngineError as err:
        return str(err)
    return None if key.onnx in found.files.values() else f"it is not of the weights in {path.parent}"


def compare_named(
    kind: str,
    a: str,
    b: str,
    *,
    weights: Path | None = None,
    items: int = ITEMS,
    tolerance: Tolerance | None = None,
) -> Report:
    """Compare two engines by name, such as 'torch' and 'onnx-int8', or 'FOLDER:onnx' for other weights."""
    opened: list[Engine] = []
    try:
        for text in (a, b):
            folder, _, choice = ("", "", text) if text.startswith("triton://") else text.rpartition(":")
            opened.append(load(kind, choice=choice, weights=Path(folder) if folder else weights))
        chosen = tolerance or (QUANTISED if any("int8" in e.spec.name for e in opened) else EXACT)
        return compare(
            opened[0], opened[1], parity.for_tensors(kind, items, opened[0].spec.inputs), tolerance=chosen
        )
    finally:
        for engine in opened:
            engine.close()
