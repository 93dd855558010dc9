"""A file comes out upright, in the order of time, every time alike, however it was made or damaged."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.clock import MS, SECOND
from liveaffect.realtime.errors import EndOfStream, SourceError, SourceNotFound
from liveaffect.realtime.frame import AudioBlock, Item, Source, VideoFrame
from liveaffect.realtime.replay import HELD, LATE_NS, MediaFile, Paced, load_picture
from liveaffect.realtime.testing.virtual_time import FakeClock

Image = NDArray[np.uint8]


def corner(size: tuple[int, int] = (64, 48), level: int = 255) -> Image:
    """Dark, with a bright upper left quarter."""
    image = np.full((size[1], size[0], 3), 20, np.uint8)
    image[: size[1] // 2, : size[0] // 2] = level
    return image


def noise(count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(count)]


def write(
    path: Path,
    images: Sequence[Image] = (),
    sound: NDArray[np.int16] | None = None,
    *,
    times_ms: Sequence[int] | None = None,
    rate_hz: int = 44_100,
    layout: str = "mono",
    aspect: Fraction = Fraction(0),
) -> Path:
    """A file with these pictures (25 a second, or at these times) and this sound (samples, channels)."""
    with av.open(str(path), "w") as out:
        video = audio = None
        if images:
            video = out.add_stream("ffv1" if path.suffix == ".mkv" else "mpeg4", rate=25)
            video.height, video.width = images[0].shape[:2]
            video.pix_fmt = "bgr0" if path.suffix == ".mkv" else "yuv420p"
            video.codec_context.time_base = video.time_base = Fraction(1, 1000)
            video.codec_context.sample_aspect_ratio = aspect
        if sound is not None:
            audio = out.add_stream("pcm_s16le", rate=rate_hz, layout=layout)
        for number, image in enumerate(images):
            assert video is not None
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times_ms[number] if times_ms else 40 * number
            frame.time_base = Fraction(1, 1000)
            out.mux(video.encode(frame))
        if audio is not None and sound is not None:
            whole = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout=layout)
            whole.sample_rate, whole.pts, whole.time_base = rate_hz, 0, Fraction(1, rate_hz)
            out.mux(audio.encode(whole))
        for each in (video, audio):
            if each is not None:
                out.mux(each.encode(None))
    return path


def everything(source: Source) -> list[Item]:
    source.open()
    items: list[Item] = []
    try:
        while True:
            item = source.read(0.0)
            assert item is not None
            items.append(item)
    except EndOfStream:
        return items
    finally:
        source.close()


def frames(items: list[Item]) -> list[VideoFrame]:
    return [item for item in items if isinstance(item, VideoFrame)]


def heard(items: list[Item]) -> NDArray[np.float32]:
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert all(before.end == after.first for before, after in pairwise(blocks))
    return np.concatenate([block.samples for block in blocks])


def tone(seconds: float, rate_hz: int, channels: int = 1) -> NDArray[np.int16]:
    wave = 16_000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave.astype(np.int16)[:, None], channels, axis=1)


def digest(items: list[Item]) -> str:
    out = hashlib.sha256()
    for item in items:
        number = item.seq if isinstance(item, VideoFrame) else item.first
        out.update(struct.pack("<qq", number, item.captured_ns))
        out.update(item.image.tobytes() if isinstance(item, VideoFrame) else item.samples.tobytes())
    return out.hexdigest()


def test_variable_rate_pictures_keep_their_own_times(tmp_path: Path) -> None:
    times_ms = [0, 40, 50, 400, 410, 1000]
    path = write(tmp_path / "vfr.mkv", [corner(level=40 * i) for i in range(6)], times_ms=times_ms)
    pictures = frames(everything(MediaFile(path)))
    assert [frame.captured_ns // MS for frame in pictures] == times_ms
    assert [int(frame.image[0, 0, 0]) for frame in pictures] == [0, 40, 80, 120, 160, 200]


def test_odd_sizes_and_colours_survive(tmp_path: Path) -> None:
    image = np.zeros((37, 53, 3), np.uint8)
    image[:, :] = (200, 100, 50)
    frame = frames(everything(MediaFile(write(tmp_path / "odd.mkv", [image]))))[0]
    assert frame.size == (53, 37)
    assert frame.image[18, 26].tolist() == [200, 100, 50]


TURNS = [
    ((0, 1, -1, 0), (48, 64), (5, 42)),  # a quarter clockwise: the upper left becomes the upper right
    ((-1, 0, 0, -1), (64, 48), (42, 58)),
    ((0, -1, 1, 0), (48, 64), (58, 5)),
]
Matrix = tuple[int, int, int, int]


def turn(path: Path, matrix: Matrix) -> Path:
    """Let an MP4 say that it is to be turned."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = matrix
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("matrix", "size", "bright"), TURNS)
def test_a_rotated_file_comes_out_upright(
    tmp_path: Path, matrix: Matrix, size: tuple[int, int], bright: tuple[int, int]
) -> None:
    frame = frames(everything(MediaFile(turn(write(tmp_path / "phone.mp4", [corner()] * 3), matrix))))[0]
    assert frame.size == size
    assert frame.image[bright].min() > 200
    assert np.median(frame.image) < 60


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),
        ((720, 480), Fraction(8, 9), (640, 480)),
        ((352, 576), Fraction(32, 11), (1024, 576)),
        ((64, 48), Fraction(9, 1), (64, 48)),  # nobody means that
        ((64, 48), Fraction(1, 9), (64, 48)),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_a_film_that_is_stored_squeezed_comes_out_as_it_is_shown(
    tmp_path: Path, stored: tuple[int, int], aspect: Fraction, shown: tuple[int, int], ending: str
) -> None:
    path = write(tmp_path / f"squeezed.{ending}", [corner(stored)] * 12, aspect=aspect)
    pictures = frames(everything(MediaFile(path)))
    assert [frame.size for frame in pictures] == [shown] * 12
    # What fills the left half of the stored picture fills it in the shown one.
    across = pictures[-1].image[5, :, 0] > 130
    assert abs(int(across.sum()) - shown[0] // 2) <= 8


@pytest.mark.parametrize(("matrix", "size", "bright"), TURNS)
def test_a_squeezed_film_is_widened_before_it_is_turned(
    tmp_path: Path, matrix: Matrix, size: tuple[int, int], bright: tuple[int, int]
) -> None:
    path = write(tmp_path / "phone.mp4", [corner((32, 48))] * 3, aspect=Fraction(2))
    frame = frames(everything(MediaFile(turn(path, matrix))))[0]
    assert frame.size == size
    assert frame.image[bright].min() > 200
    assert np.median(frame.image) < 60


def test_the_limit_on_pixels_is_that_of_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liveaffect.realtime.decode._MOST_PIXELS", 64 * 48)
    MediaFile(write(tmp_path / "even.mp4", [corner()])).open()
    with pytest.raises(SourceError, match="its pictures are 128 x 48"):
        MediaFile(write(tmp_path / "wide.mp4", [corner()], aspect=Fraction(2))).open()


@pytest.mark.parametrize(("rate_hz", "layout"), [(8000, "mono"), (44_100, "stereo"), (96_000, "5.1")])
def test_sound_of_any_rate_and_layout_is_mono_16_khz_in_its_place(
    tmp_path: Path, rate_hz: int, layout: str
) -> None:
    channels = len(av.AudioLayout(layout).channels)
    path = write(tmp_path / "s.wav", sound=tone(1.5, rate_hz, channels), rate_hz=rate_hz, layout=layout)
    items = everything(MediaFile(path))
    assert not frames(items)
    sound = heard(items)
    assert abs(len(sound) - 1.5 * SAMPLE_RATE) <= 2
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(sound)) / SAMPLE_RATE)
    inner = slice(400, len(sound) - 400)
    level = float(sound[inner] @ wanted[inner] / (wanted[inner] @ wanted[inner]))
    assert level > 0.2
    assert np.abs(sound[inner] - level * wanted[inner]).max() < 0.02 * level


