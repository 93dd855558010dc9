"""A camera gives upright RGB with the time of the grab, says what is wrong, and never hangs its reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveaffect.realtime.camera import Camera, CaptureFormat, opencv_capture
from liveaffect.realtime.clock import MS, SECOND, MonotonicClock
from liveaffect.realtime.devices import Device, by_name, list_cameras
from liveaffect.realtime.errors import (
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceLost,
    SourceNotFound,
    SourceRefused,
)
from liveaffect.realtime.frame import VideoFrame
from liveaffect.realtime.testing.devices import FakeCamera
from liveaffect.realtime.testing.virtual_time import FakeClock

KNOWN = [Device(0, "Integrated Camera", "/dev/video0"), Device(2, "Logitech C920", "/dev/video2")]


class StampedClock(MonotonicClock):
    """A monotonic clock that shows 100 s and whose zero is the driver's 1000 s."""

    def now_ns(self) -> int:
        return 100 * SECOND

    def from_monotonic_ns(self, stamp_ns: int) -> int:
        return stamp_ns - 1000 * SECOND


@contextmanager
def opened(device: FakeCamera, **more: object) -> Iterator[Camera]:
    camera = Camera("0", FakeClock(), capture=device, devices=lambda: KNOWN, **more)  # type: ignore[arg-type]
    camera.open()
    try:
        yield camera
    finally:
        device.become("frames" if device.mode == "hang" else device.mode)
        camera.close()


def next_frame(camera: Camera) -> VideoFrame:
    frame = camera.read(5.0)
    assert frame is not None
    return frame


def read_on(camera: Camera) -> None:
    """Read until the camera says why that is not possible any more."""
    while True:
        camera.read(1.0)


def test_pictures_are_rgb_and_numbered() -> None:
    with opened(FakeCamera()) as camera:
        frame = next_frame(camera)
        assert frame.image[0, 0].tolist() == [1 + frame.seq + 1, 20, 10]
        assert frame.size == (64, 48)
        assert next_frame(camera).seq > frame.seq


def test_size_rate_and_compression_are_asked_for_before_the_first_picture() -> None:
    device = FakeCamera()
    with opened(device, wish=CaptureFormat(size=(1280, 720), fps=25)) as camera:
        next_frame(camera)
        assert device.asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
        assert device.asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
        assert device.asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
        assert device.asked[cv2.CAP_PROP_FPS] == 25


@pytest.mark.parametrize(
    ("driver_s", "expected_ns"),
    [
        (1099.980, 100 * SECOND - 20 * MS),  # plausible: believed
        (0.0, 100 * SECOND),  # no stamp
        (17.5, 100 * SECOND),  # another clock
        (1200.0, 100 * SECOND),  # the future
    ],
)
def test_the_drivers_stamp_is_believed_only_where_it_is_plausible(driver_s: float, expected_ns: int) -> None:
    device = FakeCamera()
    device.stamp_ms = driver_s * 1000
    camera = Camera("0", StampedClock(), capture=device, devices=list)
    camera.open()
    try:
        assert abs(next_frame(camera).captured_ns - expected_ns) < MS
    finally:
        camera.close()


def test_a_hanging_grab_does_not_hang_the_reader() -> None:
    device = FakeCamera()
    with opened(device) as camera:
        next_frame(camera)
        device.become("hang")
        threading.Event().wait(0.02)
        camera.read(0.01)
        assert camera.read(0.05) is None


def test_close_lets_go_of_the_device_even_in_the_middle_of_a_read() -> None:
    device = FakeCamera()
    camera = Camera("0", FakeClock(), capture=device, devices=list)
    camera.open()
    next_frame(camera)
    assert device.in_use == 1
    closer = threading.Timer(0.03, camera.close)
    closer.start()
    with pytest.raises(SourceError, match=r"closed|not open"):
        read_on(camera)
    closer.join()
    assert device.in_use == 0


def test_an_unplugged_camera_is_lost_with_the_number_of_its_last_picture() -> None:
    device = FakeCamera()
    with opened(device) as camera:
        next_frame(camera)
        device.become("unplugged")
        with pytest.raises(SourceLost, match=r"camera:0 stopped delivering after picture \d+"):
            read_on(camera)


def test_a_changed_picture_size_is_told_with_both_sizes() -> None:
    device = FakeCamera()
    with opened(device) as camera:
        next_frame(camera)
        device.size = (32, 24)
        with pytest.raises(SourceChanged, match=r"\(64, 48\) to \(32, 24\)"):
            read_on(camera)


