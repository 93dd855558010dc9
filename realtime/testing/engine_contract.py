"""What every engine must do, whatever runs inside: one suite for real back ends and for fakes.

`check_engine` makes fresh engines with `make` and feeds them `inputs(n)`, a valid batch of n rows that
differ. It raises AssertionError naming the engine and the promise that was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.protocol import Engine, EngineError, EngineInputError, EngineSpec, Tensors, TensorSpec

Make = Callable[[], Engine]
Inputs = Callable[[int], Tensors]
_BATCHES = (1, 3, 16)


def check_engine(make: Make, inputs: Inputs, *, tolerance: float = 1e-4) -> None:
    """The whole contract. `tolerance` bounds what batch size may change, relative to the largest value."""
    engine = make()
    try:
        engine.warm_up()
        engine.warm_up()
        check_answers(engine, inputs)
        check_rows_are_independent(engine, inputs, tolerance)
        check_the_caller_owns_the_answer(engine, inputs)
        check_answers_in_any_order(engine, inputs, tolerance)
        check_engine_refusals(engine, inputs(1))
        check_answers(engine, inputs)
    finally:
        engine.close()
    check_the_end(engine, inputs(1))
    make().close()


def check_answers(engine: Engine, inputs: Inputs) -> None:
    """Names, types and shapes are those of the spec; every number is finite; inputs stay as they were."""
    for size in _sizes(engine.spec):
        given = inputs(size)
        before = {name: array.copy() for name, array in given.items()}
        answer = engine.infer(given)
        _check_shape(engine.spec, answer, size)
        for name, array in before.items():
            _require_engine(engine.spec, np.array_equal(array, given[name]), f"changed its input {name}")


def check_rows_are_independent(engine: Engine, inputs: Inputs, tolerance: float) -> None:
    """What a row gets does not depend on its neighbours, nor on where in the batch it stands."""
    full = inputs(_sizes(engine.spec)[-1])
    size = len(next(iter(full.values())))
    together = engine.infer(full)
    backwards = engine.infer({name: array[::-1].copy() for name, array in full.items()})
    _require_close(
        engine.spec, together, _batch_rows(backwards, slice(None, None, -1)), tolerance, "reversed"
    )
    for at in {0, size // 2, size - 1}:
        row = slice(at, at + 1)
        alone = engine.infer(_batch_rows(full, row))
        _require_close(engine.spec, _batch_rows(together, row), alone, tolerance, f"row {at} alone")


def check_the_caller_owns_the_answer(engine: Engine, inputs: Inputs) -> None:
    """Writing into an answer disturbs neither the next answer nor one that was taken before."""
    given = inputs(min(3, engine.spec.max_batch))
    kept = engine.infer(given)
    copy = {name: array.copy() for name, array in kept.items()}
    spoilt = engine.infer(given)
    for name, array in spoilt.items():
        _require_engine(engine.spec, array.flags.writeable, f"the caller cannot write into its own {name}")
        array[:] = 77
    again = engine.infer(given)
    for name, array in copy.items():
        _require_engine(
            engine.spec, np.array_equal(kept[name], array), f"an older answer's {name} was overwritten"
        )
        _require_engine(engine.spec, np.array_equal(again[name], array), f"{name} differs for the same input")


def check_answers_in_any_order(engine: Engine, inputs: Inputs, tolerance: float) -> None:
    """Several batches handed in and asked for backwards get their own answers."""
    full = inputs(min(3, engine.spec.max_batch))
    parts = [_batch_rows(full, slice(i, i + 1)) for i in range(len(next(iter(full.values()))))]
    wanted = [{k: v.copy() for k, v in engine.infer(part).items()} for part in parts]
    waiting = [engine.submit(part) for part in parts]
    for index in reversed(range(len(parts))):
        got = waiting[index].result()
        _require_close(engine.spec, wanted[index], got, tolerance, f"batch {index} asked for backwards")


def check_engine_refusals(engine: Engine, one: Tensors) -> None:
    """Every batch the spec does not allow is refused before work, naming what was wanted and given."""
    spec = engine.spec
    many = spec.max_batch + 1
    too_many = {n: np.broadcast_to(a[:1], (many, *a.shape[1:])) for n, a in one.items()}
    _refused(engine, too_many, "too many rows", str(spec.max_batch), str(many))
    _refused(engine, _batch_rows(one, slice(0, 0)), "no rows", str(spec.max_batch), "0")
    for tensor in spec.inputs:
        array = one[tensor.name]
        without = {name: value for name, value in one.items() if name != tensor.name}
        _refused(engine, without, f"no {tensor.name}", tensor.name)
        wrong = {**without, "nonsense": array}
        _refused(engine, wrong, f"{tensor.name} under another name", tensor.name, "nonsense")
        longer = np.concatenate([array, array], axis=1)
        _refused(engine, {**one, tensor.name: longer}, "wrong shape", str(tensor), str(longer.shape))
        flat = array.reshape(-1)
        _refused(engine, {**one, tensor.name: flat}, "no batch axis", str(tensor), str(flat.shape))
        other = array.astype(np.float64)
        _refused(engine, {**one, tensor.name: other}, "wrong type", str(tensor), "float64")
        if len(spec.inputs) > 1:
            double = np.concatenate([array, array], axis=0)
            _refused(engine, {**one, tensor.name: double}, "unequal batches", tensor.name)
        _check_not_finite(engine, one, tensor)
    _refused(engine, {**one, "nonsense": next(iter(one.values()))}, "an unknown input", "nonsense")


def check_the_end(engine: Engine, one: Tensors) -> None:
    """`close` is safe twice, and `submit` afterwards raises EngineError instead of crashing."""
    engine.close()
    try:
        engine.submit(one)
    except EngineError:
        return
    raise AssertionError(f"engine '{engine.spec.name}' accepted work after close()")


def _check_not_finite(engine: Engine, one: Tensors, tensor: TensorSpec) -> None:
    if np.dtype(tensor.dtype).kind != "f":
        return
    for bad in (np.nan, np.inf):
        spoilt = one[tensor.name].copy()
        spoilt.flat[0] = bad
        _refused(engine, {**one, tensor.name: spoilt}, f"{bad} in {tensor.name}", tensor.name, "finite")


def _check_shape(spec: EngineSpec, answer: Tensors, size: int) -> None:
    wanted = {t.name: ((size, *t.shape), t.dtype) for t in spec.outputs}
    got = {name: (array.shape, array.dtype.name) for name, array in answer.items()}
    _require_engine(spec, wanted == got, f"a batch of {size} should give {wanted}, gave {got}")
    for name, array in answer.items():
        _require_engine(spec, bool(np.isfinite(array).all()), f"{name} holds numbers that are not finite")


def _refused(engine: Engine, inputs: Mapping[str, NDArray[Any]], what: str, *says: str) -> None:
    try:
        engine.submit(inputs)
    except EngineInputError as error:
        missing = [word for word in (engine.spec.name, *says) if word not in str(error)]
        _require_engine(engine.spec, not missing, f"refuses {what} without saying {missing}: {error}")
        return
    raise AssertionError(f"engine '{engine.spec.name}' accepted {what}")


def _require_close(spec: EngineSpec, wanted: Tensors, got: Tensors, tolerance: float, what: str) -> None:
    for name, array in wanted.items():
        scale = max(1.0, float(np.abs(array).max()))
        worst = float(np.abs(array.astype(np.float64) - got[name].astype(np.float64)).max()) / scale
        _require_engine(spec, worst <= tolerance, f"{name} changes by {worst:.2e} with {what}")


def _batch_rows(tensors: Tensors, rows: slice) -> Tensors:
    return {name: array[rows] for name, array in tensors.items()}


def _sizes(spec: EngineSpec) -> list[int]:
    return sorted({min(size, spec.max_batch) for size in _BATCHES})


def _require_engine(spec: EngineSpec, holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"engine '{spec.name}': {otherwise}")
