"""Plans are kept under their whole key: any change of it builds anew, and what does not fit is not read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from liveaffect.engines import manifest as manifests
from liveaffect.engines import plans
from liveaffect.engines.gpu_driver import Backend, Gpu, find_backend, gpus
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import PORTABLE, SIZES, BuiltPlan, PlanKey, PlanMissing
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.realtime.testing import engines

CONTENT = b"an ONNX file"
CARD = Gpu(0, "NVIDIA Made Up 4090", (8, 9), (13, 0), 24 << 30)
TURING = replace(CARD, name="NVIDIA Made Up 2080", capability=(7, 5))
RTX = Backend(None, "tensorrt-rtx", "1.7.1.116")
FULL = Backend(None, "tensorrt", "10.16.1.11")
KEY = PlanKey(
    network="face",
    onnx=hashlib.sha256(CONTENT).hexdigest(),
    precision="fp16",
    sizes=SIZES,
    flavour="tensorrt",
    version="10.16.1.11",
    gpu=CARD.name,
    capability=CARD.sm,
)


class Builder:
    """Stands in for TensorRT and counts."""

    def __init__(self) -> None:
        self.built: list[dict[str, Any]] = []

    def __call__(self, content: bytes, **asked: Any) -> BuiltPlan:
        self.built.append(asked)
        return BuiltPlan(f"plan {len(self.built)} of {content!r}".encode(), ("INFO one", "WARNING two"), 1.25)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setattr(plans, "build_plan", made)
    return made


def obtained(key: PlanKey, cache: Path, said: list[str] | None = None, content: bytes = CONTENT) -> bytes:
    backend = Backend(None, key.flavour, key.version)
    report = (said if said is not None else []).append
    return plans.obtain(key, lambda: content, backend, report=report, cache=cache)


def other(key: PlanKey, part: str) -> tuple[PlanKey, bytes]:
    """The key with one part changed, and the file that it is for."""
    if part == "onnx":
        return replace(key, onnx=hashlib.sha256(b"another").hexdigest()), b"another"
    changed: dict[str, Any] = {
        "network": "voice",
        "precision": "int8",
        "sizes": (1, 8),
        "flavour": "tensorrt-rtx",
        "version": "11.4.0.106",
        "gpu": "NVIDIA Another",
        "capability": "12.0",
        "foreign": hashlib.sha256(b"Whisper").hexdigest(),
        "format": plans.FORMAT + 1,
    }
    return replace(key, **{part: changed[part]}), CONTENT


@pytest.mark.parametrize("part", [field.name for field in fields(PlanKey)])
def test_each_part_of_the_key_builds_anew_when_it_changes(
    part: str, tmp_path: Path, builder: Builder
) -> None:
    first = obtained(KEY, tmp_path)
    assert obtained(KEY, tmp_path) == first
    assert len(builder.built) == 1
    key, content = other(KEY, part)
    second = obtained(key, tmp_path, content=content)
    assert len(builder.built) == 2
    assert second != first
    assert obtained(KEY, tmp_path) == first, "the first plan is still there"
    assert len(builder.built) == 2


def test_a_plan_is_built_as_its_key_says_and_kept_with_its_log(tmp_path: Path, builder: Builder) -> None:
    said: list[str] = []
    plan = obtained(KEY, tmp_path, said)
    (asked,) = builder.built
    assert (asked["precision"], asked["sizes"]) == ("fp16", SIZES)
    path = plans.plan_path(KEY, tmp_path)
    assert path.read_bytes() == plan
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["key"] == {**asdict(KEY), "sizes": list(SIZES)}
    assert about["log"] == ["INFO one", "WARNING two"]
    assert "building a plan for TensorRT 10.16.1.11, once" in said[0]
    assert str(path) in said[-1]
    assert "in 1.2 s" in said[-1]


@pytest.fixture
def kept(tmp_path: Path, builder: Builder) -> Path:
    """The path of a plan in the cache."""
    obtained(KEY, tmp_path)
    return plans.plan_path(KEY, tmp_path)


@pytest.mark.parametrize("harm", [lambda plan: plan[:-3], lambda plan: b"x" + plan[1:], lambda plan: b""])
def test_a_damaged_plan_is_refused_by_name_with_what_mends_it(
    kept: Path, harm: Callable[[bytes], bytes], builder: Builder
) -> None:
    kept.write_bytes(harm(kept.read_bytes()))
    with pytest.raises(EngineFileError) as refused:
        plans.read_plan(KEY, kept.parent)
    assert f"the plan {kept} is truncated or altered" in str(refused.value)
    assert "'liveaffect build --precision fp16'" in str(refused.value)
    said: list[str] = []
    mended = obtained(KEY, kept.parent, said)
    assert "building anew, because" in said[0]
    assert plans.read_plan(KEY, kept.parent) == mended
    assert len(builder.built) == 2
    kept.unlink()
    with pytest.raises(PlanMissing, match=r"no fp16 plan for the face network yet; build it with"):
        plans.read_plan(KEY, kept.parent)


def test_a_plan_of_another_key_under_this_name_is_refused(kept: Path) -> None:
    """Somebody copied a cache from elsewhere and renamed the files."""
    about = json.loads(kept.with_suffix(".json").read_text())
    about["key"]["version"] = "9.9"
    kept.with_suffix(".json").write_text(json.dumps(about))
    with pytest.raises(EngineFileError) as refused:
        plans.read_plan(KEY, kept.parent)
    assert f"the plan {kept} is for version 9.9 (wanted {KEY.version}); build" in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": {}}', '{"key": 3, "sha256": ""}'])
def test_a_damaged_description_is_refused_and_still_listed(kept: Path, text: str) -> None:
    kept.with_suffix(".json").write_text(text)
    with pytest.raises(EngineFileError, match="of a plan is missing or damaged"):
        plans.read_plan(KEY, kept.parent)
    (found,) = plans.listed(kept.parent)
    assert (found.path, found.key) == (kept, None)


def test_half_written_plans_are_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine goes down after every possible number of files."""
    whole = manifests.write_whole
    for last in range(2):
        written: list[Path] = []

        def dies(path: Path, content: bytes, left: int = last, done: list[Path] = written) -> None:
            if len(done) == left:
                raise OSError("no power")
            done.append(path)
            whole(path, content)

        monkeypatch.setattr(plans, "write_whole", dies)
        with pytest.raises(OSError, match="no power"):
            plans.write_plan(KEY, BuiltPlan(b"plan", (), 0.0), tmp_path)
        with pytest.raises(PlanMissing):
            plans.read_plan(KEY, tmp_path)


