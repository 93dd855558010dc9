"""The one loop that trains every network: seeded, timed, logged, and resumed to the same curve.

Dice are thrown anew for every epoch from the seed and the epoch's number. A checkpoint, written after each
epoch, therefore needs no state of any dice, and a training that was killed anywhere goes on exactly as if
it had not been. What is shipped is the average of the weights over the last steps, not a lucky epoch: no
epoch is ever chosen by its figures.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import pickle
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.stopwatch import wall_ns

_HERE = Path(__file__).resolve().parent
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
CHECKPOINT_FORMAT = 1
_MAY_CHANGE = ("epochs", "limit_s", "threads", "device", "bf16")
"""What a training that goes on may do differently, as on another machine. Cut short or prolonged, its rate
follows the length."""

Report = Callable[[str], None]
B = TypeVar("B")
_log = logging.getLogger(__name__)


class Task(Protocol[B]):
    """What is learnt: the loop knows neither pictures nor sound."""

    name: str
    """Data and recipe in one word, such as a hash: a checkpoint of another task is refused."""
    steps: int
    """Batches in one epoch."""

    def batches(self, epoch: int, rng: np.random.Generator) -> Iterator[B]:
        """`steps` batches; all chance comes from `rng`."""
        ...

    def loss(self, network: nn.Module, batch: B) -> Tensor:
        """One number to make small. The network runs under autocast; losses belong in float32."""
        ...

    def figures(self, network: nn.Module) -> Mapping[str, float]:
        """How good the averaged network is now, in evaluation mode; for the log alone."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    rate: float = 2e-3
    warm_up: float = 0.05
    """Share of all steps in which the rate rises from zero."""
    last_rate: float = 0.01
    """The rate at the end as a share of `rate`; a cosine leads there."""
    weight_decay: float = 0.05
    """For matrices and kernels; biases and normalisation are left alone."""
    average: float = 0.998
    """Share of the averaged weights that one step keeps."""
    clip: float = 5.0
    """Longest gradient."""
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    threads: int = 0
    """Of torch; 0 leaves it its own choice."""
    limit_s: float = math.inf
    """Ends after the epoch in which this wall time ran out; the checkpoint goes on from there."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a training leaves."""

    network: nn.Module
    """The averaged weights, in evaluation mode."""
    history: tuple[Mapping[str, float], ...]
    """One row an epoch, as in the log."""
    finished: bool
    """False when the time limit came first."""

    @property
    def state(self) -> dict[str, Tensor]:
        """For `liveaffect.engines.build.export_onnx.export`."""
        return {
            name: value.float().cpu() if value.is_floating_point() else value.cpu()
            for name, value in self.network.state_dict().items()
        }


