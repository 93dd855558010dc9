"""What forms and layers of a network cost in INT8, kept as tables: CSV to be read again, Markdown for people.

What reads them needs nothing of what made them, so a report needs no library of a calibration.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from liveaffect.engines.manifest import write_whole

CHOSEN = "chosen"
FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Int8Verdict:
    """What one form of a network is worth on the exam."""

    divergence: float
    """Mean Kullback-Leibler divergence of its answers from those of fp32, in nats."""
    vector_error: float
    """Mean distance of its vectors from those of fp32, as a share of their spread."""
    accuracy: float
    flips: float
    log_loss: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Layer:
    """What it costs to quantise one layer alone."""

    name: str
    work: float
    """Its share of the multiplications in all layers."""
    divergence: float
    vector_error: float
    excluded: bool = False

    def harm(self, layers: Sequence[Layer]) -> float:
        """Its share of what all layers cost."""
        return self.divergence / max(sum(layer.divergence for layer in layers), 1e-12)


@dataclass(frozen=True, slots=True)
class Int8Table:
    """What is kept of one network's calibration."""

    kind: str
    model: str
    """Name and the first digits of the fp32 file."""
    items: int
    method: str
    forms: Mapping[str, Int8Verdict]
    """fp32, every method, and what was chosen in the end."""
    layers: tuple[Layer, ...]


def write_int8(folder: Path, table: Int8Table) -> None:
    """`face_methods.csv` and `face_layers.csv`, and `face.md` with both for people."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Int8Verdict)]
    rows = [
        [table.model, str(table.items), form, "yes" if form == table.method else ""]
        + [f"{getattr(found, name):.6f}" for name in names]
        for form, found in table.forms.items()
    ]
    _write_csv(folder / f"{table.kind}_methods.csv", ["model", "items", "form", "method", *names], rows)
    rows = [
        [one.name, f"{one.work:.6f}", f"{one.divergence:.8f}", f"{one.vector_error:.6f}", _yes(one.excluded)]
        for one in table.layers
    ]
    _write_csv(folder / f"{table.kind}_layers.csv", [field.name for field in fields(Layer)], rows)
    write_whole(folder / f"{table.kind}.md", markdown(read_int8(folder, table.kind)).encode())


def read_int8(folder: Path, kind: str) -> Int8Table:
    """The tables of one network. Raises FileNotFoundError, or ValueError where they are no such tables."""
    methods, layers = folder / f"{kind}_methods.csv", folder / f"{kind}_layers.csv"
    rows = list(csv.DictReader(io.StringIO(methods.read_text("utf-8"))))
    parts = list(csv.DictReader(io.StringIO(layers.read_text("utf-8"))))
    names = [field.name for field in fields(Int8Verdict)]
    try:
        forms = {row["form"]: Int8Verdict(**{name: float(row[name]) for name in names}) for row in rows}
        return Int8Table(
            kind=kind,
            model=rows[0]["model"],
            items=int(rows[0]["items"]),
            method=next(row["form"] for row in rows if row["method"]),
            forms=forms,
            layers=tuple(
                Layer(
                    name=part["name"],
                    work=float(part["work"]),
                    divergence=float(part["divergence"]),
                    vector_error=float(part["vector_error"]),
                    excluded=part["excluded"] == _yes(True),
                )
                for part in parts
            ),
        )
    except (KeyError, IndexError, TypeError, ValueError, StopIteration) as err:
        raise ValueError(f"{methods} and {layers} are no tables of an INT8 calibration: {err!r}") from err


def markdown(table: Int8Table) -> str:
    """Both tables for people."""
    lines = [
        f"Network `{table.model}`, judged on {table.items} items of the calibrate side.\n",
        "| form | divergence, nats | vector error | accuracy | flips | log loss | calibration error |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for form, found in table.forms.items():
        name = f"**{form}**" if form in (table.method, CHOSEN) else form
        lines.append(
            f"| {name} | {found.divergence:.5f} | {found.vector_error:.1%} | {found.accuracy:.4f} "
            f"| {found.flips:.2%} | {found.log_loss:.4f} | {found.calibration_error:.4f} |"
        )
    lines += [
        "",
        "| layer, quantised alone | share of work | divergence, nats | share of harm | in INT8 |",
        "|---|--:|--:|--:|---|",
    ]
    for layer in table.layers:
        lines.append(
            f"| `{layer.name}` | {layer.work:.1%} | {layer.divergence:.6f} "
            f"| {layer.harm(table.layers):.1%} | {'no, back to fp32' if layer.excluded else 'yes'} |"
        )
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([heads, *rows])
    write_whole(path, out.getvalue().encode())


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""
