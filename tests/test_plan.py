"""Every default network becomes a plan in every precision, with the tensors and types that it should have.

TensorRT-RTX parses and builds without a GPU, so all of this is real; only loading a plan needs a card.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from liveaffect.engines import manifest as manifests
from liveaffect.engines import plans as planning
from liveaffect.engines import whisper
from liveaffect.engines.gpu_driver import Backend, find_backend
from liveaffect.engines.load import FULL
from liveaffect.engines.manifest import SHIPPED, Manifest
from liveaffect.engines.plans import SIZES, Prepared, batch_ranges, build_plan, prepare_plan
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.realtime.testing import engines

ONE_SIZE = (4,)
"""Voice networks are built with one profile here: each costs as much as the network itself."""
BUILT_AT = (("face", SIZES), ("voice", ONE_SIZE))


@dataclass(frozen=True)
class Shelf:
    """One network on disk, with its INT8 file."""

    manifest: Manifest
    folder: Path

    def content(self, precision: str) -> bytes:
        return planning.source_bytes(self.manifest, self.folder, precision)


@pytest.fixture(scope="session")
def backend() -> Backend:
    try:
        return find_backend()
    except EngineUnavailable as err:
        pytest.skip(str(err))


@pytest.fixture(scope="session")
def shelves() -> dict[str, Shelf]:
    """The shipped networks by kind, and the full voice."""
    folders = {"face": SHIPPED, "voice": SHIPPED, FULL: SHIPPED / FULL}
    return {
        name: Shelf(manifests.read(folder / f"{'voice' if name == FULL else name}.json"), folder)
        for name, folder in folders.items()
    }


def on_shelf(shelves: dict[str, Shelf], name: str) -> Shelf:
    """The network, if all that it stands on is here."""
    if why := whisper.why_not(shelves[name].manifest):
        pytest.skip(why)
    return shelves[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sizes", "precision"),
    [
        *((kind, sizes, one) for kind, sizes in BUILT_AT for one in ("fp32", "fp16", "int8")),
        *((FULL, ONE_SIZE, one) for one in ("fp32", "fp16")),
    ],
)
def test_every_default_network_is_parsed_and_built(
    shelves: dict[str, Shelf],
    backend: Backend,
    kind: str,
    sizes: tuple[int, ...],
    precision: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shelf = on_shelf(shelves, kind)
    content = shelf.content(precision)
    built = build_plan(content, precision=precision, backend=backend, sizes=sizes)
    assert len(built.plan) > 100_000
    assert all(tensor.name.encode() in built.plan for tensor in shelf.manifest.inputs)
    assert any(line.startswith("INFO ") for line in built.log)
    assert not any(line.startswith(("ERROR", "INTERNAL_ERROR")) for line in built.log)

    assert capfd.readouterr() == ("", "")


def tensors_of(prepared: Prepared, count: int, get: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = [get(at) for at in range(count)]
    return {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in found}


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *((kind, one) for kind in ("face", "voice") for one in ("fp32", "fp16", "int8")),
        *((FULL, one) for one in ("fp32", "fp16")),
    ],
)
def test_tensors_and_profiles_are_those_of_the_manifest(
    shelves: dict[str, Shelf], backend: Backend, kind: str, precision: str
) -> None:
    shelf = on_shelf(shelves, kind)
    prepared = prepare_plan(shelf.content(precision), precision=precision, backend=backend)
    network = prepared.network
    names = {"uint8": "UINT8", "float32": "FLOAT"}
    wanted_in = {t.name: (names[t.dtype], (-1, *t.shape)) for t in shelf.manifest.inputs}
    wanted_out = {t.name: (names[t.dtype], (-1, *t.shape)) for t in shelf.manifest.outputs}
    assert tensors_of(prepared, network.num_inputs, network.get_input) == wanted_in
    assert tensors_of(prepared, network.num_outputs, network.get_output) == wanted_out
    assert prepared.config.num_optimization_profiles == len(SIZES)
    for profile, (low, high) in zip(prepared.profiles, batch_ranges(SIZES), strict=True):
        for tensor in shelf.manifest.inputs:
            shapes = [tuple(shape) for shape in profile.get_shape(tensor.name)]
            assert shapes == [(batch, *tensor.shape) for batch in (low, high, high)]


def types_by_layer(prepared: Prepared) -> Counter[tuple[str, str]]:
    """How often each kind of layer answers in each type."""
    layers = [prepared.network.get_layer(at) for at in range(prepared.network.num_layers)]
    return Counter((layer.type.name, layer.get_output(0).dtype.name) for layer in layers)


def test_in_half_precision_tensorrt_sees_half_products_and_a_full_front_end(
    shelves: dict[str, Shelf], backend: Backend
) -> None:
    face, voice = (
        types_by_layer(prepare_plan(shelves[kind].content("fp16"), precision="fp16", backend=backend))
        for kind in ("face", "voice")
    )
    assert face["CONVOLUTION", "HALF"] >= 5
    assert face["CONVOLUTION", "FLOAT"] == 0
    assert voice["CONVOLUTION", "FLOAT"] >= 2, "spectrum and bands"
    assert voice["CONVOLUTION", "HALF"] + voice["MATRIX_MULTIPLY", "HALF"] >= 5
    assert voice["SOFTMAX", "HALF"] == voice["REDUCE", "HALF"] == voice["NORMALIZATION", "HALF"] == 0


def test_in_int8_products_are_fed_by_explicit_marks(shelves: dict[str, Shelf], backend: Backend) -> None:
    for kind in ("face", "voice"):
        types = types_by_layer(prepare_plan(shelves[kind].content("int8"), precision="int8", backend=backend))
        assert types["QUANTIZE", "INT8"] >= 5
        assert types["DEQUANTIZE", "FLOAT"] >= types["QUANTIZE", "INT8"]


@pytest.fixture(scope="module")
def tiny() -> bytes:
    content: bytes = engines.network("face").SerializeToString()
    return content


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("fp32-tf32", True), ("fp16", False)])
def test_tf32_is_off_unless_it_is_asked_for(tiny: bytes, backend: Backend, precision: str, on: bool) -> None:
    prepared = prepare_plan(tiny, precision=precision, backend=backend)
    assert prepared.config.get_flag(backend.module.BuilderFlag.TF32) is on


@pytest.mark.parametrize("sizes", [(), (4, 1), (0, 4), (4, 4)])
def test_sizes_that_make_no_sense_are_refused(tiny: bytes, backend: Backend, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising batch sizes from 1 up"):
        build_plan(tiny, precision="fp32", backend=backend, sizes=sizes)


@pytest.mark.parametrize(
    ("cut", "words"), [(slice(0), "no network in this file"), (slice(500), "cannot read this network")]
)
def test_a_truncated_file_is_refused(tiny: bytes, backend: Backend, cut: slice, words: str) -> None:
    with pytest.raises(EngineFileError, match=words):
        build_plan(tiny[cut], precision="fp32", backend=backend)
    with pytest.raises(EngineFileError, match="cannot read this network"):
        build_plan(tiny[cut], precision="fp16", backend=backend)


def test_what_the_parser_refuses_is_quoted_with_the_name_of_the_node(backend: Backend) -> None:
    model = engines.network("face")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.name, relu.domain = "FutureRelu", "the_new_one", "someone.else"
    with pytest.raises(EngineFileError, match=r"cannot read this network: .*'the_new_one' \(FutureRelu\)"):
        build_plan(model.SerializeToString(), precision="fp32", backend=backend)


def test_a_fixed_batch_axis_is_refused(backend: Backend) -> None:
    model = engines.network("face")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(EngineFileError, match=r"'crop' has the shape \(4, 64, 64, 3\).*free batch axis"):
        build_plan(model.SerializeToString(), precision="fp32", backend=backend)


def test_a_precision_wants_its_own_file(shelves: dict[str, Shelf], backend: Backend, tiny: bytes) -> None:
    with pytest.raises(EngineFileError, match="an int8 plan is built from the INT8 file"):
        build_plan(tiny, precision="int8", backend=backend)
    quantised = shelves["face"].content("int8")
    for precision in ("fp32", "fp16"):
        with pytest.raises(EngineFileError, match=f"a plan in {precision} is built from the fp32 file"):
            build_plan(quantised, precision=precision, backend=backend)
    with pytest.raises(
        ValueError, match="no precision 'int3'; plans are built in fp32, fp32-tf32, fp16, int8"
    ):
        build_plan(tiny, precision="int3", backend=backend)


def test_an_asymmetric_int8_file_is_refused_by_name(backend: Backend) -> None:
    model = engines.network("fusion")
    first = model.graph.node[0].output[0]
    scale = numpy_helper.from_array(np.asarray(0.1, np.float32), "scale")
    zero = numpy_helper.from_array(np.asarray(3, np.int8), "zero")
    model.graph.initializer.extend((scale, zero))
    marks = [
        helper.make_node("QuantizeLinear", [first, "scale", "zero"], ["q"], name="uneven"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="uneven_back"),
    ]
    for node in list(model.graph.node)[1:]:
        node.input[:] = ["dq" if name == first else name for name in node.input]
    for at, node in enumerate(marks):
        model.graph.node.insert(1 + at, node)
    with pytest.raises(EngineFileError, match=r"'uneven.*zero point"):
        build_plan(model.SerializeToString(), precision="int8", backend=backend)