def test_pictures_that_cannot_be_decoded_are_counted_and_leave_a_gap() -> None:
    device = FakeCamera()
    with opened(device) as camera:
        before = next_frame(camera)
        device.become("undecodable")
        while camera.losses.get("pictures that could not be decoded", 0) < 3:
            camera.read(0.01)
        device.become("frames")
        after = next_frame(camera)
        gap = after.seq - before.seq - 1
        assert 3 <= gap <= sum(camera.losses.values())


def test_a_picture_nobody_fetched_is_overtaken_and_counted() -> None:
    device = FakeCamera()
    with opened(device) as camera:
        first = next_frame(camera)
        while device.grabbed < first.seq + 10:
            threading.Event().wait(0.005)
        newest = next_frame(camera)
        assert newest.seq >= first.seq + 8
        assert camera.losses["pictures overtaken by the next"] >= newest.seq - first.seq - 1


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 4)])
def test_grey_and_four_channel_pictures_are_converted(shape: tuple[int, ...]) -> None:
    from liveaffect.realtime.camera import _rgb

    image = _rgb(np.full(shape, 77, np.uint8))
    assert image.shape == (48, 64, 3)
    assert (image == 77).all()
    assert (_rgb(np.full((4, 4), 65535, np.uint16)) == 255).all()


@pytest.mark.parametrize("spec", ["7", "logi-tech", "/dev/video9"])
def test_an_unknown_camera_is_answered_with_the_list_of_known_ones(spec: str) -> None:
    device = FakeCamera()
    device.become("unplugged")
    camera = Camera(spec, FakeClock(), capture=device, devices=lambda: KNOWN)
    with pytest.raises(SourceNotFound) as failure:
        camera.open()
    camera.close()
    assert "0: Integrated Camera (/dev/video0)" in str(failure.value)
    assert "2: Logitech C920 (/dev/video2)" in str(failure.value)


def test_without_any_camera_the_list_says_none() -> None:
    camera = Camera("logitech", FakeClock(), capture=FakeCamera(), devices=list)
    with pytest.raises(
        SourceNotFound, match=r"no camera matches 'logitech'. Cameras on this machine:\n  \(none\)"
    ):
        camera.open()


def test_a_folder_is_called_a_folder_not_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("films").mkdir()
    with pytest.raises(
        SourceNotFound, match="'films' is a folder; name a film in it, or: liveaffect analyze films"
    ):
        Camera("films", FakeClock(), capture=FakeCamera(), devices=list).open()


def test_a_device_that_is_there_and_does_not_open_is_busy_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeCamera()
    device.become("unplugged")
    node = tmp_path / "video0"
    node.write_bytes(b"")
    monkeypatch.setattr("sys.platform", "linux")
    busy = Camera(str(node), FakeClock(), capture=device, devices=lambda: KNOWN)
    with pytest.raises(SourceBusy, match="another program"):
        busy.open()
    monkeypatch.setattr("os.access", lambda *_: False)
    refused = Camera(str(node), FakeClock(), capture=device, devices=lambda: KNOWN)
    with pytest.raises(SourceRefused, match="usermod -aG video"):
        refused.open()


def test_a_password_in_a_url_is_not_shown() -> None:
    assert Camera("rtsp://me:secret@host/live", FakeClock()).name == "camera:rtsp://host/live"


def test_the_kernels_list_is_read_in_order_with_one_entry_a_camera(tmp_path: Path) -> None:
    for number, name, index in ((10, "Capture Card", "0"), (0, "Webcam", "0"), (1, "Webcam", "1")):
        entry = tmp_path / f"video{number}"
        entry.mkdir()
        (entry / "name").write_text(name + "\n")
        (entry / "index").write_text(index + "\n")
    assert [str(device) for device in list_cameras(tmp_path)] == [
        "0: Webcam (/dev/video0)",
        "10: Capture Card (/dev/video10)",
    ]
    assert list_cameras(tmp_path / "absent") == []


def test_a_name_is_matched_exactly_before_it_is_matched_in_part() -> None:
    devices = [Device(0, "HD Webcam Pro"), Device(1, "HD Webcam")]
    assert by_name(devices, "hd webcam") == devices[1]
    assert by_name(devices, "webcam") == devices[0]
    assert by_name(devices, "thermal") is None


def test_a_stream_is_read_through_opencv_itself(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 200), np.uint8))
    writer.release()
    camera = Camera(f"file://{path}", MonotonicClock(), capture=opencv_capture, devices=list)
    camera.open()
    try:
        frame = next_frame(camera)
        assert frame.size == (64, 48)
        assert frame.image[20, 20, 0] > 180
        assert frame.image[20, 20, 2] < 20
    finally:
        camera.close()
