"""The TensorRT engine hands in, waits once, allocates nothing in steady work, and says when a GPU is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import parity
from liveaffect.engines.device_memory import DeviceError, HostMemory
from liveaffect.engines.gpu_driver import find_backend
from liveaffect.engines.load import load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import (
    EngineError,
    EngineFailed,
    EngineFileError,
    EngineInputError,
    EngineLost,
    EngineUnavailable,
)
from liveaffect.engines.slots import PLACES
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.testing import engines, gpu
from liveaffect.realtime.testing.gpu import LosableMemory, plan_of

FLAVOURS = ("tensorrt", "tensorrt-rtx")
SIZES = [1, 2, 4, 8]
"""What runs as it is, of a plan with the profiles 1, 2 to 4, and 5 to 8."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for kind in manifests.KINDS:
        engines.write_tiny(folder, kind)
    return folder


@pytest.fixture(scope="module")
def face(tiny: Path) -> tuple[Manifest, bytes]:
    return plan_of(tiny, "face")


Open = Callable[..., TensorRTEngine]


@pytest.fixture(params=FLAVOURS)
def opened(request: pytest.FixtureRequest, face: tuple[Manifest, bytes]) -> Iterator[Open]:
    """Opens engines on host memory; at the end everything they took has to have been given back."""
    engines: list[tuple[TensorRTEngine, HostMemory]] = []

    def open_one(memory: HostMemory | None = None, **options: Any) -> TensorRTEngine:
        memory = memory or HostMemory()
        backend = gpu.backend(request.param)
        run = RunOptions(**options)
        engine = TensorRTEngine(face[0], "fp16", face[1], backend=backend, memory=memory, options=run)
        engines.append((engine, memory))
        return engine

    yield open_one
    for engine, memory in engines:
        engine.close()
        memory.close()


def faces(count: int, seed: int = 0) -> parity.Batch:
    return parity.inputs("face", count, seed=seed)


def graphed(engine: TensorRTEngine) -> list[int]:
    return [size for size, slots in engine.slots.items() if all(slot.graphed for slot in slots)]


@pytest.mark.parametrize("graphs", [True, False])
def test_answers_are_those_of_the_network_for_every_batch(opened: Open, tiny: Path, graphs: bool) -> None:
    engine = opened(graphs=graphs)
    engine.warm_up()
    assert engine.spec.name in ("face-tiny/tensorrt-fp16", "face-tiny/tensorrt-rtx-fp16")
    assert (engine.spec.max_batch, engine.notes) == (8, [])
    assert graphed(engine) == (SIZES if graphs else [])
    wanted = load("face", choice="onnx", weights=tiny)
    for count in range(1, 9):
        batch = faces(count, seed=count)
        answer, other = engine.infer(batch), wanted.infer(batch)
        for name, array in other.items():
            np.testing.assert_allclose(answer[name], array, rtol=1e-4, atol=1e-5)


def test_submitting_only_hands_in_and_each_result_waits_for_its_own_stream_once(
    tiny: Path, opened: Open
) -> None:
    memory = HostMemory()
    first = opened(memory)
    voice, plan = plan_of(tiny, "voice")
    second = TensorRTEngine(voice, "fp16", plan, backend=gpu.backend(), memory=memory)
    for engine in (first, second):
        engine.warm_up()
    waits = memory.waits
    pending = first.submit(faces(3)), second.submit(parity.inputs("voice", 1))
    assert memory.waits == waits
    pending[1].result()
    assert memory.waits == waits + 1
    pending[0].result()
    pending[0].result()
    assert memory.waits == waits + 2
    second.close()


@pytest.mark.parametrize("graphs", [True, False])
def test_steady_work_allocates_nothing(opened: Open, graphs: bool) -> None:
    memory = HostMemory()
    engine = opened(memory, graphs=graphs)
    engine.warm_up()
    made, free = memory.allocations, memory.free_bytes()
    for count in (1, 2, 8, 5, 3, 1, 4):
        engine.infer(faces(count))
    assert (memory.allocations, memory.free_bytes()) == (made, free)