def test_what_is_kept_is_listed_and_cleaned_with_all_that_belongs_to_it(kept: Path) -> None:
    plans.runtime_cache_path(KEY, CARD, kept.parent).write_bytes(b"k" * 1000)
    (kept.parent / f".{kept.name}.4711").write_bytes(b"left by a crash")
    foreign = kept.parent / "notes.txt"
    foreign.write_text("mine")
    (found,) = plans.listed(kept.parent)
    assert (found.path, found.key) == (kept, KEY)
    assert found.size > 1000 + len(kept.read_bytes())
    assert found.built == kept.stat().st_mtime
    count, freed = plans.clean(kept.parent)
    assert count == 4
    assert freed > found.size
    assert list(kept.parent.iterdir()) == [foreign]
    assert plans.listed(kept.parent) == ()
    assert plans.clean(kept.parent / "never made") == (0, 0)


def test_kernels_of_another_card_or_driver_lie_elsewhere(tmp_path: Path) -> None:
    cards = [CARD, TURING, replace(CARD, driver=(13, 1)), replace(CARD, capability=(8, 6))]
    paths = {plans.runtime_cache_path(KEY, card, tmp_path) for card in cards}
    assert len(paths) == len(cards)
    assert all(path.parent == tmp_path and path.name.startswith(KEY.stem) for path in paths)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return manifests.read(engines.write_tiny(tmp_path, "face"))


def test_rtx_plans_are_portable_and_refused_for_a_card_that_would_refuse_them(manifest: Manifest) -> None:
    for gpu in (None, CARD):
        key = plans.key_of(manifest, "fp16", RTX, gpu)
        assert (key.gpu, key.capability) == (PORTABLE, PORTABLE)
    for capability in ((7, 5), (9, 0)):
        with pytest.raises(EngineUnavailable, match="TensorRT-RTX does not run on NVIDIA Made Up 4090"):
            plans.key_of(manifest, "fp16", RTX, replace(CARD, capability=capability))


def test_what_was_the_fastest_is_kept_for_each_card_driver_and_network(manifest: Manifest) -> None:
    key = plans.key_of(manifest, "fp16", RTX, CARD)
    changes = [(key, CARD), (key, replace(CARD, driver=(13, 1))), (key, TURING)]
    paths = {plans.choice_path(*one) for one in [*changes, (replace(key, onnx="0"), CARD)]}
    assert len(paths) == 4
    assert plans.choice_path(replace(key, precision="int8"), CARD) in paths


def test_tensorrt_builds_for_the_card_that_is_there_and_for_no_other(manifest: Manifest) -> None:
    key = plans.key_of(manifest, "fp32-tf32", FULL, CARD)
    assert (key.gpu, key.capability, key.sizes) == (CARD.name, "8.9", SIZES)
    assert key.onnx == manifest.files["face.onnx"]
    with pytest.raises(EngineUnavailable, match=r"TensorRT 10\.16\.1\.11 builds plans only on the GPU"):
        plans.key_of(manifest, "fp16", FULL, None)


def test_a_network_on_another_whisper_is_another_plan(manifest: Manifest) -> None:
    on_whisper = [replace(manifest, foreign={"sha256": one}) for one in ("a", "b")]
    assert len({plans.key_of(one, "fp16", RTX, CARD).stem for one in (manifest, *on_whisper)}) == 3


def test_an_int8_plan_wants_an_int8_file(manifest: Manifest) -> None:
    with pytest.raises(EngineFileError, match=r"'face-tiny' comes without face\.int8\.onnx"):
        plans.key_of(manifest, "int8", RTX)


def test_a_real_plan_goes_through_the_cache(tmp_path: Path) -> None:
    try:
        backend = find_backend()
    except EngineUnavailable as err:
        pytest.skip(str(err))
    path = engines.write_tiny(tmp_path, "fusion")
    found = manifests.read(path)
    key = plans.key_of(found, "fp32", backend, next(iter(gpus()), None), sizes=(1,))
    cache = tmp_path / "cache"
    built = plans.obtain(key, lambda: manifests.load_bytes(found, tmp_path, "fp32"), backend, cache=cache)
    assert plans.read_plan(key, cache) == built
    assert len(built) > 10_000
    assert "INFO " in plans.plan_path(key, cache).with_suffix(".json").read_text()


def test_reading_plans_needs_neither_onnx_nor_tensorrt() -> None:
    code = (
        "import sys, liveaffect.engines.plans; liveaffect.engines.plans.listed(); "
        "print({'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'torch'} & set(sys.modules) or 'none')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "none"
