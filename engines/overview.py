"""`liveaffect engines list`: which back ends work here for which network, and why the others do not.

After them the plans in the user's cache, with what is wrong with those that no run here would take.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from liveaffect.engines import gpu_driver, manifest, parity, plans
from liveaffect.engines.build.plan import PORTABLE
from liveaffect.engines.gpu_driver import find_backend
from liveaffect.engines.load import CHOICES, GPU_CHOICES, ON_THE_GPU, load, manifest_path
from liveaffect.engines.manifest import KINDS
from liveaffect.engines.parity import EXACT, ITEMS, QUANTISED, Report, Tolerance, compare
from liveaffect.engines.plans import PlanKey, StoredPlan
from liveaffect.engines.protocol import Engine, EngineError, EngineUnavailable
from liveaffect.engines.stopwatch import epoch_s

_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def engine_lines(weights: Path | None) -> Iterator[str]:
    """One line for every network and back end; each engine is really opened and run once."""
    for kind in KINDS:
        for choice in CHOICES:
            if kind not in ON_THE_GPU and choice in (*GPU_CHOICES, "onnx-int8"):
                yield f"{kind:<7} {choice:<10} no   it is tiny and always runs in fp32 on the CPU"
                continue
            said: list[str] = []
            try:
                engine = load(kind, choice=choice, weights=weights, report=said.append)
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
        yield f"plan {what} {plan.size / 1e6:6.1f} MB  {age(now - plan.built)} old  {state}"


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


def age(seconds: float) -> str:
    """Such as '3 days'; under a minute it is 'moments'."""
    for span, name in _SPANS:
        count = int(seconds // span)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "moments"


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
    path = manifest_path(key.network, weights)
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
            folder, _, choice = text.rpartition(":")
            opened.append(load(kind, choice=choice, weights=Path(folder) if folder else weights))
        chosen = tolerance or (QUANTISED if any("int8" in e.spec.name for e in opened) else EXACT)
        return compare(
            opened[0], opened[1], parity.for_tensors(kind, items, opened[0].spec.inputs), tolerance=chosen
        )
    finally:
        for engine in opened:
            engine.close()
