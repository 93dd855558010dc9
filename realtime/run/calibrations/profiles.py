"""Personal profiles: one small JSON file each in the user's data folder, listed and erased by name.

A profile holds numbers about how a network judges one person at rest, see `calibration.baseline`. It never
leaves this machine, and erasing overwrites it before it is removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from calibration.baseline import Baseline, BaselineRefused, from_json
from engines import manifest as manifests
from engines.load import manifest_path
from realtime.errors import CalibrationRefused, SettingsError
from realtime.networks import Networks
from realtime.people import Habit
from realtime.run.settings import Settings
from realtime.run.user_folders import data_dir, write_whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def profiles_folder() -> Path:
    """Where they are kept."""
    return data_dir() / "profiles"


def names() -> list[str]:
    """All profiles."""
    return sorted(path.stem for path in profiles_folder().glob("*.json"))


def save(name: str, baseline: Baseline) -> Path:
    """Keep it under that name, in the place of an older one."""
    path = _path(name)
    _overwrite(path)
    write_whole(path, json.dumps(baseline.to_json(), allow_nan=False) + "\n")
    return path


def load(name: str) -> Baseline:
    """The profile of that name. Raises CalibrationRefused if there is none, or it is damaged or newer."""
    path = _path(name)
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise CalibrationRefused(
            f"there is no profile '{name}' (known: {known}). "
            f"Make it: liveaffect calibrate baseline --profile {name}"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CalibrationRefused(f"profile '{name}' in {path} is not used: {error}. {_cure(name)}") from error


def erase(name: str) -> None:
    """Remove it so that nothing of it is left in the folder."""
    path = _path(name)
    if not path.exists():
        raise CalibrationRefused(f"there is no profile '{name}' (known: {', '.join(names()) or 'none'})")
    _overwrite(path)
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def listing() -> list[str]:
    """One line for each profile: what it holds, or why it is not used."""
    return [f"{name}: {_summary(name)}" for name in names()] or ["no profiles"]


def habit_of(settings: Settings, networks: Networks) -> Habit | None:
    """The profile that the settings name, as the path uses it; None without one.

    Raises CalibrationRefused for one that other networks made.
    """
    if not settings.profile:
        return None
    baseline = load(settings.profile)
    try:
        baseline.check(network_names(settings, networks))
    except BaselineRefused as refusal:
        raise CalibrationRefused(
            f"profile '{settings.profile}' is not used: {refusal}. {_cure(settings.profile)}"
        ) from refusal
    shifts = {name: np.array(side.shift, np.float32) for name, side in baseline.sides.items()}
    statistics = None if baseline.sound is None else baseline.sound.statistics()
    return Habit(shifts.get("face"), shifts.get("voice"), statistics)


def network_names(settings: Settings, networks: Networks) -> dict[str, str]:
    """What identifies the networks for face and voice, whatever precision or back end runs them."""
    weights = Path(settings.weights) if settings.weights else None
    found: dict[str, str] = {}
    for modality in ("face", "voice"):
        if networks.trained(modality):
            manifest = manifests.read(manifest_path(modality, weights))
            found[modality] = manifest.files.get(
                manifests.file_name(modality, "fp32"), min(manifest.files.values())
            )[:12]
        elif networks.judges(modality):
            found[modality] = "untrained"
    return found


def _summary(name: str) -> str:
    try:
        baseline = load(name)
    except CalibrationRefused as refusal:
        return str(refusal)
    parts: Mapping[str, str] = {
        modality: f"{modality} {side.seconds:.1f} s (network {side.network})"
        for modality, side in baseline.sides.items()
    }
    return ", ".join(parts.values())


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"'{name}' is no name for a profile: letters, digits, - and _, at most 40, the first no sign"
        )
    return profiles_folder() / f"{name}.json"


def _overwrite(path: Path) -> None:
    """Zeros over what is there, so that not even the freed blocks hold it, as far as the disk allows."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return


def _cure(name: str) -> str:
    return (
        f"Measure it anew: liveaffect calibrate baseline --profile {name}, "
        f"or erase it: liveaffect profile erase {name}"
    )
