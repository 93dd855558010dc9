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
from liveaffect.engines.build.plan import PORTABLE, SIZES, BuiltPlan
from liveaffect.engines.gpu_driver import Gpu, gpus
from liveaffect.engines.manifest import Manifest
from liveaffect.engines.plans import PlanKey, PlanMissing
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable
from liveaffect.engines.tensorrt_backend import Backend, find_backend
from liveaffect.realtime.testing import tiny_networks

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

    def __call__(self, content: bytes, *, report: Callable[[str], None], **asked: Any) -> BuiltPlan:
        self.built.append(asked)
        report("Building engine")
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
    assert (asked["precision"], asked["sizes"], asked["capability"]) == ("fp16", SIZES, "8.9")
    path = plans.plan_path(KEY, tmp_path)
    assert path.read_bytes() == plan
    assert path.with_suffix(".log").read_text() == "INFO one\nWARNING two\n"
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["key"] == {**asdict(KEY), "sizes": list(SIZES)}
    assert "building a plan for TensorRT 10.16.1.11, once" in said[0]
    assert said[1] == "face fp16: Building engine"
    assert str(path) in said[-1]
    assert "in 1.2 s" in said[-1]


def test_a_plan_is_not_built_from_another_file_or_by_another_version(
    tmp_path: Path, builder: Builder
) -> None:
    with pytest.raises(EngineFileError, match="the plan wanted is for"):
        obtained(KEY, tmp_path, content=b"something else")
    with pytest.raises(EngineFileError, match=r"on tensorrt 10\.16\.1\.11; given are .* TensorRT-RTX 1\.7"):
        plans.obtain(KEY, lambda: CONTENT, RTX, cache=tmp_path)
    assert builder.built == []
    assert plans.listed(tmp_path) == ()


@pytest.fixture
def kept(tmp_path: Path, builder: Builder) -> Path:
    """The path of a plan in the cache."""
    obtained(KEY, tmp_path)
    return plans.plan_path(KEY, tmp_path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def turn_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut_short, turn_one_bit, empty])
def test_a_damaged_plan_is_refused_by_name_with_what_mends_it(
    kept: Path, harm: Callable[[Path], None], builder: Builder
) -> None:
    harm(kept)
    with pytest.raises(EngineFileError) as refused:
        plans.read_plan(KEY, kept.parent)
    assert f"the plan {kept} is truncated or altered" in str(refused.value)
    assert "'liveaffect build --precision fp16'" in str(refused.value)
    said: list[str] = []
    mended = obtained(KEY, kept.parent, said)
    assert "building anew, because" in said[0]
    assert plans.read_plan(KEY, kept.parent) == mended
    assert len(builder.built) == 2


def rewrite(path: Path, **changes: Any) -> None:
    about = json.loads(path.with_suffix(".json").read_text())
    about["key"] |= changes
    path.with_suffix(".json").write_text(json.dumps(about))


@pytest.mark.parametrize("part", [field.name for field in fields(PlanKey)])
def test_a_plan_of_another_key_under_this_name_is_refused(kept: Path, part: str) -> None:
    """Somebody copied a cache from elsewhere and renamed the files."""
    there = asdict(other(KEY, part)[0])[part]
    rewrite(kept, **{part: there})
    with pytest.raises(EngineFileError) as refused:
        plans.read_plan(KEY, kept.parent)
    assert f"the plan {kept} is for {part} {there} (wanted {getattr(KEY, part)}); build" in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": {}}', '{"key": 3, "sha256": ""}'])
def test_a_damaged_description_is_refused_and_still_listed(kept: Path, text: str) -> None:
    kept.with_suffix(".json").write_text(text)
    with pytest.raises(EngineFileError, match="of a plan is missing or damaged"):
        plans.read_plan(KEY, kept.parent)
    (found,) = plans.listed(kept.parent)
    assert (found.path, found.key) == (kept, None)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_without_plan_or_description_there_is_no_plan(kept: Path, suffix: str) -> None:
    kept.with_suffix(suffix).unlink()
    with pytest.raises(PlanMissing, match=r"no fp16 plan for the face network yet; build it with"):
        plans.read_plan(KEY, kept.parent)


def test_half_written_plans_are_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine goes down after every possible number of files."""
    whole = manifests.write_whole
    for last in range(3):
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
    assert (found.path, found.key, found.seconds) == (kept, KEY, 1.25)
    assert found.size > 1000 + len(kept.read_bytes())
    assert found.built == kept.stat().st_mtime
    count, freed = plans.clean(kept.parent)
    assert count == 5
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
    return manifests.read(tiny_networks.write_tiny(tmp_path, "face"))


def test_rtx_plans_are_portable_and_those_for_older_cards_are_not(manifest: Manifest) -> None:
    for gpu in (None, CARD, replace(CARD, capability=(9, 0))):
        key = plans.key_of(manifest, "fp16", RTX, gpu)
        assert (key.gpu, key.capability) == (PORTABLE, PORTABLE)
    key = plans.key_of(manifest, "fp16", RTX, TURING)
    assert (key.gpu, key.capability) == (TURING.name, "7.5")


def test_tensorrt_builds_for_the_card_that_is_there_and_for_no_other(manifest: Manifest) -> None:
    key = plans.key_of(manifest, "fp32-tf32", FULL, CARD)
    assert (key.gpu, key.capability, key.sizes) == (CARD.name, "8.9", SIZES)
    assert key.onnx == manifest.files["face.onnx"]
    with pytest.raises(EngineUnavailable, match=r"TensorRT 10\.16\.1\.11 builds plans only on the GPU"):
        plans.key_of(manifest, "fp16", FULL, None)


def test_an_int8_plan_wants_an_int8_file(manifest: Manifest) -> None:
    with pytest.raises(EngineFileError, match=r"'face-tiny' comes without face\.int8\.onnx"):
        plans.key_of(manifest, "int8", RTX)


def test_plans_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plans.plans_dir() == tmp_path / "liveaffect" / "plans"


def test_a_real_plan_goes_through_the_cache(tmp_path: Path) -> None:
    try:
        backend = find_backend()
    except EngineUnavailable as err:
        pytest.skip(str(err))
    path = tiny_networks.write_tiny(tmp_path, "fusion")
    found = manifests.read(path)
    key = plans.key_of(found, "fp32", backend, next(iter(gpus()), None), sizes=(1,))
    cache = tmp_path / "cache"
    built = plans.obtain(key, lambda: manifests.load_bytes(found, tmp_path, "fp32"), backend, cache=cache)
    assert plans.read_plan(key, cache) == built
    assert len(built) > 10_000
    assert plans.plan_path(key, cache).with_suffix(".log").read_text().startswith("INFO ")


def test_reading_plans_needs_neither_onnx_nor_tensorrt() -> None:
    code = (
        "import sys, liveaffect.engines.plans; liveaffect.engines.plans.listed(); "
        "print({'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'torch'} & set(sys.modules) or 'none')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "none"
