"""Every layout of every corpus of voices is read whole or refused by name, and nothing is decoded twice."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from liveaffect.engines.recipe import CORPUS_LABELS, LABELS, SAMPLE_RATE
from liveaffect.engines.training import corpora_voices
from liveaffect.engines.training.corpora_voices import CorpusError, Take, find, read_bytes, read_corpus

RATE_HZ = 48_000


def sound_file(*, container: str = "wav", seconds: float = 0.4, pitch_hz: float = 220.0) -> bytes:
    """A tone as a corpus would publish it: 48 kHz stereo wav, or Ogg Opus at 16 kHz."""
    rate_hz, codec = (RATE_HZ, "pcm_s16le") if container == "wav" else (SAMPLE_RATE, "libopus")
    out = io.BytesIO()
    at_s = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = (0.3 * np.sin(2 * np.pi * pitch_hz * at_s)).astype(np.float32)
    layout = "stereo" if container == "wav" else "mono"
    with av.open(out, "w", format=container) as written:
        stream = written.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = av.AudioLayout(layout)
        samples = np.tile(tone[:, None], (1, stream.channels)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = rate_hz
        converted = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate_hz, frame_size=stream.frame_size or 0
        )
        for part in [*converted.resample(frame), *converted.resample(None)]:
            written.mux(stream.encode(part))
        written.mux(stream.encode(None))
    return out.getvalue()


WAV, OPUS = sound_file(), sound_file(container="ogg")


def folder(root: Path, *names: str, content: bytes = WAV) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def archive(path: Path, *names: str, listed: tuple[str, ...] | None = None, content: bytes = OPUS) -> Path:
    table = io.StringIO()
    rows = csv.DictWriter(table, ["id", "speaker"])
    rows.writeheader()
    rows.writerows({"id": name, "speaker": "x"} for name in (names if listed is None else listed))
    files = {f"corpus/{name}.opus": content for name in names}
    files["corpus/manifest.csv"] = table.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def told(takes: list[Take]) -> list[tuple[str, str, str]]:
    return [(take.name, take.speaker, take.label) for take in takes]


@pytest.mark.parametrize(
    ("corpus", "file", "speaker", "label"),
    [
        ("ravdess", "Actor_12/03-01-06-01-02-01-12.wav", "ravdess/12", "fearful"),
        ("ravdess", "Actor_03/03-01-02-01-02-01-03.wav", "ravdess/03", "neutral"),
        ("nemo", "samples/SB0_happiness_7.wav", "nemo/SB0", "happy"),
        ("emodb", "wav/03a01Wa.wav", "emodb/03", "angry"),
        ("emodb", "wav/16b10Eb.wav", "emodb/16", "disgusted"),
        ("crema-d", "AudioWAV/1001_DFA_SAD_XX.wav", "crema-d/1001", "sad"),
        ("plain", "surprised/anna_kitchen_2.flac", "plain/anna", "surprised"),
    ],
)
def test_a_published_folder_is_read_by_its_own_names(
    tmp_path: Path, corpus: str, file: str, speaker: str, label: str
) -> None:
    (take,) = read_corpus(corpus, folder(tmp_path, file))
    assert (take.speaker, take.label, take.where) == (speaker, label, tmp_path / file)


def test_an_archive_and_a_folder_of_one_corpus_give_the_same_takes(tmp_path: Path) -> None:
    names = ("03-01-08-01-01-01-02", "03-01-05-02-01-01-01")
    packed = read_corpus("ravdess", archive(tmp_path / "a.tar", *names))
    loose = read_corpus("ravdess", folder(tmp_path / "b", *(f"Actor_0{n[-1]}/{n}.wav" for n in names)))
    assert told(packed) == told(loose)
    assert [take.label for take in packed] == ["angry", "surprised"]


def test_of_ravdess_songs_and_silent_films_are_left_out_and_the_sound_is_preferred_to_the_film(
    tmp_path: Path,
) -> None:
    root = folder(
        tmp_path,
        "Actor_01/03-01-03-01-01-01-01.wav",
        "Actor_01/01-01-03-01-01-01-01.mp4",
        "Actor_01/02-01-03-01-01-01-01.mp4",
        "Actor_01/03-02-03-01-01-01-01.wav",
        "Actor_01/01-01-04-01-01-01-01.mp4",
    )
    assert [take.name for take in read_corpus("ravdess", root)] == [
        "01-01-04-01-01-01-01",
        "03-01-03-01-01-01-01",
    ]


def test_the_boredom_of_emodb_is_left_out_on_purpose(tmp_path: Path) -> None:
    assert [t.label for t in read_corpus("emodb", folder(tmp_path, "03a01La.wav", "03a01Na.wav"))] == [
        "neutral"
    ]


def test_the_table_names_only_the_seven_and_covers_every_corpus_that_is_read_by_name() -> None:
    assert set(corpora_voices.PATTERNS) <= set(CORPUS_LABELS)
    assert set(corpora_voices.PLACES) == set(corpora_voices.LICENCES) == {*corpora_voices.PATTERNS, "plain"}
    for corpus in corpora_voices.PATTERNS:
        assert set(CORPUS_LABELS[corpus].values()) <= {*LABELS, None}


@pytest.mark.parametrize(
    ("corpus", "file", "said"),
    [
        ("crema-d", "1001_DFA_JOY_XX.wav", "'JOY' is no label of 'crema-d', which has NEU"),
        ("nemo", "holiday.wav", "no file name of the corpus 'nemo'"),
        ("plain", "cheerful/anna_1.wav", "'cheerful'; folders are named neutral, happy"),
        ("plain", "happy/anna.wav", "named for its speaker first"),
        ("emodb", "readme.txt", "holds no sound of the corpus 'emodb'"),
        ("iemocap", "a.wav", "no reader for the corpus 'iemocap'; known are ravdess"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(tmp_path: Path, corpus: str, file: str, said: str) -> None:
    with pytest.raises(CorpusError, match=re.escape(said)):
        read_corpus(corpus, folder(tmp_path, file))


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, "a/03a01Wa.wav", "b/03a01Wa.wav")
    with pytest.raises(CorpusError, match="'03a01Wa' is there twice"):
        read_corpus("emodb", root)


def test_an_archive_that_lacks_a_take_its_manifest_lists_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "nemo.tar", "A0_anger_1", listed=("A0_anger_1", "A0_fear_2"))
    with pytest.raises(CorpusError, match=r"lacks 1 of the 2 takes .* the first is A0_fear_2; copy it again"):
        read_corpus("nemo", path)


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "nemo.tar", "A0_anger_1", "A0_fear_2")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(CorpusError, match="copy it again"):
        read_corpus("nemo", path)


def test_a_data_folder_says_what_it_holds_or_where_corpora_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"voice/nemo\.tar"):
        find(tmp_path)
    archive(tmp_path / "voice" / "nemo.tar", "A0_anger_1")
    folder(tmp_path / "crema-d", "1001_DFA_SAD_XX.wav")
    assert find(tmp_path) == {"nemo": tmp_path / "voice" / "nemo.tar", "crema-d": tmp_path / "crema-d"}
    with pytest.raises(CorpusError, match="there is no data folder"):
        find(tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_samples_are_16_khz_mono_and_come_from_the_cache_the_second_time(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        takes = read_corpus("emodb", folder(tmp_path / "in", "03a01Wa.wav", "04a01Na.wav"))
    else:
        takes = read_corpus("nemo", archive(tmp_path / "in.tar", "A0_anger_1", "A0_fear_2"))
    lines: list[str] = []
    first = corpora_voices.load_takes(takes, tmp_path / "cache", lines.append)
    again = corpora_voices.load_takes(takes, tmp_path / "cache", lines.append)
    assert len(lines) == 1
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float16
        assert abs(len(one) / SAMPLE_RATE - 0.4) < 0.03
        spectrum = np.abs(np.fft.rfft(one.astype(np.float64)))
        assert abs(spectrum.argmax() * SAMPLE_RATE / len(one) - 220.0) < 4.0


def test_a_changed_corpus_is_decoded_again_and_a_damaged_cache_too(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", "03a01Wa.wav")
    lines: list[str] = []
    corpora_voices.load_takes(read_corpus("emodb", root), tmp_path / "cache", lines.append)
    (root / "03a01Wa.wav").write_bytes(sound_file(seconds=0.8))
    (longer,) = corpora_voices.load_takes(read_corpus("emodb", root), tmp_path / "cache", lines.append)
    assert abs(len(longer) / SAMPLE_RATE - 0.8) < 0.03
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:200])
    (mended,) = corpora_voices.load_takes(read_corpus("emodb", root), tmp_path / "cache", lines.append)
    np.testing.assert_array_equal(mended, longer)
    assert "damaged" in lines[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be decoded"),
        (WAV[:60], "damaged|cannot be decoded"),
        (b"RIFF" * 40, "cannot be decoded"),
    ],
)
def test_a_damaged_sound_is_named_with_what_to_do(tmp_path: Path, content: bytes, said: str) -> None:
    takes = read_corpus("emodb", folder(tmp_path, "03a01Wa.wav", content=content))
    with pytest.raises(CorpusError, match=f"'03a01Wa' of .*({said}).*copy it again"):
        corpora_voices.load_takes(takes, tmp_path / "cache", lambda line: None)


def test_bytes_of_an_archive_come_in_the_order_asked_for(tmp_path: Path) -> None:
    takes = read_corpus("nemo", archive(tmp_path / "in.tar", "A0_anger_1", "A0_fear_2"))
    assert [(take.name, content) for take, content in read_bytes(takes[::-1])] == [
        ("A0_fear_2", OPUS),
        ("A0_anger_1", OPUS),
    ]
