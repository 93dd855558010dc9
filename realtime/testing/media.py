"""Media made when it is wanted: whole files to try examples with, damaged, absurd and odd ones, and streams.

    python -m liveaffect.realtime.testing.media FOLDER

Nothing foreign is kept in the repository: the portrait of the film is one that an installed package
carries. The same seed damages a file in the same way (cut, flipped, zeroed, doubled, mixed), so it can be
looked at again. The network camera sends one short film over and over in two sizes, at its pace, to whoever
connects by TCP, until it is unplugged.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import struct
import sys
import threading
import wave
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.realtime.acting import tone_voice, write_wav
from liveaffect.realtime.frame import AudioBlock
from liveaffect.realtime.portrait import Portraits, packaged_portraits
from liveaffect.realtime.replay import load_picture
from liveaffect.realtime.sinks.video_file import VideoFile

FILM_FPS = 25
FILM_SECONDS = 2
PICTURE = (96, 64)
SECONDS = 1.6
FPS = 10
RATE_HZ = 16_000
_FILMS: dict[str, tuple[str, str | None]] = {
    "whole.mp4": ("mpeg4", "aac"),
    "h264.mp4": ("libx264", "aac"),
    "whole.mkv": ("libx264", "flac"),
    "whole.avi": ("mjpeg", "pcm_s16le"),
    "whole.webm": ("libvpx", "libopus"),
    "silent.mov": ("mpeg4", None),
}
_SOUNDS = {"whole.wav": "pcm_s16le", "float.wav": "pcm_f32le", "whole.flac": "flac", "whole.ogg": "libopus"}
Damage = Callable[[bytes, random.Random], bytes]
STREAM_HZ = 20
STREAM_SIZES = ((640, 480), (320, 240))
"""Of the network camera."""


def write_media(folder: Path) -> Path:
    """Write portrait.jpg, talk.mp4 and voice.wav into the folder, which is returned.

    Raises FileNotFoundError where no installed package carries a portrait.
    """
    found = packaged_portraits()
    if not found:
        raise FileNotFoundError("no installed package carries a portrait; mediapipe brings one along")
    portrait = load_picture(found[0])
    cv2.imwrite(str(folder / "portrait.jpg"), cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))
    voice = tone_voice(FILM_SECONDS)
    write_wav(folder / "voice.wav", voice)
    film = VideoFile(str(folder / "talk.mp4"))
    camera = Portraits([portrait], (320, 240), FILM_FPS, frames=FILM_FPS * FILM_SECONDS)
    camera.open()
    period = SAMPLE_RATE // FILM_FPS
    for seq in range(FILM_FPS * FILM_SECONDS):
        frame = camera.read(1.0)
        samples = voice[seq * period : (seq + 1) * period]
        film.hear(AudioBlock("microphone", seq * period, frame.captured_ns, samples.copy()))
        film.show(frame.image, frame)
    film.close()
    return folder


def whole_files(folder: Path) -> list[Path]:
    """One small file of every kind that is read, with a moving pattern and a tone."""
    films = [film(folder / name, *codecs) for name, codecs in _FILMS.items()]
    sounds = [film(folder / name, None, codec) for name, codec in _SOUNDS.items()]
    pictures = []
    for ending in (".jpg", ".png", ".bmp", ".webp", ".tiff"):
        pictures.append(folder / f"whole{ending}")
        pictures[-1].write_bytes(encoded(ending, _picture(3)))
    return [*films, *sounds, *pictures]


def film(path: Path, video_codec: str | None, sound_codec: str | None, *, seconds: float = SECONDS) -> Path:
    """A file with these tracks."""
    import av

    rate_hz = 48_000 if sound_codec == "libopus" else RATE_HZ
    with av.open(str(path), "w") as out:
        video = out.add_stream(video_codec, rate=FPS) if video_codec else None
        audio = out.add_stream(sound_codec, rate=rate_hz, layout="mono") if sound_codec else None
        if isinstance(video, av.VideoStream):
            video.width, video.height = PICTURE
            video.pix_fmt = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
            for number in range(round(seconds * FPS)):
                out.mux(video.encode(av.VideoFrame.from_ndarray(_picture(number), format="rgb24")))
            out.mux(video.encode(None))
        if isinstance(audio, av.AudioStream):
            tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate_hz)) / rate_hz)
            for begin in range(0, len(tone), 960):
                part = tone[None, begin : begin + 960].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate_hz, begin
                for fitting in av.AudioResampler(audio.codec_context.format, "mono", rate_hz).resample(frame):
                    out.mux(audio.encode(fitting))
            out.mux(audio.encode(None))
    return path


def _picture(number: int) -> NDArray[np.uint8]:
    across = np.arange(PICTURE[0])[None, :, None] * 2
    down = np.arange(PICTURE[1])[:, None, None] * 3
    return ((across + down + 9 * number * np.arange(1, 4)) % 256).astype(np.uint8)


def encoded(ending: str, picture: NDArray[np.uint8]) -> bytes:
    """The picture as a file of that kind."""
    done, content = cv2.imencode(ending, picture)
    assert done
    return bytes(content)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 20, 200))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _flipped_head(data: bytes, rng: random.Random) -> bytes:
    """Where sizes, rates and times stand."""
    head = min(len(data), 600)
    return _flipped(data[:head], rng) + data[head:]


def _flipped_tail(data: bytes, rng: random.Random) -> bytes:
    """Where MP4 has its tables."""
    begin = max(0, len(data) - 1200)
    return data[:begin] + _flipped(data[begin:], rng)


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data))
    size = min(rng.choice((16, 256, 4096)), len(data) - begin)
    return data[:begin] + bytes(size) + data[begin + size :]


def _largest(data: bytes, rng: random.Random) -> bytes:
    """Four bytes become the largest number there is."""
    begin = rng.randrange(max(1, len(data) - 4))
    return data[:begin] + b"\xff\xff\xff\xff" + data[begin + 4 :]


def _without_a_piece(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + data[begin + rng.choice((1, 100, 3000)) :]


def _shuffled(data: bytes, rng: random.Random) -> bytes:
    size = max(1, len(data) // 8)
    parts = [data[at : at + size] for at in range(size, len(data), size)]
    rng.shuffle(parts)
    return data[:size] + b"".join(parts)


def _doubled(data: bytes, rng: random.Random) -> bytes:
    return data + data[rng.randrange(len(data)) :]


DAMAGES: tuple[Damage, ...] = (
    _cut,
    _flipped,
    _flipped_head,
    _flipped_tail,
    _zeroed,
    _largest,
    _without_a_piece,
    _shuffled,
    _doubled,
)


def damaged_file(whole: list[Path], folder: Path, seed: int) -> tuple[Path, Path]:
    """The damaged file of that seed, and the whole one from which it was made."""
    rng = random.Random(seed)
    source = whole[seed % len(whole)]
    damage = DAMAGES[seed // len(whole) % len(DAMAGES)]
    path = folder / f"{seed:03}-{damage.__name__.strip('_')}-{source.stem}{source.suffix}"
    path.write_bytes(damage(source.read_bytes(), rng))
    return path, source


def odd_files(folder: Path) -> dict[str, Path]:
    """Files that are what they should not be, by what is odd about them."""
    tone = (0.1 * np.sin(np.arange(2 * RATE_HZ) / 20)).astype(np.float32)
    loud = tone.copy()
    loud[5_000:5_100] = 1e20
    loud[9_000] = np.nan
    made: dict[str, bytes] = {
        "empty.jpg": b"",
        "empty.mp4": b"",
        "empty.wav": b"",
        "text.mp4": b"this is no film\n" * 50,
        "text.png": b"this is no picture\n" * 50,
        "png named.jpg": encoded(".png", _picture(0)),
        "jpg named.wav": encoded(".jpg", _picture(0)),
        "one pixel.png": encoded(".png", np.zeros((1, 1, 3), np.uint8)),
        "a line.png": encoded(".png", np.zeros((1, 3_000, 3), np.uint8)),
        "a column.png": encoded(".png", np.zeros((3_000, 1, 3), np.uint8)),
        "grey.png": encoded(".png", _picture(0)[..., 0]),
        "bomb.png": damaged_png(40_000, 40_000, rows=8),
        "absurdly loud.wav": float_wav(loud),
        "all absurd.wav": float_wav(np.full(RATE_HZ, 3e38, np.float32)),
        "no samples.wav": float_wav(np.zeros(0, np.float32)),
        "one sample.wav": float_wav(np.ones(1, np.float32)),
        "silence.wav": float_wav(np.zeros(RATE_HZ, np.float32)),
        "1 hertz.wav": float_wav(tone[:20], rate_hz=1),
        "4 gigahertz.wav": float_wav(tone, rate_hz=4_294_967_295),
        "no rate.wav": float_wav(tone, rate_hz=0),
        "200 channels.wav": float_wav(tone, channels=200),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in made}


def float_wav(samples: NDArray[np.float32], *, rate_hz: int = RATE_HZ, channels: int = 1) -> bytes:
    """A WAV file of 32-bit floats, which can hold any number, with any head."""
    content = samples.tobytes()
    step = 4 * channels
    head = struct.pack("<HHIIHH", 3, channels, rate_hz, rate_hz * step & 0xFFFFFFFF, step & 0xFFFF, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def damaged_png(width: int, height: int, *, rows: int | None = None) -> bytes:
    """A black PNG of any size in few bytes; with `rows` only its first ones are there."""
    packed = zlib.compressobj(1)
    line = bytes(3 * width + 1)
    content = b"".join(packed.compress(line) for _ in range(height if rows is None else rows))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", content + packed.flush()),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def plain_wav(path: Path, seconds: float = 1.0) -> Path:
    """A quiet tone, whole and ordinary."""
    tone = (3_000 * np.sin(np.arange(round(seconds * RATE_HZ)) / 20)).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(tone.tobytes())
    return path


def packets_of(pictures: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """The bytes of each picture's packets, in both sizes."""
    parts, out = [], io.BytesIO()
    with av.open(out, "w", format="mpegts") as file:
        streams = []
        for width, height in STREAM_SIZES:
            stream = file.add_stream("mpeg2video", rate=STREAM_HZ, width=width, height=height)
            stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 5
            streams.append(stream)
        for number, picture in enumerate(pictures):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, "yuv420p")
                frame.pts = number
                file.mux(stream.encode(frame))
            parts.append(out.getvalue())
            out.seek(0)
            out.truncate()
    return parts


class NetworkCamera:
    """Serves `url`; a context. `plug_out` and `plug_in` any number of times."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._film = packets_of(pictures)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self._over = threading.Event()
        self._plugged = threading.Event()
        self._plugged.set()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def __enter__(self) -> NetworkCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 0.5).close()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def plug_out(self) -> None:
        """Break off every connection, and take no new one."""
        self._plugged.clear()

    def plug_in(self) -> None:
        """Be there again."""
        self._plugged.set()

    def _serve(self) -> None:
        while not self._over.is_set():
            reader, _ = self._socket.accept()
            if not self._plugged.is_set() or self._over.is_set():
                reader.close()
                continue
            thread = threading.Thread(target=self._send, args=(reader,))
            self._threads.append(thread)
            thread.start()

    def _send(self, reader: socket.socket) -> None:
        with contextlib.suppress(OSError), reader:
            while True:
                for part in self._film:
                    if not self._plugged.is_set() or self._over.wait(1 / STREAM_HZ):
                        return
                    reader.sendall(part)


if __name__ == "__main__":
    write_media(Path(sys.argv[1]))
