"""Personal profiles: one small JSON file each in the user's data folder, listed and erased by name.

A profile holds numbers about how a network judges one person at rest, see `calibration.baseline`. It never
leaves this machine, and erasing overwrites it before it is removed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from liveaffect.engines import manifest as manifests
from liveaffect.engines.load import manifest_path
from liveaffect.engines.recipe import LABELS, SpeakerStatistics, Statistics
from liveaffect.engines.user_folders import data_dir, write_private
from liveaffect.realtime.errors import CalibrationRefused, SettingsError
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.people import Profile

FORMAT = 1
SEED_SHARE = 0.5
"""A voice begins half way between an average speaker and what was measured: neutral is not all it does."""
SIDES = ("face", "voice")
MOST_SHIFT = 2.0
"""No logit is moved by more."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class BaselineRefused(ValueError):
    """What was measured or read does not do; the message says why and what would."""


@dataclass(frozen=True, slots=True)
class Side:
    """Face or voice of one person at rest."""

    network: str
    """Which network said it; another one errs in another way."""
    shift: tuple[float, ...]
    """To be added to its logits, in the order of LABELS."""
    seconds: float

    def __post_init__(self) -> None:
        if len(self.shift) != len(LABELS):
            raise BaselineRefused(f"a shift has {len(LABELS)} numbers, not {len(self.shift)}")
        if not all(math.isfinite(value) and abs(value) <= MOST_SHIFT for value in self.shift):
            raise BaselineRefused(f"a shift lies between -{MOST_SHIFT} and {MOST_SHIFT}: {list(self.shift)}")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise BaselineRefused(f"{self.seconds} s is no length")


@dataclass(frozen=True, slots=True)
class VoiceStatistics:
    """Mean and variance of a voice, band by band, and how much of it was heard."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("variance", self.variance)):
            if not values or len(values) != len(self.mean) or not all(map(math.isfinite, values)):
                raise BaselineRefused(f"the {name} of a voice is {len(self.mean)} finite numbers")
        if min(self.variance) <= 0 or not (math.isfinite(self.seconds) and 0 < self.seconds <= 60):
            raise BaselineRefused("a variance is positive, and so is the time it was heard")

    def statistics(self) -> SpeakerStatistics:
        """Statistics to begin with, which count as little as those of a speaker nobody has heard yet."""
        begin = SpeakerStatistics.cold(kept=Statistics.of_width(len(self.mean)))
        heard = np.array(self.mean)
        square = np.array(self.variance) + np.square(heard)
        begin.total += SEED_SHARE * (heard * begin.weight - begin.total)
        begin.total_sq += SEED_SHARE * (square * begin.weight - begin.total_sq)
        return begin


@dataclass(frozen=True, slots=True)
class Baseline:
    """All that is kept of one person."""

    sides: Mapping[str, Side] = field(default_factory=dict)
    """'face', 'voice', or both."""
    sound: VoiceStatistics | None = None

    def __post_init__(self) -> None:
        if not self.sides:
            raise BaselineRefused("a profile holds a face or a voice; this one is empty")

    def check(self, networks: Mapping[str, str]) -> None:
        """Raise BaselineRefused unless these networks made it; a modality that is not judged is no matter."""
        for modality, side in self.sides.items():
            present = networks.get(modality)
            if present is not None and present != side.network:
                raise BaselineRefused(
                    f"it was measured with another {modality} network ({side.network}, this is {present})"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; rounded, so that the file stays readable."""
        out: dict[str, Any] = {"format": FORMAT}
        for modality, side in self.sides.items():
            shift = [round(value, 4) for value in side.shift]
            out[modality] = {"network": side.network, "shift": shift, "seconds": round(side.seconds, 2)}
        if self.sound is not None:
            mean, variance = ([round(v, 4) for v in band] for band in (self.sound.mean, self.sound.variance))
            out["sound"] = {"mean": mean, "variance": variance, "seconds": round(self.sound.seconds, 2)}
        return out


