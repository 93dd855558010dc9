"""What every source must do, real or fake: one function, run on each of them.

Readers build on exactly these promises, so a source that passes can be put in place of any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from liveaffect.realtime.errors import EndOfStream, SourceError
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.source import CountsLosses, Source

_TRIES = 600
"""Reads of 20 ms without an item after which a source counts as silent."""


@dataclass(slots=True)
class _Seen:
    seqs: list[int] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)
    last_ns: dict[str, int] = field(default_factory=dict)

    def note(self, item: VideoFrame | AudioBlock, name: str, *, merged: bool) -> None:
        assert item.source == name, f"an item says it is from {item.source}, the source is {name}"
        kind = "items" if merged else type(item).__name__
        last_ns = self.last_ns.get(kind, item.captured_ns)
        assert item.captured_ns >= last_ns, f"time went back from {last_ns} to {item.captured_ns}"
        self.last_ns[kind] = item.captured_ns
        array = item.image if isinstance(item, VideoFrame) else item.samples
        assert not array.flags.writeable, "an array that several threads share can be written to"
        if isinstance(item, VideoFrame):
            self.seqs.append(item.seq)
        else:
            assert len(item.samples) > 0, "an empty block"
            self.samples.append((item.first, item.end))


def check_source(
    make: Callable[[], Source],
    *,
    kinds: frozenset[str],
    live: bool = False,
    items: int = 40,
) -> None:
    """Assert the contract. `kinds` holds 'video', 'audio' or both.

    A source may leave numbers out, but only as many as it has counted. Of a source that ends, at
    least `items` are read and then the rest; a live one is closed after `items`.
    """
    _check_order_of_calls(make)
    source = make()
    assert source.name == make().name, "two sources of one make have different names"
    source.open()
    seen = _Seen()
    ended = _read_items(source, seen, items, live=live)
    assert bool(seen.seqs) == ("video" in kinds), f"pictures: {len(seen.seqs)}, promised kinds: {set(kinds)}"
    assert bool(seen.samples) == ("audio" in kinds), f"sound: {len(seen.samples)}, promised: {set(kinds)}"
    _check_numbers(seen, source)
    if ended:
        for _ in range(3):
            with pytest.raises(EndOfStream):
                source.read(0.02)
    source.close()
    source.close()
    with pytest.raises(SourceError):
        source.read(0.02)
    with pytest.raises(SourceError):
        source.open()


def _check_order_of_calls(make: Callable[[], Source]) -> None:
    unopened = make()
    with pytest.raises(SourceError):
        unopened.read(0.02)
    unopened.close()
    unopened.close()
    waiting = make()
    waiting.open()
    closer = threading.Thread(target=waiting.close, daemon=True)
    closer.start()
    closer.join(5.0)
    assert not closer.is_alive(), "close() from another thread did not return"


def _read_items(source: Source, seen: _Seen, items: int, *, live: bool) -> bool:
    """Read; True when the natural end was reached."""
    count = tries = 0
    while not live or count < items:
        try:
            item = source.read(0.02)
        except EndOfStream:
            assert count >= items, (
                f"only {count} items before the end; the contract wants {items} to judge by"
            )
            return True
        if item is None:
            tries += 1
            assert tries < _TRIES, f"nothing came for {_TRIES} reads after {count} items"
            continue
        count += 1
        seen.note(item, source.name, merged=not live)
    return False


def _check_numbers(seen: _Seen, source: Source) -> None:
    left_out = 0
    for before, after in zip([-1, *seen.seqs], seen.seqs, strict=False):
        assert after > before, f"picture {after} came after picture {before}"
        left_out += after - before - 1
    for (_, before), (after, _) in zip([(0, 0), *seen.samples], seen.samples, strict=False):
        assert after >= before, f"sample {after} came again after {before}"
        left_out += after - before
    counted = sum(source.losses.values()) if isinstance(source, CountsLosses) else 0
    assert left_out <= counted, f"{left_out} are missing, {counted} were counted"
