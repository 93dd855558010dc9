"""The part of the report about INT8: methods beside each other, and layers in the order of the graph."""

from __future__ import annotations

from pathlib import Path

from liveaffect.calibration import plots
from liveaffect.calibration.int8_tables import CHOSEN, FP32, read
from liveaffect.calibration.page import figure, table
from liveaffect.calibration.plots import Bar

LONGEST_NAME = 34


def forms(folder: Path, kind: str) -> str:
    """Every method and what was chosen in the end, as bars and as a table."""
    found = read(folder, kind)
    bars = [
        Bar(form, verdict.divergence, f"{verdict.divergence:.5f}", form == CHOSEN)
        for form, verdict in found.forms.items()
        if form != FP32
    ]
    cells = [
        [
            f"{form} (taken)" if form == found.method else form,
            f"{verdict.accuracy:.4f}",
            f"{100 * (found.forms[FP32].accuracy - verdict.accuracy):+.2f}",
            f"{verdict.flips:.2%}",
            f"{verdict.log_loss:.4f}",
            f"{verdict.calibration_error:.4f}",
        ]
        for form, verdict in found.forms.items()
    ]
    heads = ("form", "accuracy", "points lost", "called otherwise", "log loss", "calibration error")
    back = [layer.name for layer in found.layers if layer.excluded]
    told = f"{found.model}, {found.items} items; '{CHOSEN}' is {found.method} with " + (
        f"{', '.join(map(short, back))} back in fp32" if back else "every layer in INT8"
    )
    what = f"divergence of the {kind} network"
    return figure("divergence from fp32, nats", plots.bars(what, bars), told, wide=True) + table(heads, cells)


def sensitive(folder: Path, kind: str) -> str:
    """What each layer does alone, against its work."""
    layers = read(folder, kind).layers
    bars = []
    for layer in layers:
        harm = layer.harm(layers)
        told = f"{harm:.0%}" + (", back to fp32" if layer.excluded else "")
        bars.append(Bar(short(layer.name), harm, told, layer.excluded, layer.work))
    drawn = plots.bars(f"harm of the layers of the {kind} network", bars, names=230)
    return figure(
        "share of the harm, each layer quantised alone", drawn, "short line: share of the work", wide=True
    )


def short(name: str) -> str:
    """Where a layer is, without its operator and without what its path says twice."""
    parts = [part for part in name.split("/") if part and part != "folded"]
    parts = parts[:-1] or parts
    kept = [
        part
        for part, after in zip(parts, [*parts[1:], ""], strict=True)
        if after != part and not after.startswith(part + ".")
    ]
    text = "/".join(kept)
    return text if len(text) <= LONGEST_NAME else "..." + text[-LONGEST_NAME + 3 :]
