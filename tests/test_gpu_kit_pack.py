"""What crosses to a machine without internet arrives whole or not at all."""

from __future__ import annotations

import importlib
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

pack, unpack = (importlib.import_module(f"gpu.{name}") for name in ("pack", "unpack"))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two small archives in parts, with list and unpacker."""
    out, rng = tmp_path / "parts", np.random.default_rng(0)
    out.mkdir()
    entries = []
    for name, size in (("runtime", 250_000), ("networks", 1_000)):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_bytes(rng.bytes(size))
        (folder / "script").write_text("#!/bin/sh\n")
        (folder / "script").chmod(0o755)
        filters = pack.compressor(libraries=False, fast=True)
        entries.append(pack.pack(name, folder, out, filters, part_bytes=100_000))
    pack.write_list(entries, out)
    return out


def test_what_was_packed_is_unpacked_byte_for_byte_with_a_command_that_measures(
    packed: Path, tmp_path: Path
) -> None:
    parts = sorted(path.name for path in packed.glob("runtime.part-*"))
    assert len(parts) == 3
    assert all((packed / name).stat().st_size <= 100_000 for name in parts)
    target = tmp_path / "target"
    assert unpack.main([str(target), "--parts", str(packed)]) == 0
    for name in ("runtime", "networks"):
        assert (target / name / "deep" / "file").read_bytes() == (tmp_path / name / "deep/file").read_bytes()
        assert (target / name / "script").stat().st_mode & 0o111
    assert "benchmarks/gpu/run.py" in (target / "measure").read_text()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda part: part.write_bytes(b"x" * part.stat().st_size), "runtime.part-01 is damaged"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1]), "runtime.part-01 has 99999 bytes"),
        (lambda part: part.unlink(), "runtime.part-01 is missing"),
    ],
    ids=["altered", "cut", "missing"],
)
def test_a_harmed_part_is_refused_by_name_before_anything_is_written(
    packed: Path,
    tmp_path: Path,
    harm: Callable[[Path], object],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(packed / "runtime.part-01")
    target = tmp_path / "target"
    assert unpack.main([str(target), "--parts", str(packed)]) == 1
    assert said in capsys.readouterr().err
    assert not target.exists()
    assert unpack.main([str(target), "--parts", str(packed), "--only", "networks"]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["measure", "networks"]


def test_an_archive_that_is_not_there_and_a_missing_list_are_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(unpack.PartError, match="no archive wheels; there are runtime, networks"):
        unpack.check(packed, ["wheels"])
    with pytest.raises(unpack.PartError, match=r"no readable parts\.json"):
        unpack.check(tmp_path)


def test_the_same_folder_packs_to_the_same_bytes_and_libraries_pack_with_their_own_filter(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "lib.so").write_bytes(bytes(range(256)) * 64)
    filters = pack.compressor(libraries=True, fast=False)
    assert filters[0]["id"] == lzma.FILTER_X86
    filters[1]["dict_size"] = 1 << 16
    sums = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sums.append(pack.pack("x", tmp_path / "in", tmp_path / name, filters)["parts"][0]["sha256"])
    assert sums[0] == sums[1]
