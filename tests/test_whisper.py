"""Whisper's weights are read from a file that nobody here made, and no other file is taken for it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines import whisper
from liveaffect.engines.protocol import EngineFileError

KINDS = {"float32": 0, "int8": 1, "float16": 4}


def text(words: str) -> bytes:
    content = words.encode() + b"\0"
    return struct.pack("<H", len(content)) + content


def converted(tensors: Mapping[str, NDArray[np.generic]], spec: str = "WhisperSpec") -> bytes:
    """What CTranslate2 would write for these tensors."""
    out = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        out += text(name) + struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        out += struct.pack("<BI", KINDS[tensor.dtype.name], tensor.nbytes) + tensor.tobytes()
    return out


@pytest.fixture
def tensors() -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        "encoder/conv1/weight": rng.normal(size=(4, 80, 3)).astype(np.float16),
        "encoder/layer_0/ffn/linear_0/bias": rng.normal(size=8).astype(np.float32),
        "decoder/scale": np.array(3, np.int8),
    }


def test_every_tensor_comes_back_with_its_name_shape_and_numbers(
    tmp_path: Path, tensors: dict[str, NDArray[np.generic]]
) -> None:
    path = tmp_path / whisper.FILE
    path.write_bytes(converted(tensors))
    found = whisper.read_tensors(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.parametrize("kept", [0, 3, 20, 60, 200])
def test_a_file_that_ends_too_early_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, NDArray[np.generic]], kept: int
) -> None:
    path = tmp_path / whisper.FILE
    path.write_bytes(converted(tensors)[:kept])
    with pytest.raises(EngineFileError, match=r"cannot read Whisper's weights in .*model\.bin"):
        whisper.read_tensors(path)


def test_another_kind_of_model_is_refused(tmp_path: Path, tensors: dict[str, NDArray[np.generic]]) -> None:
    path = tmp_path / whisper.FILE
    path.write_bytes(converted(tensors, spec="TransformerSpec"))
    with pytest.raises(EngineFileError, match="holds a 'TransformerSpec'"):
        whisper.read_tensors(path)


def test_only_the_file_with_the_known_sum_is_believed(
    tmp_path: Path, tensors: dict[str, NDArray[np.generic]]
) -> None:
    content = converted(tensors)
    path = tmp_path / whisper.FILE
    path.write_bytes(content)
    known = replace(whisper.TINY_EN, sha256=hashlib.sha256(content).hexdigest())
    assert set(whisper.read(tmp_path, known)) == set(tensors)
    path.write_bytes(content[:-1] + b"\1")
    with pytest.raises(EngineFileError, match=r"is not Whisper tiny\.en as known here.*liveaffect fetch"):
        whisper.read(tmp_path, known)


def test_a_missing_file_names_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"No such file.*`liveaffect fetch` brings it"):
        whisper.read(tmp_path, whisper.TINY_EN)
