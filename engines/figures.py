"""matplotlib as the project uses it: for pictures in files, without a window, without a trace.

It is imported when the first figure is made, because it takes a third of a second. It keeps an index of the
fonts of this machine, which goes into this program's own cache folder and not into one of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.user_folders import cache_dir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
"""A point of text is then the same everywhere, and sizes can be given in pixels."""


def new_figure(width_px: int, height_px: int) -> Figure:
    """An empty figure that belongs to no window and to no other figure."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
    from matplotlib import rcdefaults
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcdefaults()  # a user's own style must not make pictures unreadable
    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def figure_picture(figure: Figure) -> NDArray[np.uint8]:
    """The drawn figure as an RGB picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(np.asarray(drawn, np.uint8)[..., :3])