def from_json(content: object) -> Baseline:
    """The way back. Raises BaselineRefused, which says what is wrong."""
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise BaselineRefused("it does not say its format")
    if content["format"] != FORMAT:
        raise BaselineRefused(f"it has format {content['format']}, and this version knows {FORMAT}")
    unknown = set(content) - {"format", "sound", *SIDES}
    if unknown:
        raise BaselineRefused(f"it holds {', '.join(sorted(unknown))}, which no profile does")
    try:
        sides = {
            name: Side(str(part["network"]), _numbers(part["shift"]), float(part["seconds"]))
            for name in SIDES
            if (part := content.get(name)) is not None
        }
        sound = content.get("sound")
        if sound is None:
            return Baseline(sides)
        heard = VoiceStatistics(_numbers(sound["mean"]), _numbers(sound["variance"]), float(sound["seconds"]))
        return Baseline(sides, heard)
    except BaselineRefused:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BaselineRefused(f"something in it is wrong ({type(error).__name__}: {error})") from error


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or any(isinstance(value, bool) for value in values):
        raise TypeError(f"{values!r:.40} is no list of numbers")
    return tuple(float(value) for value in values)


def profiles_folder() -> Path:
    """Where they are kept."""
    return data_dir() / "profiles"


def profile_names() -> list[str]:
    """All profiles."""
    return sorted(path.stem for path in profiles_folder().glob("*.json"))


def save_profile(name: str, baseline: Baseline) -> Path:
    """Keep it under that name, in the place of an older one."""
    path = _path(name)
    _overwrite(path)
    write_private(path, json.dumps(baseline.to_json(), allow_nan=False) + "\n")
    return path


def load_profile(name: str) -> Baseline:
    """The profile of that name. Raises CalibrationRefused if there is none, or it is damaged or newer."""
    path = _path(name)
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        known = ", ".join(profile_names()) or "none"
        raise CalibrationRefused(
            f"there is no profile '{name}' (known: {known}). "
            f"Make it: liveaffect calibrate baseline --profile {name}"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CalibrationRefused(f"profile '{name}' in {path} is not used: {error}. {_cure(name)}") from error


def erase_profile(name: str) -> None:
    """Remove it so that nothing of it is left in the folder."""
    path = _path(name)
    if not path.exists():
        raise CalibrationRefused(
            f"there is no profile '{name}' (known: {', '.join(profile_names()) or 'none'})"
        )
    _overwrite(path)
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def profiles_in_words() -> list[str]:
    """One line for each profile: what it holds, or why it is not used."""
    return [f"{name}: {_profile_in_words(name)}" for name in profile_names()] or ["no profiles"]


def profile_of(name: str, networks: Networks, weights: Path | None) -> Profile | None:
    """The profile of that name, as the path uses it; None for no name.

    Raises CalibrationRefused for one that other networks made.
    """
    if not name:
        return None
    baseline = load_profile(name)
    try:
        baseline.check(network_names(networks, weights))
    except BaselineRefused as refusal:
        raise CalibrationRefused(f"profile '{name}' is not used: {refusal}. {_cure(name)}") from refusal
    shifts = {name: np.array(side.shift, np.float32) for name, side in baseline.sides.items()}
    statistics = None if baseline.sound is None else baseline.sound.statistics()
    return Profile(shifts.get("face"), shifts.get("voice"), statistics)


def network_names(networks: Networks, weights: Path | None) -> dict[str, str]:
    """What identifies the networks for face and voice, whatever precision or back end runs them."""
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


def _profile_in_words(name: str) -> str:
    try:
        baseline = load_profile(name)
    except CalibrationRefused as refusal:
        return str(refusal)
    parts: Mapping[str, str] = {
        modality: f"{modality} {side.seconds:.1f} s (network {side.network})"
        for modality, side in baseline.sides.items()
    }
    return ", ".join(parts.values())


def check_profile_name(name: str) -> None:
    """Raise SettingsError for what cannot be the name of a profile, before anybody is measured for it."""
    _path(name)


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
