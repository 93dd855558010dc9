"""Cuts films into what the networks are shown: crops of a face with their times, and sound.

How a face is found and cut out is told by whoever calls, so that a corpus is cut exactly as live. What was
cut is kept in files named by a hash of where it came from and how; a cutting that was stopped goes on where
it was, on as many cores as it is given.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.manifest import write_whole
from liveaffect.engines.protocol import EngineError
from liveaffect.engines.stopwatch import wall_ns
from liveaffect.engines.training.corpora_films import DAMAGED, FilmReading, FilmTake

VERSION = 1
"""Of what a file of the cache holds."""
REPORT_EVERY = 50


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One utterance as the networks are shown it."""

    crops: NDArray[np.uint8]
    """(n, 64, 64, 3) RGB; none where no face was found."""
    times_s: NDArray[np.float32]
    """(n,): from the beginning of the utterance."""
    samples: NDArray[np.float16]
    """Mono, 16 kHz."""


Cutter = Callable[[Sequence[FilmTake], float], Iterable["tuple[FilmTake, Cut | str]"]]
"""Utterances of one film, in the order of their beginnings, and pictures a second, to what they come to, or
to what is wrong with them. It is called in processes of its own, so it must be a function of a module."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """What cutting a corpus left."""

    files: dict[str, Path]
    """By the utterance's name; those that could not be cut are not there."""
    made: int
    seconds: float
    """Wall time of those that were made now."""


@dataclass(frozen=True, slots=True)
class CutOrder:
    """How a corpus is cut."""

    cutter: Cutter
    folder: Path
    pictures_hz: float
    workers: int = 1
    """Processes."""


def cut_all(
    takes: Sequence[FilmTake], order: CutOrder, reading: FilmReading, report: Callable[[str], None] = print
) -> Cutting:
    """Cut what was not cut yet; what cannot be is counted and named in `reading`."""
    folder, pictures_hz = order.folder, order.pictures_hz
    folder.mkdir(parents=True, exist_ok=True)
    paths = {take.name: folder / f"{take.corpus}-{_cut_fingerprint(take, pictures_hz)}.npz" for take in takes}
    waiting: dict[object, list[FilmTake]] = {}
    for take in takes:
        if not paths[take.name].exists():
            waiting.setdefault(take.film or take.sound, []).append(take)
    jobs = [sorted(films, key=lambda take: take.begin_s) for films in waiting.values()]
    total, done, failed = sum(map(len, jobs)), 0, set[str]()
    if total:
        report(f"cutting {total} of {len(takes)} utterances into {folder}")
    start_ns = wall_ns()
    for results in _worked(jobs, order, paths):
        for name, trouble in results:
            done += 1
            if trouble:
                failed.add(name)
                reading.miss(DAMAGED, f"{name}: {trouble}")
            if done % REPORT_EVERY == 0 or done == total:
                left_s = (wall_ns() - start_ns) * 1e-9 / done * (total - done)
                report(f"cut {done} of {total}, {len(failed)} damaged, {left_s / 60:.0f} min left")
    files = {name: path for name, path in paths.items() if name not in failed}
    return Cutting(files, total - len(failed), (wall_ns() - start_ns) * 1e-9 if total else 0.0)


def read_cut(path: Path) -> Cut:
    """One file of the cache. Raises EngineError that says to remove it when it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream) as kept:
            return Cut(kept["crops"], kept["times_s"], kept["samples"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as err:
        raise EngineError(f"the cut utterance {path} is damaged ({err}); remove it, it is made anew") from err


def _worked(
    jobs: Sequence[list[FilmTake]], order: CutOrder, paths: dict[str, Path]
) -> Iterator[list[tuple[str, str]]]:
    hz, workers = order.pictures_hz, order.workers
    arguments = [(order.cutter, job, [paths[take.name] for take in job], hz) for job in jobs]
    if workers <= 1 or len(jobs) <= 1:
        yield from (cut_job(*given) for given in arguments)
        return
    # A process that was forked would share the finder's threads, which then hang.
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(cut_job, *given) for given in arguments]):
            yield future.result()


def cut_job(
    cutter: Cutter, takes: Sequence[FilmTake], paths: Sequence[Path], hz: float
) -> list[tuple[str, str]]:
    """Cut the utterances of one film and keep them; the name of each and what is wrong with it."""
    where, told = dict(zip((take.name for take in takes), paths, strict=True)), dict[str, str]()
    try:
        for take, cut in cutter(takes, hz):
            told[take.name] = cut if isinstance(cut, str) else _kept(where[take.name], cut)
    except (OSError, ValueError) as err:
        # What the film came to before it broke is kept.
        return [(take.name, told.get(take.name, str(err))) for take in takes]
    return [(take.name, told.get(take.name, "the film ends before it")) for take in takes]


def _kept(path: Path, cut: Cut) -> str:
    packed = io.BytesIO()
    np.savez(packed, crops=cut.crops, times_s=cut.times_s, samples=cut.samples)
    write_whole(path, packed.getvalue())
    return ""


def _cut_fingerprint(take: FilmTake, hz: float) -> str:
    """Where it came from and how it is cut: another file or another rate is another name."""
    hashed = hashlib.sha256(repr((VERSION, hz, astuple(take))).encode())
    for path in (take.film, take.sound):
        if path is not None and path.is_file():
            stat = path.stat()
            hashed.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return hashed.hexdigest()[:24]
