"""`liveaffect build`: the faster forms of the networks in a folder of weights, for this machine.

INT8 files are for the CPU and for TensorRT alike; one that is there and whole is kept. Plans are for TensorRT
and lie in the user's cache; those that fit are kept, so that the command can be given again at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from liveaffect.engines import gpu_driver, manifest, parity, plans
from liveaffect.engines.build.plan import PRECISIONS, source_of
from liveaffect.engines.gpu_driver import Backend, Gpu, find_backend
from liveaffect.engines.load import manifest_path
from liveaffect.engines.manifest import KINDS
from liveaffect.engines.protocol import EngineError, EngineFileError, EngineUnavailable

CALIBRATION_ITEMS = 64
BATCH = 8
ON_THE_GPU = ("face", "voice")
Report = Callable[[str], None]


def build_forms(precisions: Sequence[str], weights: Path | None, report: Report) -> None:
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
    _build_plans(
        [(manifest_path(kind, weights), one) for kind in found for one in precisions], backend, gpu, report
    )


def tensorrt_for_plans() -> tuple[Backend, Gpu | None]:
    """What builds plans here, and for which GPU; None where TensorRT-RTX builds for all of them.

    Raises EngineUnavailable with the reason. TensorRT proper cannot build without its GPU.
    """
    backend = find_backend()
    if not backend.is_rtx and (why := gpu_driver.why_no_gpu(flavour=backend.flavour)):
        raise EngineUnavailable(f"{backend} builds plans only on the GPU that will run them: {why}")
    return backend, next(iter(gpu_driver.gpus()), None)


def _build_plans(
    wanted: Sequence[tuple[Path, str]], backend: Backend, gpu: Gpu | None, report: Report
) -> None:
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


def _plan(path: Path, precision: str, backend: Backend, gpu: Gpu | None, report: Report) -> None:
    found = manifest.read(path)
    key = plans.key_of(found, precision, backend, gpu)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        report(line)

    plans.obtain(
        key, lambda: manifest.load_bytes(found, path.parent, source_of(precision)), backend, report=say
    )
    if not said:
        report(f"{key.network} {precision}: {plans.plan_path(key)} is there and fits")


def _int8_file(path: Path, report: Report) -> None:
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