def test_only_the_rows_of_a_batch_are_copied_where_no_graph_has_fixed_their_number(opened: Open) -> None:
    copied: list[int] = []

    class Counting(HostMemory):
        def copy_in(self, address: int, array: Any, stream: int) -> None:
            copied.append(array.nbytes)
            super().copy_in(address, array, stream)

    engine = opened(Counting(), graphs=False)
    engine.warm_up()
    copied.clear()
    engine.infer(faces(5))
    assert copied == [5 * 64 * 64 * 3]


def test_a_crop_that_is_laid_into_its_room_is_answered_like_one_that_is_handed_in(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    batch = faces(3)
    room = engine.stage(3)
    assert room.inputs["crop"].shape == (3, 64, 64, 3)
    room.inputs["crop"][:] = batch["crop"]
    np.testing.assert_array_equal(room.submit().result()["logits"], engine.infer(batch)["logits"])
    for count in (0, 9):
        with pytest.raises(EngineInputError, match=f"takes 1 to 8 items, got {count}"):
            engine.stage(count)


def test_more_batches_than_places_keep_their_own_answers(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    counts = [2, 7, 1, 4, 2][: PLACES + 3]
    alone = [engine.infer(faces(count, seed)) for seed, count in enumerate(counts)]
    waiting = [engine.submit(faces(count, seed)) for seed, count in enumerate(counts)]
    for wanted, pending in reversed(list(zip(alone, waiting, strict=True))):
        np.testing.assert_array_equal(pending.result()["logits"], wanted["logits"])


def test_answers_that_were_waited_for_outlive_the_engine_and_later_work_is_refused(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    pending = engine.submit(faces(1))
    engine.close()
    engine.close()
    assert np.isfinite(pending.result()["logits"]).all()
    for late in (partial(engine.submit, faces(1)), partial(engine.stage, 1), engine.warm_up):
        with pytest.raises(EngineError, match="is closed"):
            late()


class Fickle(HostMemory):
    """Memory whose graphs go wrong in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def launch(self, graph: int, stream: int) -> None:
        if self._fault != "does nothing":
            super().launch(graph, stream)

    def end_capture(self, stream: int) -> int:
        graph = super().end_capture(stream)
        if self._fault == "cannot be made":
            self.close_graph(graph)
            raise DeviceError("cuGraphInstantiateWithFlags", "CUDA_ERROR_NOT_SUPPORTED")
        if self._fault == "keeps its inputs":
            self._graphs[graph].pop(0)
        return graph


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("does nothing", "answers 'vector'"),
        ("keeps its inputs", "answers 'vector'"),
        ("cannot be made", "cannot be made (cuGraphInstantiateWithFlags failed with CUDA_ERROR_NOT_SUPP"),
    ],
)
def test_a_graph_that_is_wrong_is_noticed_once_and_work_goes_on_without_it(
    opened: Open, fault: str, words: str
) -> None:
    engine = opened(Fickle(fault))
    engine.warm_up()
    assert graphed(engine) == []
    assert len([note for note in engine.notes if words in note]) == PLACES * len(SIZES), engine.notes
    assert np.isfinite(engine.infer(faces(4))["logits"]).all()


def test_what_rtx_says_cannot_be_captured_is_never_called_a_graph(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.IExecutionContext, "is_stream_capturable", lambda *_: False)
    engine = opened()
    engine.warm_up()
    is_rtx = "rtx" in engine.spec.name
    assert graphed(engine) == ([] if is_rtx else SIZES)
    assert len(engine.notes) == (PLACES * len(SIZES) if is_rtx else 0)


def test_answers_that_are_not_finite_are_an_error(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    engine.warm_up()
    pending: Any = engine.submit(faces(2))
    real = pending._slot.answers
    monkeypatch.setattr(
        pending._slot, "answers", lambda count: {k: v * np.nan for k, v in real(count).items()}
    )
    with pytest.raises(EngineFailed, match=r"'face-tiny/.*not finite \(items \[0, 1\]\)"):
        pending.result()


def test_kernels_of_an_earlier_start_are_handed_on_with_tensorrt_rtx_only(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    kept = engine.runtime_cache()
    assert bool(kept) is ("rtx" in engine.spec.name)
    # A kernel for each size, as 'profile:rows'; without the cache in every context there would be none.
    assert not kept or kept.split()[-len(SIZES) :] == [b"0:1", b"1:2", b"1:4", b"2:8"]
    later = opened(runtime_cache=kept)
    assert later.runtime_cache() == kept
    if kept:
        assert opened(runtime_cache=b"of another card").runtime_cache() != kept


@pytest.mark.parametrize("moment", ["before submit", "before result"])
def test_a_lost_gpu_is_said_so_at_once_and_for_good(face: tuple[Manifest, bytes], moment: str) -> None:
    memory, options = LosableMemory(), RunOptions(owns_memory=True)
    engine = TensorRTEngine(face[0], "fp16", face[1], backend=gpu.backend(), memory=memory, options=options)
    engine.warm_up()
    pending = engine.submit(faces(1))
    memory.lost = True
    ask = pending.result if moment == "before result" else partial(engine.submit, faces(1))
    with pytest.raises(EngineLost, match=r"lost its GPU while .*CUDA_ERROR_DEVICE_UNAVAILABLE"):
        ask()
    with pytest.raises(EngineLost, match="lost its GPU"):
        engine.submit(faces(1))
    engine.close()
    engine.close()


def test_a_gpu_whose_loss_tensorrt_only_answers_with_no_is_known_to_be_lost(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = LosableMemory()
    engine = opened(memory, graphs=False)
    engine.warm_up()
    real = gpu.IExecutionContext.execute_async_v3
    monkeypatch.setattr(gpu.IExecutionContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(EngineFailed, match="a batch of 1 was refused: TensorRT does not say why") as err:
        engine.submit(faces(1))
    assert not isinstance(err.value, EngineLost)

    def refuse(_context: object, _stream: int) -> bool:
        memory.lost = True
        return False

    monkeypatch.setattr(gpu.IExecutionContext, "execute_async_v3", real)
    engine.infer(faces(1))
    monkeypatch.setattr(gpu.IExecutionContext, "execute_async_v3", refuse)
    with pytest.raises(EngineLost, match="CUDA_ERROR_DEVICE_UNAVAILABLE"):
        engine.submit(faces(1))
    memory.lost = False


def test_a_gpu_without_enough_memory_is_not_called_lost(face: tuple[Manifest, bytes]) -> None:
    class Small(HostMemory):
        def free_bytes(self) -> int:
            return 100_000 - sum(map(len, self._memory.values()))

    memory = Small()
    with pytest.raises(
        EngineFailed, match="opening the plan: cuMemAlloc failed with CUDA_ERROR_OUT_OF"
    ) as err:
        TensorRTEngine(face[0], "fp16", face[1], backend=gpu.backend(), memory=memory)
    assert not isinstance(err.value, EngineLost)
    memory.close()  # Refuses if anything was left behind.


@pytest.mark.parametrize("spoil", [lambda p: b"x" + p, lambda p: p[: len(p) // 2], lambda p: b""])
def test_a_plan_that_tensorrt_refuses_is_an_error_with_its_words(
    face: tuple[Manifest, bytes], spoil: Callable[[bytes], bytes]
) -> None:
    memory = HostMemory()
    with pytest.raises(EngineFileError, match=r"cannot open the plan of 'face-tiny/.*serialized engine"):
        TensorRTEngine(face[0], "fp16", spoil(face[1]), backend=gpu.backend(), memory=memory)
    memory.close()


def test_a_plan_of_another_network_is_refused(tiny: Path, face: tuple[Manifest, bytes]) -> None:
    _, plan = plan_of(tiny, "voice")
    memory = HostMemory()
    with pytest.raises(EngineFileError, match="of another network: its inputs are samples"):
        TensorRTEngine(face[0], "fp16", plan, backend=gpu.backend(), memory=memory)
    memory.close()


def test_the_real_runtime_refuses_a_real_plan_without_a_gpu_in_its_own_words(
    face: tuple[Manifest, bytes],
) -> None:
    try:
        backend = find_backend()
    except EngineUnavailable as err:
        pytest.skip(f"needs tensorrt_rtx: {err}")
    if not backend.is_rtx:
        pytest.skip("tensorrt proper makes no runtime without a GPU")
    memory = HostMemory()
    with pytest.raises(EngineFileError, match=r"TensorRT-RTX .* cannot open the plan of 'face-tiny/"):
        TensorRTEngine(face[0], "fp16", b"no plan", backend=backend, memory=memory)
    memory.close()
