"""A GPU that is lost, too small or given what does not fit is said so, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import probe
from liveaffect.engines.device.host import HostMemory
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.protocol import EngineFailed, EngineFileError, EngineLost, EngineUnavailable
from liveaffect.engines.tensorrt_backend import find_backend
from liveaffect.engines.tensorrt_engine import RunOptions, TensorRTEngine
from liveaffect.realtime.testing import scripted_tensorrt, tiny_networks
from liveaffect.realtime.testing.scripted_tensorrt import LosableMemory, plan_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for kind in manifests.KINDS:
        tiny_networks.write_tiny(folder, kind)
    return folder


@pytest.fixture(scope="module")
def face(tiny: Path) -> tuple[Manifest, bytes]:
    return plan_of(tiny, "face")


def faces(count: int, seed: int = 0) -> probe.Batch:
    return probe.inputs("face", count, seed=seed)


@pytest.mark.parametrize("moment", ["before submit", "before result"])
def test_a_lost_gpu_is_said_so_at_once_and_for_good(face: tuple[Manifest, bytes], moment: str) -> None:
    memory = LosableMemory()
    engine = TensorRTEngine(
        face[0],
        "fp16",
        face[1],
        backend=scripted_tensorrt.backend(),
        memory=memory,
        options=RunOptions(owns_memory=True),
    )
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
    face: tuple[Manifest, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = LosableMemory()
    options = RunOptions(graphs=False, measure=False)
    engine = TensorRTEngine(
        face[0], "fp16", face[1], backend=scripted_tensorrt.backend(), memory=memory, options=options
    )
    engine.warm_up()
    real = scripted_tensorrt.IExecutionContext.execute_async_v3
    monkeypatch.setattr(scripted_tensorrt.IExecutionContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(EngineFailed, match="a batch of 1 was refused: TensorRT does not say why") as err:
        engine.submit(faces(1))
    assert not isinstance(err.value, EngineLost)

    def refuse(_context: object, _stream: int) -> bool:
        memory.lost = True
        return False

    monkeypatch.setattr(scripted_tensorrt.IExecutionContext, "execute_async_v3", real)
    engine.infer(faces(1))
    monkeypatch.setattr(scripted_tensorrt.IExecutionContext, "execute_async_v3", refuse)
    with pytest.raises(EngineLost, match="CUDA_ERROR_DEVICE_UNAVAILABLE"):
        engine.submit(faces(1))
    engine.close()


def test_a_gpu_without_enough_memory_is_not_called_lost(face: tuple[Manifest, bytes]) -> None:
    class Small(HostMemory):
        def free_bytes(self) -> int:
            return 100_000 - sum(map(len, self._memory.values()))

    memory = Small()
    with pytest.raises(
        EngineFailed, match="opening the plan: cuMemAlloc failed with CUDA_ERROR_OUT_OF"
    ) as err:
        TensorRTEngine(face[0], "fp16", face[1], backend=scripted_tensorrt.backend(), memory=memory)
    assert not isinstance(err.value, EngineLost)
    memory.close()  # Refuses if anything was left behind.


@pytest.mark.parametrize("spoil", [lambda p: b"x" + p, lambda p: p[: len(p) // 2], lambda p: b""])
def test_a_plan_that_tensorrt_refuses_is_an_error_with_its_words(
    face: tuple[Manifest, bytes], spoil: Callable[[bytes], bytes]
) -> None:
    memory = HostMemory()
    with pytest.raises(EngineFileError, match=r"cannot open the plan of 'face-tiny/.*serialized engine"):
        TensorRTEngine(face[0], "fp16", spoil(face[1]), backend=scripted_tensorrt.backend(), memory=memory)
    memory.close()


def test_a_plan_of_another_network_is_refused(tiny: Path, face: tuple[Manifest, bytes]) -> None:
    _, plan = plan_of(tiny, "voice")
    memory = HostMemory()
    with pytest.raises(EngineFileError, match="of another network: its inputs are samples"):
        TensorRTEngine(face[0], "fp16", plan, backend=scripted_tensorrt.backend(), memory=memory)
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