def train(
    network: nn.Module, task: Task[B], schedule: Schedule, folder: Path, *, report: Report = _log.info
) -> TrainingOutcome:
    """Train, or go on where a checkpoint in `folder` stands. `report` gets a line an epoch.

    Raises EngineFileError for a checkpoint that is damaged or belongs to another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if schedule.threads:
        torch.set_num_threads(schedule.threads)
    # Kernels in the order that convolutions on processors and tensor cores like best: an eighth faster.
    network = network.to(schedule.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(network, task, schedule)
    if planned := run.resume(folder / CHECKPOINT):
        report(f"going on behind epoch {run.epoch} of {planned}, towards {schedule.epochs}")
    start_ns, first = wall_ns(), run.epoch
    while run.epoch < schedule.epochs and (wall_ns() - start_ns) * 1e-9 < schedule.limit_s:
        row = run.one_epoch()
        write_whole(folder / CHECKPOINT, run.checkpoint())
        lines = "".join(json.dumps(entry) + "\n" for entry in run.history)
        write_whole(folder / LOG, lines.encode())
        spent_s = (wall_ns() - start_ns) * 1e-9
        left_s = spent_s / (run.epoch - first) * (schedule.epochs - run.epoch)
        told = ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key not in ("epoch", "rate"))
        report(f"epoch {run.epoch} of {schedule.epochs}: {told}; {_duration(left_s)} left")
    return TrainingOutcome(run.averaged.eval(), tuple(run.history), run.epoch >= schedule.epochs)


def best_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def half_precision_pays(device: str) -> bool:
    """On GPUs, and on processors that multiply such numbers themselves; others lose time by it."""
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device != "cpu" or any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))


def rate_at(schedule: Schedule, step: int, steps: int) -> float:
    """The learning rate of one step out of all: up in a line, down in a cosine."""
    rising = max(round(schedule.warm_up * steps), 1)
    if step < rising:
        return schedule.rate * (step + 1) / rising
    along = (step - rising) / max(steps - rising, 1)
    low = schedule.last_rate
    return schedule.rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * along)))


def optimiser_of(network: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over every parameter; only matrices and kernels decay.

    A part with a `learning_share` learns at that share of the rate: it was taught before.
    """
    slow = {
        id(p): float(share)
        for part in network.modules()
        if (share := getattr(part, "learning_share", None)) is not None
        for p in part.parameters()
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for p in network.parameters():
        if p.requires_grad:
            groups.setdefault((p.ndim > 1, slow.get(id(p), 1.0)), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": those, "weight_decay": schedule.weight_decay if decays else 0.0, "share": share}
            for (decays, share), those in groups.items()
        ],
        lr=schedule.rate,
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a training left behind its last epoch. Raises EngineFileError if that cannot be read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as err:
        raise EngineFileError(f"the checkpoint {path} is damaged ({err}); remove it to begin anew") from err
    if not isinstance(found, dict) or found.get("format") != CHECKPOINT_FORMAT:
        raise EngineFileError(f"the checkpoint {path} is of another version; remove it to begin anew")
    return found


class _Run(Generic[B]):
    """A training between two epochs."""

    def __init__(self, network: nn.Module, task: Task[B], schedule: Schedule) -> None:
        self.network = network
        self.averaged = copy.deepcopy(network).requires_grad_(False)
        self.optimiser = optimiser_of(network, schedule)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self._task = task
        self._schedule = schedule

    def one_epoch(self) -> dict[str, float]:
        """Train one epoch and measure; its row in the log."""
        start_ns = wall_ns()
        devices = [] if self._schedule.device == "cpu" else [torch.device(self._schedule.device)]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._schedule.seed * 100_003 + self.epoch)
            rng = np.random.default_rng((self._schedule.seed, self.epoch))
            loss, rate = self._learn(rng)
        self.epoch += 1
        row = {"epoch": float(self.epoch), "rate": rate, "loss": loss}
        self.averaged.eval()
        with torch.inference_mode():
            row |= {name: float(value) for name, value in self._task.figures(self.averaged).items()}
        row["seconds"] = round((wall_ns() - start_ns) * 1e-9, 1)
        self.history.append(row)
        return row

    def _learn(self, rng: np.random.Generator) -> tuple[float, float]:
        """One pass; the mean loss and the last rate."""
        plan, task = self._schedule, self._task
        steps, total, rate = task.steps, torch.zeros((), device=plan.device), 0.0
        kind = torch.device(plan.device).type
        self.network.train()
        for at, batch in enumerate(task.batches(self.epoch, rng)):
            step = self.epoch * steps + at
            rate = rate_at(plan, step, plan.epochs * steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            with torch.autocast(kind, torch.bfloat16) if plan.bf16 else nullcontext():
                loss = task.loss(self.network, batch)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), plan.clip)
            self.optimiser.step()
            self._average(step)
            total += loss.detach().float()
        mean = float(total) / steps
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss of '{task.name}' became {mean} in epoch {self.epoch + 1}; "
                f"lower the rate {plan.rate}"
            )
        return mean, rate

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # Early averages would remember the random start; so they begin short and grow.
        new = 1.0 - min(self._schedule.average, (1 + step) / (10 + step))
        for kept, now in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(now, new)
            else:
                kept.copy_(now)

    def checkpoint(self) -> bytes:
        """Everything that the next epoch depends on."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "task": self._task.name,
            "schedule": asdict(self._schedule),
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def resume(self, path: Path) -> int:
        """Take over a checkpoint of this training; how many epochs it was to have, 0 if there is none."""
        if not path.exists():
            return 0
        found = read_checkpoint(path)
        told = {"task": found.get("task"), **found.get("schedule", {})}
        wanted = {"task": self._task.name, **asdict(self._schedule)}
        other = [key for key in wanted if key not in _MAY_CHANGE and told.get(key) != wanted[key]]
        if other:
            what = ", ".join(f"{key} {told.get(key)} there and {wanted[key]} here" for key in other)
            raise EngineFileError(f"{path} is of another training: {what}; remove it or take another folder")
        self.network.load_state_dict(found["network"])
        self.averaged.load_state_dict(found["averaged"])
        self.optimiser.load_state_dict(found["optimiser"])
        self.epoch = found["epoch"]
        self.history = list(found["history"])
        return int(found["schedule"]["epochs"])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def source_commit(folder: Path = _HERE) -> str:
    """The commit that the checkout around `folder` stands at; 'unknown' for an installed package."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ran.stdout.strip()[:12]
