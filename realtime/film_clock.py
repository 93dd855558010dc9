"""One clock for a film whose stamps begin again part-way: parts that were joined byte by byte, recorders that
start their clock anew with each segment, broadcasts that pass from one programme to the next.

Who decodes pictures and who decodes sound read the file apart, so both put the packets of both tracks through
here. The order of packets in the file alone decides, so both come to the same shifts, and pictures stay with
their sound: the first track that steps opens a new clock behind all that came before, the other one follows
into it. A single stamp that is wrong opens none.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.packet import Packet

from liveaffect.realtime.clock import MS, SECOND

MOST_JUMP_NS = 600 * SECOND
"""A stamp this far from its place is damage: to believe it would mean to analyse years of nothing."""
OUT_OF_REASON = "stamps out of reason"
BEGAN_AGAIN = "times that its clock began again"
_STEP_BACK_NS = 1 * SECOND
"""Less is order that was mixed up, or a stretch that is there twice."""
_HINT_NS = 200 * MS
"""So much back is a new clock where the other track steps back further at the same place."""
_FAR_NS = 10 * SECOND
"""A hole may be longer; the next packets tell it from a stamp with a wrong bit."""
_LASTING = 5
"""Packets of a track that have to agree on a new clock."""
_ENTRY_NS = 2 * SECOND
"""So long the other track is waited for, to see with what the new clock begins."""
_MOST_AHEAD = 1000
"""Packets that are looked at before a step is judged; of a track with few pictures, beside all its sound."""
_NOMINAL_NS = 40 * MS
"""How long a packet lasts that does not say it."""


@dataclass(slots=True)
class _Track:
    last_ns: int | None = None
    """The newest stamp, as the file has it."""
    clock: int = 0
    """Which of the film's clocks it follows."""
    end_ns: int = 0
    """How far it reaches, after the shift."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What the packets behind a step say of it."""

    lasts: bool
    returns: bool
    together: bool
    """Whether the other track steps back too."""
    shift_ns: int
    """What puts the earliest of the new stamps behind the latest of the old ones."""