def test_pictures_and_sound_are_merged_by_time_however_the_file_is_laid_out(tmp_path: Path) -> None:
    """The file holds all pictures before all sound."""
    path = write(tmp_path / "av.mkv", [corner()] * 50, tone(2.0, 44_100))
    items = everything(MediaFile(path))
    assert len(frames(items)) == 50
    assert abs(len(heard(items)) - 2 * SAMPLE_RATE) <= 2
    assert all(before.captured_ns <= after.captured_ns for before, after in pairwise(items))
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert all(block.captured_ns == block.first * SECOND // SAMPLE_RATE for block in blocks)
    assert {len(block.samples) for block in blocks[:-1]} == {320}


def test_a_hole_in_the_sound_is_a_jump_in_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "hole.mkv"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for first in [*range(0, 16_000, 1600), *range(24_000, 40_000, 1600)]:
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 1000, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    blocks = [item for item in everything(MediaFile(path)) if isinstance(item, AudioBlock)]
    jumps = [(before.end, after.first) for before, after in pairwise(blocks) if before.end != after.first]
    assert jumps == [(16_000, 24_000)]
    assert blocks[-1].end == 40_000
    assert blocks[-1].captured_ns == blocks[-1].first * SECOND // SAMPLE_RATE


RATE_HZ = 48_000
PER_PICTURE = RATE_HZ // 25


def part(
    path: Path, event: int, *, pictures: int = 100, clock_s: int = 0, sound_s: tuple[float, float] = (0, 0)
) -> bytes:
    """A film with a flash and a beep at that picture; its sound begins and ends so much later.

    The sound is PCM in Matroska, elsewhere MP2.
    """
    raw = path.suffix == ".mkv"
    beep = np.zeros(pictures * PER_PICTURE + round(sound_s[1] * RATE_HZ), np.int16)
    beep[event * PER_PICTURE : (event + 5) * PER_PICTURE] = tone(0.2, RATE_HZ)[:, 0]
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4" if raw else "mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt, video.bit_rate = 64, 48, "yuv420p", 2_000_000
        audio = out.add_stream("pcm_s16le" if raw else "mp2", rate=RATE_HZ, layout="mono")
        for number in range(max(pictures, len(beep) // PER_PICTURE)):
            if -25 * sound_s[0] <= number < pictures:
                level = 250 if event <= number < event + 5 else 20 + number % 7
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = clock_s * 25 + number, Fraction(1, 25)
                out.mux(video.encode(frame))
            first = number * PER_PICTURE
            piece = beep[None, first : first + PER_PICTURE]
            if first < sound_s[0] * RATE_HZ or not piece.size:
                continue
            sound = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            sound.sample_rate, sound.time_base = RATE_HZ, Fraction(1, RATE_HZ)
            sound.pts = clock_s * RATE_HZ + first
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path.read_bytes()


def events(items: Sequence[Item]) -> tuple[list[float], list[float]]:
    """When flashes and beeps begin, in seconds."""
    flashes, beeps = [], []
    dark, quiet_until_s = True, 0.0
    for item in items:
        at_s = item.captured_ns / SECOND
        if isinstance(item, VideoFrame):
            if dark and item.image.mean() > 150:
                flashes.append(at_s)
            dark = item.image.mean() < 150
        elif np.abs(item.samples).max() > 0.2:
            if at_s > quiet_until_s:
                beeps.append(at_s)
            quiet_until_s = at_s + 0.1
    return flashes, beeps


# Of three joined Matroska files FFmpeg reads two.
@pytest.mark.parametrize(
    ("ending", "places"), [("ts", (30, 60, 75)), ("mpg", (30, 60, 75)), ("mkv", (30, 60))]
)
@pytest.mark.parametrize("sound_s", [(0.0, 0.0), (0.0, 0.6), (0.32, -0.52)])
def test_a_film_whose_clock_begins_again_goes_on_and_sound_stays_with_its_pictures(
    tmp_path: Path, ending: str, places: tuple[int, ...], sound_s: tuple[float, float]
) -> None:
    joined = tmp_path / f"joined.{ending}"
    joined.write_bytes(b"".join(part(tmp_path / f"{at}.{ending}", at, sound_s=sound_s) for at in places))
    source = MediaFile(joined)
    items = everything(source)
    pictures = [frame.captured_ns for frame in frames(items)]
    assert len(pictures) == 100 * len(places)
    assert source.losses["times that its clock began again"] == len(places) - 1
    # FFmpeg gives two pictures of an MPG one stamp where both begin in one packet.
    assert len(set(pictures)) + source.losses.get("pictures at the time of another", 0) == len(pictures)
    assert len(set(pictures)) > 0.95 * len(pictures)
    assert "stretches of sound that come twice" not in source.losses
    assert all(before.captured_ns <= after.captured_ns for before, after in pairwise(items))
    flashes, beeps = events(items)
    assert len(flashes) == len(beeps) == len(places)
    assert max(abs(flash - beep) for flash, beep in zip(flashes, beeps, strict=True)) < 0.08
    whole_s = 4 + max(0.0, sound_s[1])
    began_s = [number * whole_s + at / 25 for number, at in enumerate(places)]
    assert np.subtract(flashes, flashes[0]) == pytest.approx(np.subtract(began_s, began_s[0]), abs=0.09)


@pytest.mark.parametrize(
    ("clocks_s", "cause"),
    [
        ((7200, 100), "stamps out of reason"),  # FFmpeg takes it for the counter's next round, a day later
        ((100, 7200), "stamps out of reason"),
        ((500, 460), "times that its clock began again"),
    ],
)
def test_sound_stays_with_its_pictures_wherever_the_second_clock_begins(
    tmp_path: Path, clocks_s: tuple[int, int], cause: str
) -> None:
    joined = tmp_path / "joined.ts"
    parts = [
        part(tmp_path / f"{number}.ts", 40, clock_s=clock_s, sound_s=(0.3, -0.6))
        for number, clock_s in enumerate(clocks_s)
    ]
    joined.write_bytes(b"".join(parts))
    source = MediaFile(joined)
    flashes, beeps = events(everything(source))
    assert source.losses[cause] == 1
    assert len(flashes) == len(beeps) == 2
    assert max(abs(flash - beep) for flash, beep in zip(flashes, beeps, strict=True)) < 0.08
    assert flashes[1] - flashes[0] == pytest.approx(4, abs=0.09)


def sound_behind(data: bytes, places: int) -> bytes:
    """A transport stream with its sound so many packets further back, as broadcasts have it."""
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    sound = [int.from_bytes(packet[1:3], "big") & 0x1FFF == 0x101 for packet in packets]
    order = sorted(range(len(packets)), key=lambda number: number + places * sound[number])
    return b"".join(packets[number] for number in order)


@pytest.mark.parametrize(
    ("pictures", "sound_s", "places"),
    [
        (100, (-0.6, 0.0), 400),  # the second part begins with a picture whose sound has begun long before
        (100, (0.0, -3.08), 0),  # the sound of the first part ended before that of the second could step back
        (100, (0.0, -3.08), 300),
        (1100, (0.0, 0.0), 100_000),
    ],
)
def test_sound_follows_its_pictures_into_the_new_clock_however_far_behind_them_it_lies(
    tmp_path: Path, pictures: int, sound_s: tuple[float, float], places: int
) -> None:
    joined = tmp_path / "joined.ts"
    parts = [part(tmp_path / "a.ts", 16, sound_s=sound_s)]
    parts.append(part(tmp_path / "b.ts", 18, pictures=pictures, sound_s=sound_s))
    joined.write_bytes(b"".join(sound_behind(data, places) for data in parts))
    source = MediaFile(joined)
    flashes, beeps = events(everything(source))
    assert len(flashes) == len(beeps) == 2
    assert max(abs(flash - beep) for flash, beep in zip(flashes, beeps, strict=True)) < 0.08
    assert flashes[1] - flashes[0] == pytest.approx(4.08, abs=0.09)
    assert source.losses["times that its clock began again"] == 1
    assert "stretches of sound that come twice" not in source.losses


@pytest.mark.parametrize("video", [True, False])
def test_one_track_of_a_joined_film_is_counted_and_placed_as_with_the_other(
    tmp_path: Path, video: bool
) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part(tmp_path / "a.ts", 30, sound_s=(0.2, 0.4)) + part(tmp_path / "b.ts", 60))
    both = events(everything(MediaFile(joined)))
    source = MediaFile(joined, video=video, audio=not video)
    alone = events(everything(source))
    assert alone[0 if video else 1] == both[0 if video else 1]
    assert source.losses["times that its clock began again"] == 1


def restamp(path: Path, number: int, was_ms: int, is_ms: int) -> Path:
    """Give one picture of a Matroska file another time; no muxer writes times out of order."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        block = [packet.pos for packet in container.demux(video=0) if packet.size][number]
    assert block is not None
    at = data.index(was_ms.to_bytes(2, "big"), block)
    path.write_bytes(data[:at] + is_ms.to_bytes(2, "big") + data[at + 2 :])
    return path


def test_a_stamp_that_is_wrong_once_begins_no_new_clock(tmp_path: Path) -> None:
    path = write(tmp_path / "spike.mkv", [corner(level=5 * number) for number in range(40)])
    source = MediaFile(restamp(path, 20, 800, 20_800))
    pictures = frames(everything(source))
    assert [frame.captured_ns // MS for frame in pictures] == list(range(0, 1600, 40))
    assert source.losses == {"stamps out of reason": 1}


def test_a_pause_of_minutes_in_a_film_is_left_as_it_is(tmp_path: Path) -> None:
    times_ms = [*range(0, 400, 40), *range(300_000, 300_400, 40), 400_000]
    source = MediaFile(write(tmp_path / "pause.mkv", [corner()] * 21, times_ms=times_ms))
    assert [frame.captured_ns // MS for frame in frames(everything(source))] == times_ms
    assert not source.losses


def test_pictures_that_share_a_time_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "same.mkv", [corner()] * 6, times_ms=[0, 40, 41, 120, 160, 200])
    source = MediaFile(restamp(path, 2, 41, 40))
    pictures = frames(everything(source))
    assert [frame.captured_ns // MS for frame in pictures] == [0, 40, 40, 120, 160, 200]
    assert source.losses == {"pictures at the time of another": 1}


def test_damaged_packets_are_counted_and_decoding_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mkv", noise(40))
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    data = bytearray(path.read_bytes())
    for number in (10, 20):
        begin = places[number][0] + places[number][1] // 2
        data[begin : begin + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    source = MediaFile(path)
    pictures = frames(everything(source))
    lost = sum(source.losses.values())
    assert lost >= 1
    assert len(pictures) + lost == 40
    assert pictures[-1].captured_ns == 39 * 40 * MS


def test_a_file_that_was_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mkv", noise(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert 30 < len(frames(everything(MediaFile(path)))) < 60


def test_what_is_no_media_file_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(SourceNotFound, match=r"absent\.mp4"):
        MediaFile(tmp_path / "absent.mp4").open()
    with pytest.raises(SourceError, match=r"notes\.mp4' is no video or sound that FFmpeg can read"):
        MediaFile(text).open()
    with pytest.raises(SourceError, match="is a folder"):
        MediaFile(tmp_path).open()
    silent = write(tmp_path / "silent.mkv", [corner()])
    with pytest.raises(SourceError, match="holds neither"):
        MediaFile(silent, video=False).open()


def test_two_readings_are_identical(tmp_path: Path) -> None:
    path = write(tmp_path / "av.mp4", noise(50))
    assert digest(everything(MediaFile(path))) == digest(everything(MediaFile(path)))


def test_a_loop_goes_on_in_time_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "av.mkv", [corner()] * 25, tone(0.9, 16_000), rate_hz=16_000)
    source = MediaFile(path, loop=True)
    source.open()
    items = [item for item in (source.read(0.0) for _ in range(400)) if item is not None]
    source.close()
    pictures = frames(items)
    assert [frame.seq for frame in pictures] == list(range(len(pictures)))
    assert {b.captured_ns - a.captured_ns for a, b in pairwise(pictures)} == {40 * MS}
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert [block.first for block in blocks if block.first % 16_000 == 0][:4] == [0, 16_000, 32_000, 48_000]
    assert all(block.captured_ns == block.first * SECOND // SAMPLE_RATE for block in blocks)
    assert all(a.captured_ns <= b.captured_ns for a, b in pairwise(items))


def test_a_paced_file_delivers_each_picture_at_its_time_with_the_clocks_stamp(tmp_path: Path) -> None:
    clock = FakeClock(7 * SECOND)
    source = Paced(MediaFile(write(tmp_path / "v.mkv", [corner()] * 3)), clock)
    source.open()
    first = source.read(0.0)
    assert first is not None
    assert first.captured_ns == 7 * SECOND
    assert source.read(0.0) is None
    clock.advance(39 * MS)
    assert source.read(0.0) is None
    clock.advance(1 * MS)
    second = source.read(0.0)
    assert second is not None
    assert second.captured_ns == 7 * SECOND + 40 * MS
    clock.advance(100 * MS)
    third = source.read(0.0)
    assert third is not None
    assert third.captured_ns == 7 * SECOND + 80 * MS
    with pytest.raises(EndOfStream):
        source.read(0.0)
    source.close()


def test_a_file_that_the_machine_cannot_read_in_time_stands_still_instead_of_growing_old(
    tmp_path: Path,
) -> None:
    clock = FakeClock(7 * SECOND)
    source = Paced(
        MediaFile(write(tmp_path / "av.mkv", [corner()] * 50, tone(2.0, 16_000), rate_hz=16_000)), clock
    )
    source.open()
    items = []
    with contextlib.suppress(EndOfStream):
        while True:
            clock.advance(100 * MS)  # what decoding takes here
            item = source.read(0.0)
            assert item is not None
            assert clock.now_ns() - item.captured_ns <= LATE_NS
            items.append(item)
    assert frames(items)[-1].seq == 49
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert all(later.first >= earlier.end for earlier, later in pairwise(blocks))
    held_ms = source.losses[HELD]
    assert blocks[-1].end == 2 * SAMPLE_RATE + round(held_ms * SAMPLE_RATE / 1000)
    assert 100 * len(items) - 2000 <= held_ms + 250 <= 100 * len(items)


def test_a_picture_file_is_read_as_rgb(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "p.png"
    cv2.imwrite(str(path), np.full((4, 6, 3), (10, 20, 30), np.uint8))
    assert load_picture(path)[0, 0].tolist() == [30, 20, 10]
    path.write_text("nonsense")
    with pytest.raises(SourceError, match="no picture"):
        load_picture(path)


def test_a_real_clip_gives_all_its_pictures_and_sound(shared_data: Path) -> None:
    source = MediaFile(shared_data / "clips" / "demo_grid_10speakers.mp4")
    source.open()
    assert source.has_video
    assert source.has_audio
    items = [source.read(0.0) for _ in range(300)]
    source.close()
    assert not source.losses
    pictures = [item for item in items if isinstance(item, VideoFrame)]
    assert pictures[0].size == (360, 288)
    assert [frame.seq for frame in pictures] == list(range(len(pictures)))
