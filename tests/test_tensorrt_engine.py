"""The TensorRT engine hands in, waits once, allocates nothing in steady work, and says when a GPU is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import probe, stopwatch
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.device_memory import DeviceError
from liveaffect.engines.load import load
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineError, EngineFailed
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine, flexible_below
from liveaffect.realtime.testing import scripted_tensorrt, tiny_networks
from liveaffect.realtime.testing.scripted_tensorrt import SIZES, plan_of

FLAVOURS = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for kind in manifests.KINDS:
        tiny_networks.write_tiny(folder, kind)
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
        backend = scripted_tensorrt.backend(request.param)
        run = RunOptions(**{"measure": False, **options})
        engine = TensorRTEngine(face[0], "fp16", face[1], backend=backend, memory=memory, options=run)
        engines.append((engine, memory))
        return engine

    yield open_one
    for engine, memory in engines:
        engine.close()
        memory.close()


def faces(count: int, seed: int = 0) -> probe.Batch:
    return probe.inputs("face", count, seed=seed)


@pytest.mark.parametrize("graphs", [True, False])
def test_answers_are_those_of_the_network_for_every_batch(opened: Open, tiny: Path, graphs: bool) -> None:
    engine = opened(graphs=graphs)
    engine.warm_up()
    assert engine.spec.name in ("face-tiny/tensorrt-fp16", "face-tiny/tensorrt-rtx-fp16")
    assert (engine.spec.max_batch, engine.notes) == (8, ())
    assert all(lane.graphed is graphs for lane in engine.run.lanes)
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
    second = TensorRTEngine(voice, "fp16", plan, backend=scripted_tensorrt.backend(), memory=memory)
    for engine in (first, second):
        engine.warm_up()
    waits = memory.waits
    pending = first.submit(faces(3)), second.submit(probe.inputs("voice", 1))
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


def test_a_batch_that_comes_before_the_last_was_fetched_does_not_spoil_it(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    alone = [engine.infer(faces(2, seed)) for seed in range(3)]
    waiting = [engine.submit(faces(2, seed)) for seed in range(3)]
    for wanted, pending in reversed(list(zip(alone, waiting, strict=True))):
        np.testing.assert_array_equal(pending.result()["logits"], wanted["logits"])


def test_answers_that_were_waited_for_outlive_the_engine_and_later_work_is_refused(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    pending = engine.submit(faces(1))
    engine.close()
    engine.close()
    assert np.isfinite(pending.result()["logits"]).all()
    with pytest.raises(EngineError, match="is closed"):
        engine.submit(faces(1))
    with pytest.raises(EngineError, match="is closed"):
        _ = engine.run


def test_an_engine_that_owns_its_memory_ends_it_too(opened: Open) -> None:
    memory = HostMemory()
    engine = opened(memory, owns_memory=True)
    engine.close()
    with pytest.raises(DeviceError, match="INVALID_CONTEXT"), memory.active():
        memory.allocate(1)


class Fickle(HostMemory):
    """Memory whose graphs go wrong in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def launch(self, graph: int, stream: int) -> None:
        if self._fault == "does nothing":
            return
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
        (
            "cannot be made",
            "cannot be made (cuGraphInstantiateWithFlags failed with CUDA_ERROR_NOT_SUPPORTED)",
        ),
    ],
)
def test_a_graph_that_is_wrong_is_noticed_once_and_work_goes_on_without_it(
    face: tuple[Manifest, bytes], fault: str, words: str
) -> None:
    memory = Fickle(fault)
    with_graphs = TensorRTEngine(
        face[0], "fp32", face[1], backend=scripted_tensorrt.backend("tensorrt"), memory=memory
    )
    with_graphs.warm_up()
    assert not any(lane.graphed for lane in with_graphs.run.lanes)
    told = [note for note in with_graphs.notes if words in note]
    assert len(told) == len(SIZES), with_graphs.notes
    assert np.isfinite(with_graphs.infer(faces(4))["logits"]).all()
    with_graphs.close()
    memory.close()


def test_a_runtime_that_makes_wrong_graphs_of_its_own_is_noticed_too(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = scripted_tensorrt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    real = scripted_tensorrt.IExecutionContext.execute_async_v3

    def nothing_by_graph(context: Any, stream_handle: int) -> bool:
        if context._config is not None and context._config.cuda_graph_strategy is strategy:
            return True
        return real(context, stream_handle)

    monkeypatch.setattr(scripted_tensorrt.IExecutionContext, "execute_async_v3", nothing_by_graph)
    engine = opened()
    engine.warm_up()
    is_rtx = "rtx" in engine.spec.name
    assert [lane.graphed for lane in engine.run.lanes] == [not is_rtx] * len(SIZES)
    assert len(engine.notes) == (len(SIZES) if is_rtx else 0)
    assert np.isfinite(engine.infer(faces(4))["logits"]).all()


def times(monkeypatch: pytest.MonkeyPatch, *costs_ns: int) -> None:
    monkeypatch.setattr(stopwatch, "median_ns", lambda calls, rounds, now: list(costs_ns))


def test_batches_are_filled_up_only_from_where_it_was_measured_to_pay(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(
        monkeypatch, 30, 10, 40
    )  # Of 5 to 8: full batch 30, a batch of 5 as it is 10, one of 8 as it is 40.
    engine = opened(measure=True)
    engine.warm_up()
    assert any("fills batches up to 8 from 7 on" in note for note in engine.notes)
    made = {}
    for count in (5, 6, 7, 8):
        engine.infer(faces(count))
        made[count] = engine.run.flexible(count).rows
    assert made == {5: 5, 6: 6, 7: 6, 8: 6}


def test_a_flexible_batch_that_comes_before_the_last_was_fetched_does_not_spoil_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, 100, 10, 40)
    engine = opened(measure=True)
    engine.warm_up()
    alone = [engine.infer(faces(count)) for count in (5, 7, 6)]
    waiting = [engine.submit(faces(count)) for count in (5, 7, 6)]
    for wanted, pending in reversed(list(zip(alone, waiting, strict=True))):
        np.testing.assert_array_equal(pending.result()["logits"], wanted["logits"])


@pytest.mark.parametrize(
    ("full_ns", "wanted"), [(5, 17), (10, 17), (11, 18), (33, 40), (57, 64), (58, 64), (90, 64)]
)
def test_where_filling_up_begins_to_pay(full_ns: int, wanted: int) -> None:
    assert flexible_below((17, 10), (64, 57), full_ns) == wanted


def test_answers_that_are_not_finite_are_an_error(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    engine.warm_up()
    pending = engine.submit(faces(2))
    lane = engine.run.padded(2)
    real = lane.answers
    monkeypatch.setattr(lane, "answers", lambda count: {k: v * np.nan for k, v in real(count).items()})
    with pytest.raises(EngineFailed, match=r"'face-tiny/.*not finite \(items \[0, 1\]\)"):
        pending.result()


def test_kernels_of_an_earlier_start_are_handed_on_with_tensorrt_rtx_only(opened: Open) -> None:
    engine = opened()
    engine.warm_up()
    kept = engine.runtime_cache()
    assert bool(kept) is ("rtx" in engine.spec.name)
    # A kernel for each profile, as 'profile:rows'; without the cache in every context there would be none.
    assert not kept or kept.split()[-len(SIZES) :] == [b"0:1", b"1:4", b"2:8"]
    later = opened(runtime_cache=kept)
    assert later.runtime_cache() == kept
    if kept:
        assert opened(runtime_cache=b"of another card").runtime_cache() != kept
