"""What every source, sink, engine and device memory must do, real or fake: one suite for each kind.

A suite is given a way to make the thing, so that each property starts from a fresh one, and raises
AssertionError that names the broken promise. Whoever uses such a thing builds on exactly these promises, so
what passes can be put in place of any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.device_memory import DeviceError, DeviceMemory
from liveaffect.engines.protocol import Engine, EngineError, EngineInputError, EngineSpec, Tensors, TensorSpec
from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS
from liveaffect.realtime.errors import EndOfStream, SinkError, SourceError
from liveaffect.realtime.frame import AudioBlock, CountsLosses, Source, VideoFrame
from liveaffect.realtime.sinks import Sink
from liveaffect.realtime.testing.scenes import background, cue, frame

_TRIES = 600
"""Reads of 20 ms without an item after which a source counts as silent."""


@dataclass(slots=True)
class _Seen:
    seqs: list[int] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)
    last_ns: dict[str, int] = field(default_factory=dict)

    def note(self, item: VideoFrame | AudioBlock, name: str, *, merged: bool) -> None:
        assert item.source == name, f"an item says it is from {item.source}, the source is {name}"
        kind = "items" if merged else type(item).__name__
        last_ns = self.last_ns.get(kind, item.captured_ns)
        assert item.captured_ns >= last_ns, f"time went back from {last_ns} to {item.captured_ns}"
        self.last_ns[kind] = item.captured_ns
        array = item.image if isinstance(item, VideoFrame) else item.samples
        assert not array.flags.writeable, "an array that several threads share can be written to"
        if isinstance(item, VideoFrame):
            self.seqs.append(item.seq)
        else:
            assert len(item.samples) > 0, "an empty block"
            self.samples.append((item.first, item.end))


def check_source(
    make: Callable[[], Source],
    *,
    kinds: frozenset[str],
    live: bool = False,
    items: int = 40,
) -> None:
    """Assert the contract. `kinds` holds 'video', 'audio' or both.

    A source may leave numbers out, but only as many as it has counted. Of a source that ends, at
    least `items` are read and then the rest; a live one is closed after `items`.
    """
    _check_order_of_calls(make)
    source = make()
    assert source.name == make().name, "two sources of one make have different names"
    source.open()
    seen = _Seen()
    ended = _read_items(source, seen, items, live=live)
    assert bool(seen.seqs) == ("video" in kinds), f"pictures: {len(seen.seqs)}, promised kinds: {set(kinds)}"
    assert bool(seen.samples) == ("audio" in kinds), f"sound: {len(seen.samples)}, promised: {set(kinds)}"
    _check_numbers(seen, source)
    if ended:
        for _ in range(3):
            with pytest.raises(EndOfStream):
                source.read(0.02)
    source.close()
    source.close()
    with pytest.raises(SourceError):
        source.read(0.02)
    with pytest.raises(SourceError):
        source.open()


def _check_order_of_calls(make: Callable[[], Source]) -> None:
    unopened = make()
    with pytest.raises(SourceError):
        unopened.read(0.02)
    unopened.close()
    unopened.close()
    waiting = make()
    waiting.open()
    closer = threading.Thread(target=waiting.close, daemon=True)
    closer.start()
    closer.join(5.0)
    assert not closer.is_alive(), "close() from another thread did not return"


def _read_items(source: Source, seen: _Seen, items: int, *, live: bool) -> bool:
    """Read; True when the natural end was reached."""
    count = tries = 0
    while not live or count < items:
        try:
            item = source.read(0.02)
        except EndOfStream:
            assert count >= items, (
                f"only {count} items before the end; the contract wants {items} to judge by"
            )
            return True
        if item is None:
            tries += 1
            assert tries < _TRIES, f"nothing came for {_TRIES} reads after {count} items"
            continue
        count += 1
        seen.note(item, source.name, merged=not live)
    return False


def _check_numbers(seen: _Seen, source: Source) -> None:
    left_out = 0
    for before, after in zip([-1, *seen.seqs], seen.seqs, strict=False):
        assert after > before, f"picture {after} came after picture {before}"
        left_out += after - before - 1
    for (_, before), (after, _) in zip([(0, 0), *seen.samples], seen.samples, strict=False):
        assert after >= before, f"sample {after} came again after {before}"
        left_out += after - before
    counted = sum(source.losses.values()) if isinstance(source, CountsLosses) else 0
    assert left_out <= counted, f"{left_out} are missing, {counted} were counted"


_STEP_NS = 40 * MS


def check_sink(make: Callable[[], Sink]) -> None:
    """Run the whole contract; `make` must be able to make any number of sinks, one after the other."""
    _says_what_it_wants(make())
    _takes_a_run(make())
    _changes_nothing_it_is_given(make())
    _takes_whatever_a_camera_may_change_to(make())
    _closes_twice_also_when_nothing_came(make())
    _refuses_what_comes_after_the_end(make())


def _says_what_it_wants(sink: Sink) -> None:
    assert isinstance(sink.wants_pictures, bool)
    assert isinstance(sink.wants_sound, bool)
    sink.close()


def _takes_a_run(sink: Sink) -> None:
    """Pictures, sound and cues in the order in which a run brings them, some grid points without cues."""
    for step in range(6):
        t_ns = step * _STEP_NS
        picture = background(64, 48)
        sink.show(picture, frame(picture.copy(), step, captured_ns=t_ns))
        sink.hear(_sound(step))
        sink.tell([cue("happy", t_ns=t_ns), cue("sad", track=None, t_ns=t_ns)] if step % 2 else [])
    sink.close()


def _changes_nothing_it_is_given(sink: Sink) -> None:
    picture, block = background(64, 48), _sound(0)
    before, sound = picture.copy(), block.samples.copy()
    sink.show(picture, frame(picture.copy()))
    sink.hear(block)
    sink.close()
    assert np.array_equal(picture, before), "the sink wrote into the picture that others draw, too"
    assert np.array_equal(block.samples, sound), "the sink wrote into the sound that others hear, too"


def _takes_whatever_a_camera_may_change_to(sink: Sink) -> None:
    """Another size, an odd size, another source, and two pictures of one moment."""
    shown = [("camera:0", 64, 48), ("camera:0", 80, 60), ("camera:1", 33, 31), ("camera:0", 64, 48)]
    for seq, (source, width, height) in enumerate(shown):
        picture = background(width, height)
        sink.show(picture, frame(picture.copy(), seq, captured_ns=min(seq, 2) * _STEP_NS, source=source))
    sink.close()


def _closes_twice_also_when_nothing_came(sink: Sink) -> None:
    sink.close()
    sink.close()


def _refuses_what_comes_after_the_end(sink: Sink) -> None:
    """It says so instead of losing it silently; what a sink never wanted it may go on ignoring."""
    sink.close()
    picture = background(64, 48)
    if sink.wants_pictures:
        _must_refuse(lambda: sink.show(picture, frame(picture)))
    if sink.wants_sound:
        _must_refuse(lambda: sink.hear(_sound(0)))
    if not sink.wants_pictures and not sink.wants_sound:
        _must_refuse(lambda: sink.tell([cue("happy")]))


def _must_refuse(call: Callable[[], None]) -> None:
    try:
        call()
    except SinkError as error:
        said = str(error)
    else:
        raise AssertionError("what came after close() was lost without a word")
    assert said, "a refusal without a word helps nobody"


def _sound(step: int) -> AudioBlock:
    count = SAMPLE_RATE * _STEP_NS // 1_000_000_000
    samples = np.full(count, 0.1, np.float32)
    return AudioBlock("default", step * count, step * _STEP_NS, samples)


MakeEngine = Callable[[], Engine]
Inputs = Callable[[int], Tensors]
_BATCHES = (1, 3, 16)


def check_engine(make: MakeEngine, inputs: Inputs, *, tolerance: float = 1e-4) -> None:
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


MakeMemory = Callable[[], DeviceMemory]
_SIZE = 4096
_FAR_TOO_MUCH = 1 << 50


@dataclass(slots=True, eq=False)
class _Desk:
    """What one copy there and back needs."""

    there: NDArray[np.uint8]
    back: NDArray[np.uint8]
    device: int
    stream: int
    event: int


def check_memory(make: MakeMemory) -> None:
    """The whole contract."""
    memory = make()
    try:
        with memory.active():
            check_copies(memory)
            check_streams_stand_apart(memory)
            check_graphs(memory)
            check_limits(memory)
        check_another_thread(memory)
    finally:
        memory.close()
    memory.close()
    again = make()
    with again.active():
        check_copies(again)
    again.close()


def check_copies(memory: DeviceMemory) -> None:
    """What goes there comes back, whole or in part, and nothing is made for it."""
    with _desk(memory) as desk:
        made = memory.allocations
        for size in (_SIZE, 1, _SIZE // 3):
            desk.there[:] = np.random.default_rng(size).integers(0, 256, _SIZE, np.uint8)
            desk.back[:] = 0
            memory.copy_in(desk.device, desk.there[:size], desk.stream)
            memory.copy_out(desk.back[:size], desk.device, desk.stream)
            memory.record(desk.event, desk.stream)
            memory.wait(desk.event)
            _require(
                memory, np.array_equal(desk.back[:size], desk.there[:size]), f"{size} bytes came back wrong"
            )
            _require(memory, not desk.back[size:].any(), f"a copy of {size} bytes wrote beyond them")
        memory.copy_out(desk.back[:16], desk.device + 32, desk.stream)
        memory.synchronise(desk.stream)
        _require(memory, memory.allocations == made, "copying made something new")
    _require(memory, memory.allocations > 0, "nothing was counted")


def check_streams_stand_apart(memory: DeviceMemory) -> None:
    """Two streams carry their own work, whichever is waited for first; time between marks runs forwards."""
    with _desk(memory) as one, _desk(memory) as two:
        memory.wait(one.event)  # A mark that nobody recorded holds nobody up.
        one.there[:], two.there[:] = 1, 2
        for desk in (one, two):
            memory.copy_in(desk.device, desk.there, desk.stream)
            memory.copy_out(desk.back, desk.device, desk.stream)
            memory.record(desk.event, desk.stream)
        for desk in (two, one):
            memory.wait(desk.event)
        _require(memory, bool((one.back == 1).all() and (two.back == 2).all()), "streams mixed up their work")
        memory.record(two.event, one.stream)
        memory.wait(two.event)
        _require(memory, memory.elapsed_ms(one.event, two.event) >= 0, "time between two marks is negative")


def check_graphs(memory: DeviceMemory) -> None:
    """Work that is noted down is not done, and each launch does it with what lies there then."""
    with _desk(memory) as desk:
        desk.back[:] = 0
        desk.there[:] = 3
        memory.begin_capture(desk.stream)
        memory.copy_in(desk.device, desk.there, desk.stream)
        memory.copy_out(desk.back, desk.device, desk.stream)
        graph = memory.end_capture(desk.stream)
        memory.synchronise(desk.stream)
        _require(memory, not desk.back.any(), "what was captured was done at once")
        made = memory.allocations
        for value in (5, 9):
            desk.there[:] = value
            memory.launch(graph, desk.stream)
            memory.record(desk.event, desk.stream)
            memory.wait(desk.event)
            _require(memory, bool((desk.back == value).all()), "a graph used what lay there before")
        _require(memory, memory.allocations == made, "launching made something new")
        memory.close_graph(graph)


def check_limits(memory: DeviceMemory) -> None:
    """Memory that is taken is missing from what is free; more than there is is an error, and work goes on."""
    before = memory.free_bytes()
    address = memory.allocate(64 << 20)
    during = memory.free_bytes()
    memory.free(address)
    _require(memory, during < before, f"{before} bytes were free, and {during} beside 64 MiB")
    try:
        memory.allocate(_FAR_TOO_MUCH)
    except DeviceError as err:
        _require(memory, "memory" in str(err).lower(), f"does not say that memory ran out: {err}")
    else:
        raise AssertionError(f"'{memory.name}' gave {_FAR_TOO_MUCH} bytes")
    check_copies(memory)


def check_another_thread(memory: DeviceMemory) -> None:
    """Whoever makes the device active may work on it; a thread that ends takes nothing with it."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with memory.active(), memory.active():
                check_copies(memory)
        except BaseException as err:  # noqa: BLE001  the thread that started this one raises it
            failed.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    with memory.active():
        check_copies(memory)


@contextmanager
def _desk(memory: DeviceMemory) -> Iterator[_Desk]:
    desk = _Desk(
        memory.pinned(_SIZE), memory.pinned(_SIZE), memory.allocate(_SIZE), memory.stream(), memory.event()
    )
    desk.there[:] = 0
    try:
        yield desk
    finally:
        memory.synchronise(desk.stream)
        memory.close_event(desk.event)
        memory.close_stream(desk.stream)
        memory.free(desk.device)
        memory.free_pinned(desk.there)
        memory.free_pinned(desk.back)


def _require(memory: DeviceMemory, holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"device memory '{memory.name}': {otherwise}")