class FilmClock:
    """Iterates over the packets of a film's tracks, in the order of the file, their stamps on one clock."""

    def __init__(self, packets: Iterator[Packet[Any]], losses: Counter[str]) -> None:
        """`losses`: what was mended is counted there, once however many readers of the film share it."""
        self._packets = packets
        self._losses = losses
        self._mended: Counter[str] = Counter()
        self._ahead: deque[Packet[Any]] = deque()
        self._tracks: dict[int, _Track] = {}
        self._shifts_ns = [0]
        self._opener = _Track()
        self._since_opened = 0

    def __iter__(self) -> Iterator[Packet[Any]]:
        while (packet := self._next()) is not None:
            at_ns = _decoded_at(packet)
            if at_ns is not None:
                self._move(packet, at_ns)
                self._since_opened += 1
            yield packet

    def _next(self) -> Packet[Any] | None:
        return self._ahead.popleft() if self._ahead else next(self._packets, None)

    def _peek(self) -> Iterator[Packet[Any]]:
        """The packets that come next; they stay to be read."""
        yield from tuple(self._ahead)
        while len(self._ahead) < _MOST_AHEAD and (packet := next(self._packets, None)) is not None:
            self._ahead.append(packet)
            yield packet

    def _move(self, packet: Packet[Any], at_ns: int) -> None:
        track = self._tracks.setdefault(packet.stream_index, _Track(clock=len(self._shifts_ns) - 1))
        if self._has_followed(track, at_ns):
            track.clock = len(self._shifts_ns) - 1
        elif track.last_ns is not None and not self._goes_on(track, packet, at_ns - track.last_ns):
            return
        track.last_ns = at_ns
        _shift(packet, self._shifts_ns[track.clock])
        track.end_ns = max(track.end_ns, _end_of(packet))

    def _goes_on(self, track: _Track, packet: Packet[Any], step_ns: int) -> bool:
        """Whether the track goes on from this packet, on whichever clock; else the packet is astray."""
        if -_HINT_NS <= step_ns <= _FAR_NS:
            return True
        ahead = self._look_ahead(packet, _HINT_NS if -_STEP_BACK_NS <= step_ns < 0 else _STEP_BACK_NS)
        if step_ns > 0 and ahead.returns:
            self._count(OUT_OF_REASON)
            packet.pts = packet.dts = None
            return False
        if -_STEP_BACK_NS <= step_ns <= MOST_JUMP_NS:
            if step_ns < 0 and ahead.lasts and ahead.together:
                self._change_clock(track, packet, ahead, BEGAN_AGAIN)
            return True
        if not ahead.lasts:
            _shift(packet, self._shifts_ns[track.clock])
            return False
        self._change_clock(track, packet, ahead, BEGAN_AGAIN if step_ns < 0 else OUT_OF_REASON)
        return True

    def _has_followed(self, track: _Track, at_ns: int) -> bool:
        """Whether a track stands where the other one does that has just opened a clock."""
        if track.clock == len(self._shifts_ns) - 1 or self._since_opened > _MOST_AHEAD:
            return False
        return _is_nearer(at_ns, self._opener.last_ns, track.last_ns)

    def _change_clock(self, track: _Track, packet: Packet[Any], ahead: _Ahead, cause: str) -> None:
        """Follow into the newest clock where that leads on, else open one."""
        newest = len(self._shifts_ns) - 1
        if track.clock == newest or _shown_at(packet) + self._shifts_ns[-1] < track.end_ns - _STEP_BACK_NS:
            self._shifts_ns.append(ahead.shift_ns)
            self._opener, self._since_opened = track, 0
            self._count(cause)
        track.clock = len(self._shifts_ns) - 1

    def _look_ahead(self, packet: Packet[Any], back_ns: int) -> _Ahead:
        """`back_ns`: less far back than this from the last stamp, the track has returned to it."""
        own, at_ns = packet.stream_index, _decoded_at(packet) or 0
        last_ns = {index: track.last_ns for index, track in self._tracks.items()}
        end_ns = max(track.end_ns for track in self._tracks.values())
        first_ns, now_ns, steps, entered = _shown_at(packet), at_ns, 1, {own}
        returns = together = False
        for later in self._peek():
            index, stamp_ns = later.stream_index, _decoded_at(later)
            if stamp_ns is None:
                continue
            if index == own:
                returns = not _is_off(last_ns[own], stamp_ns, back_ns)
                if returns or stamp_ns < now_ns - _STEP_BACK_NS:
                    break
                steps, now_ns = steps + 1, stamp_ns
            elif _is_nearer(stamp_ns, now_ns, last_ns.get(index)):
                together = together or _is_off(last_ns.get(index), stamp_ns, _STEP_BACK_NS)
                entered.add(index)
            else:
                last_ns[index] = stamp_ns
                end_ns = max(end_ns, _end_of(later) + self._shifts_ns[self._tracks[index].clock])
                continue
            first_ns = min(first_ns, _shown_at(later))
            if steps >= _LASTING and (entered >= last_ns.keys() or now_ns - at_ns > _ENTRY_NS):
                break
        return _Ahead(steps >= _LASTING, returns, together, end_ns - first_ns)

    def _count(self, cause: str) -> None:
        self._mended[cause] += 1
        self._losses[cause] = max(self._losses[cause], self._mended[cause])


def stamp_in_ns(stamp: int, time_base: Any) -> int:
    """A stamp of a packet or a frame in nanoseconds."""
    return round(Fraction(time_base) * stamp * SECOND)


def _decoded_at(packet: Packet[Any]) -> int | None:
    stamp = packet.pts if packet.dts is None else packet.dts
    return None if stamp is None or packet.time_base is None else stamp_in_ns(stamp, packet.time_base)


def _shown_at(packet: Packet[Any]) -> int:
    stamp = packet.dts if packet.pts is None else packet.pts
    return 0 if stamp is None else stamp_in_ns(stamp, packet.time_base)


def _end_of(packet: Packet[Any]) -> int:
    lasts_ns = stamp_in_ns(packet.duration, packet.time_base) if packet.duration else _NOMINAL_NS
    return _shown_at(packet) + lasts_ns


def _shift(packet: Packet[Any], shift_ns: int) -> None:
    if shift_ns:
        ticks = round(shift_ns / (Fraction(packet.time_base) * SECOND))
        packet.pts, packet.dts = _stamp_moved(packet.pts, ticks), _stamp_moved(packet.dts, ticks)


def _stamp_moved(stamp: int | None, ticks: int) -> int | None:
    """None where nothing is, and where the sum would be beyond what a stamp can hold."""
    return None if stamp is None or abs(stamp + ticks) >= 1 << 62 else stamp + ticks


def _is_off(last_ns: int | None, at_ns: int, back_ns: int) -> bool:
    """Whether a stamp is that far behind the one before, or very far ahead of it."""
    return last_ns is not None and not -back_ns <= at_ns - last_ns <= _FAR_NS


def _is_nearer(at_ns: int, here_ns: int | None, there_ns: int | None) -> bool:
    """Whether a stamp is nearer to the first than to the second; to what is not there nothing is near."""
    if here_ns is None or there_ns is None:
        return there_ns is None
    return abs(at_ns - here_ns) < abs(at_ns - there_ns)
