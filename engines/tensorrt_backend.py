"""The only module that imports TensorRT: `tensorrt`, else `tensorrt_rtx`. Others are handed what it finds.

Both have the same interface as far as this project uses it. Importing and building need no GPU with
TensorRT-RTX; nothing here makes a runtime object, which without a driver would end the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from liveaffect.engines.gpu_driver import FLAVOURS, INSTALL, TENSORRT_MODULES
from liveaffect.engines.protocol import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Backend:
    """One installed TensorRT."""

    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    flavour: str
    """'tensorrt' or 'tensorrt-rtx'."""
    version: str
    """Such as '1.7.1.116'; a plan works with exactly this one."""

    @property
    def is_rtx(self) -> bool:
        """Whether plans are finished on the user's card (TensorRT-RTX) or while building (TensorRT)."""
        return self.flavour == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{FLAVOURS[self.flavour]} {self.version}"


def find_backend() -> Backend:
    """The TensorRT that is installed, the data-centre edition first.

    Raises EngineUnavailable with what was tried and the command that installs one.
    """
    tried: list[str] = []
    for name in TENSORRT_MODULES:
        try:
            module = import_module(name)
            version = str(module.__version__)
        except ModuleNotFoundError as err:
            missing = "is not installed" if err.name == name else f"lacks a part ({err})"
            tried.append(f"{name} {missing}")
        except (ImportError, OSError, AttributeError) as err:
            tried.append(f"{name} cannot be imported ({(str(err).splitlines() or [''])[0]})")
        else:
            return Backend(module, name.replace("_", "-"), version)
    raise EngineUnavailable(
        f"there is no TensorRT: {', '.join(tried)}; {INSTALL['tensorrt-rtx']}, "
        f"or {INSTALL['tensorrt']} where the vendor's own package index can be reached"
    )
