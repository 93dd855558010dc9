"""Damaged, absurd and odd media end in an answer or a sentence: no traceback, no hang, nothing unsaid."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import cv2
import numpy as np
import pytest

from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedFusion, ScriptedVoice
from liveaffect.prediction import predict_file
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.endings import PICTURES
from liveaffect.realtime.errors import EndOfStream, MissingFile, RealtimeError
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.networks import Networks
from liveaffect.realtime.replay import MediaFile, damage_of, read_picture, size_in_head
from liveaffect.realtime.testing import media
from liveaffect.realtime.wiring import Tools

QUICK = 60
"""Damaged files tried on every run; `soak` tries all 500."""
SEEDS = 500
LONGEST_S = 20
UNSAID_PICTURES, UNSAID_SAMPLES = 5, 8_000
"""So much, half a second, may be missing at an end without a word: heads are a little imprecise."""


@pytest.fixture(scope="module")
def tools() -> Tools:
    try:
        make_finder()
    except MissingFile as error:
        pytest.skip(f"needs the face detector's files: {error}")
    return Tools(Networks(ScriptedFace(), ScriptedVoice(), ScriptedFusion()), make_finder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return media.whole_files(tmp_path_factory.mktemp("whole"))


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no end after {seconds} s of work")

    # Processor time: a busy machine is no hang.
    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(path: Path, tools: Tools) -> tuple[str, str]:
    """'answered' or 'refused', and what was said."""
    with at_most(LONGEST_S):
        try:
            found = predict_file(path, tools)
        except RealtimeError as error:
            return "refused", str(error)
    assert found.label
    return "answered", found.damage or ""


def content(path: Path) -> tuple[int, int]:
    """Pictures and samples of a film or sound; width and height of a picture."""
    if path.suffix in PICTURES:
        return read_picture(path).image.shape[1::-1]
    media = MediaFile(path)
    media.open()
    counts = [0, 0]
    try:
        while True:
            item = media.read(0.0)
            assert item is not None
            if isinstance(item, VideoFrame):
                counts[0] += 1
            else:
                counts[1] += len(item.samples)
    except EndOfStream:
        return counts[0], counts[1]
    finally:
        media.close()


def check(seed: int, whole: list[Path], folder: Path, tools: Tools) -> None:
    path, source = media.damaged_file(whole, folder, seed)
    how, said = outcome(path, tools)
    assert "\n" not in said, f"{path.name}: more than one line: {said}"
    assert not re.search(r"\[Errno|Error\(|<.* at 0x", said), f"{path.name}: not for people: {said}"
    if how == "refused":
        assert path.name in said
    elif not said and path.suffix != ".ogg":  # a page that Ogg lost at its end cannot be told from an end
        there, wanted = content(path), content(source)
        if path.suffix in PICTURES:
            assert there == wanted, f"{path.name}: another size, and nothing was said"
        lost = wanted[0] - there[0], wanted[1] - there[1]
        assert lost[0] <= UNSAID_PICTURES, f"{path.name}: {lost[0]} pictures are gone, and nothing was said"
        assert lost[1] <= UNSAID_SAMPLES, f"{path.name}: {lost[1]} samples are gone, and nothing was said"
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_damaged_file_is_answered_or_refused_and_nothing_is_unsaid(
    part: int, whole: list[Path], tmp_path: Path, tools: Tools
) -> None:
    for seed in random.Random(7).sample(range(SEEDS), QUICK)[part::4]:
        check(seed, whole, tmp_path, tools)


@pytest.mark.parametrize(
    ("name", "kept"), [("whole.mkv", 0.4), ("whole.avi", 0.6), ("whole.wav", 0.6), ("whole.flac", 0.6)]
)
def test_a_file_that_was_cut_off_and_still_decodes_is_said_to_be_shorter_than_its_head_says(
    name: str, kept: float, whole: list[Path], tmp_path: Path, tools: Tools
) -> None:
    data = next(path for path in whole if path.name == name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: round(len(data) * kept)])
    how, said = outcome(cut, tools)
    assert (how, "that its head promises and it does not hold" in said) == ("answered", True), said


@pytest.mark.parametrize("lost", [0.6, 0.02])
def test_a_film_whose_index_was_cut_off_is_called_cut_off(
    lost: float, whole: list[Path], tmp_path: Path, tools: Tools
) -> None:
    data = next(path for path in whole if path.name == "whole.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: round(len(data) * (1 - lost)) - 1])
    how, said = outcome(cut, tools)
    assert (how, "was cut off: it lacks the index" in said) == ("refused", True), said


@pytest.mark.soak
def test_five_hundred_damaged_files_are_answered_or_refused(
    whole: list[Path], tmp_path: Path, tools: Tools
) -> None:
    for seed in range(SEEDS):
        check(seed, whole, tmp_path, tools)


def test_a_whole_file_of_every_kind_is_answered_without_a_word(whole: list[Path], tools: Tools) -> None:
    assert {path.name: outcome(path, tools) for path in whole} == {
        path.name: ("answered", "") for path in whole
    }


ODD = {
    "empty.jpg": ("refused", "is no picture that OpenCV can read"),
    "empty.mp4": ("refused", "no video or sound that FFmpeg can read: Invalid data"),
    "empty.wav": ("refused", "no video or sound that FFmpeg can read: Invalid data"),
    "text.mp4": ("refused", "no video or sound that FFmpeg can read: Invalid data"),
    "text.png": ("refused", "is no picture that OpenCV can read"),
    "png named.jpg": ("answered", ""),
    "jpg named.wav": ("answered", ""),
    "one pixel.png": ("answered", ""),
    "a line.png": ("answered", ""),
    "a column.png": ("answered", ""),
    "grey.png": ("answered", ""),
    "bomb.png": ("refused", "a picture of 40000 x 40000; more than 100 million pixels are not read"),
    "absurdly loud.wav": (
        "answered",
        "100 samples that were absurdly loud",
    ),
    "all absurd.wav": ("answered", "16000 samples that were absurdly loud"),
    "no samples.wav": ("refused", "holds no picture and no sound that can be decoded"),
    "one sample.wav": ("answered", ""),
    "silence.wav": ("answered", ""),
    "1 hertz.wav": ("refused", "holds no picture and no sound that can be decoded"),
    "4 gigahertz.wav": ("refused", "no video or sound that FFmpeg can read"),
    "no rate.wav": ("refused", "no video or sound that FFmpeg can read"),
    "200 channels.wav": ("refused", "holds no picture and no sound that can be decoded"),
}


def test_every_odd_file_becomes_what_the_table_says(tmp_path: Path, tools: Tools) -> None:
    made = media.odd_files(tmp_path)
    assert made.keys() == ODD.keys()
    for name, (how, words) in ODD.items():
        found, said = outcome(made[name], tools)
        assert found == how, f"{name}: {found}, {said}"
        assert words in said if words else not said, f"{name}: {said}"


def test_the_page_about_bad_input_names_every_odd_file_with_what_it_becomes() -> None:
    page = Path(__file__).parent.parent / "docs" / "bad-input.md"
    told: dict[str, str] = {}
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("| `") and (names := re.findall(r"`([^`]+\.\w+)`", line.split("|")[1])):
            told |= dict.fromkeys(names, line.split("|")[2].strip())
    assert told.keys() >= ODD.keys()
    for name, (how, _) in ODD.items():
        assert told[name].startswith(how), f"{name}: the page says {told[name]}"


def test_the_size_of_a_picture_is_known_before_it_is_decoded() -> None:
    for ending in (".png", ".jpg", ".bmp", ".webp", ".tiff"):
        whole = media.encoded(ending, np.zeros((37, 53, 3), np.uint8))
        assert size_in_head(whole) == (53, 37), ending
        assert damage_of(whole) is None, ending
        assert all(size_in_head(whole[:length]) in (None, (53, 37)) for length in range(60)), ending
    assert size_in_head(b"GIF89a") is None


def jpegs() -> dict[str, bytes]:
    """Plain, in several scans, with restart marks, and with a preview of its own."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (96, 128, 3), np.uint8)
    plain = media.encoded(".jpg", noise)
    preview = b"Exif\0\0" + media.encoded(".jpg", noise[:32, :32])
    made = {"plain": plain}
    for name, how in (("scans", cv2.IMWRITE_JPEG_PROGRESSIVE), ("restarts", cv2.IMWRITE_JPEG_RST_INTERVAL)):
        made[name] = bytes(cv2.imencode(".jpg", noise, [how, 1])[1])
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview
    made["preview"] = plain[:2] + segment + plain[2:]
    return made


@pytest.mark.parametrize("name", ["plain", "scans", "restarts", "preview"])
def test_a_jpeg_with_a_film_behind_it_is_whole_and_one_that_was_cut_off_is_not(name: str) -> None:
    whole = jpegs()[name]
    film = b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(20_000)
    assert damage_of(whole) is None
    assert damage_of(whole + film) is None
    assert damage_of(whole + bytes(10_000)) is None
    for kept in range(2, len(whole) - 1, 31):
        assert damage_of(whole[:kept]) == "it is cut off; what is missing is grey", kept
    assert damage_of(whole[:-1]) is not None
    assert damage_of(whole[:-2]) is not None


@pytest.mark.parametrize("promised", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36])
def test_a_wav_from_a_pipe_is_whole_although_its_head_promises_gigabytes(
    tmp_path: Path, promised: int
) -> None:
    path = media.plain_wav(tmp_path / "piped.wav", 2.0)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    struct.pack_into("<I", data, 4, promised + at - 4)
    struct.pack_into("<I", data, at, promised)
    path.write_bytes(data)
    file = MediaFile(path)
    file.open()
    with contextlib.suppress(EndOfStream):
        while file.read(0.0) is not None:
            pass
    assert not file.losses


def test_a_large_picture_is_read_reduced_and_its_boxes_are_those_of_the_file(
    tmp_path: Path, tools: Tools
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(media.damaged_png(6_000, 5_000))
    picture = read_picture(path)
    assert picture.image.shape == (2_500, 3_000, 3)
    assert predict_file(path, tools, cropped=True).faces[0].box == (0, 0, 6_000, 5_000)


def test_a_sample_of_1e20_does_not_reach_what_comes_after_it(tmp_path: Path) -> None:
    """Resampled, one such sample would ring through all its neighbours."""
    tone = (0.1 * np.sin(np.arange(44_100) / 20)).astype(np.float32)
    spoilt = tone.copy()
    spoilt[20_000] = 1e20
    heard = []
    for name, samples in (("tone.wav", tone), ("spoilt.wav", spoilt)):
        (tmp_path / name).write_bytes(media.float_wav(samples, rate_hz=44_100))
        file = MediaFile(tmp_path / name)
        file.open()
        parts = []
        while True:
            try:
                item = file.read(0.0)
            except EndOfStream:
                break
            assert item is not None
            assert not isinstance(item, VideoFrame)
            parts.append(item.samples)
        heard.append(np.concatenate(parts))
    assert np.abs(heard[1] - heard[0]).max() < 0.2
    assert file.losses == {"samples that were absurdly loud": 1}


def test_stamps_that_jump_by_years_do_not_make_years_of_grid_points(tmp_path: Path, tools: Tools) -> None:
    import av

    path = tmp_path / "jump.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts = number + (10 * 3600 * 24 * 365 if number >= 10 else 0)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    how, said = outcome(path, tools)
    assert (how, "1 stamp out of reason" in said) == ("answered", True), said


def test_a_network_that_a_bad_file_made_fail_is_asked_again_for_the_next(
    tmp_path: Path, tools: Tools
) -> None:
    for asked in tools.networks._all():
        asked.in_a_row, asked.message = 3, "it failed"
    answer = predict_file(media.plain_wav(tmp_path / "next.wav", 3.0), tools)
    assert answer.voice is not None
    assert not tools.networks.failing
