"""From films as their publishers lay them out to a table, and to networks that run live: on miniatures.

Every layout is made anew, a few seconds of a drawn head each, so that the whole way of a paper is walked
without a corpus: read, cut as live, train by a protocol, examine, put beside the papers' figures, export.
"""

from __future__ import annotations

import csv
import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveaffect.engines.recipe import SAMPLE_RATE
from liveaffect.engines.training.corpora_films import AFEW_LABELS, FilmReading, FilmTake, read_films
from liveaffect.engines.training.corpora_voices import CorpusError
from liveaffect.engines.training.cutting import Cut, CutOrder, cut_all, read_cut
from liveaffect.engines.training.protocols import (
    PROTOCOLS,
    SHARES,
    Fold,
    baselines,
    binary_figures,
    judged,
    refuse_leak,
    thresholds_from,
)
from liveaffect.placing import cut_film
from liveaffect.realtime.acting import POSES, draw_head, tone_voice, write_wav
from liveaffect.realtime.frame import AudioBlock, VideoFrame
from liveaffect.realtime.sinks.video_file import VideoFile

SIX = {"ang": "angry", "exc": "happy", "fru": "disgusted", "hap": "happy", "neu": "neutral", "sad": "sad"}
FPS = 10


def film(path: Path, labels: Sequence[str], seconds: float = 1.4, *, sound: bool = True) -> Path:
    """Heads side by side, one a label, and a voice; written by the program's own sink."""
    path.parent.mkdir(parents=True, exist_ok=True)
    heads = [cv2.resize(draw_head(POSES[label]), (180, 180)) for label in labels]
    image = np.full((240, 240 * len(heads), 3), 90, np.uint8)
    for at, head in enumerate(heads):
        image[30:210, 240 * at + 30 : 240 * at + 210] = head
    written = VideoFile(str(path.with_suffix(".mp4")), sound=sound)
    voice = tone_voice(seconds)
    period = SAMPLE_RATE // FPS
    for seq in range(round(seconds * FPS)):
        at_ns = seq * 10**9 // FPS
        if sound:
            samples = voice[seq * period : (seq + 1) * period].copy()
            written.hear(AudioBlock("microphone", seq * period, at_ns, samples))
        written.show(image, VideoFrame("film", seq, at_ns, image.copy()))
    written.close()
    if path.suffix != ".mp4":
        path.with_suffix(".mp4").rename(path)
    return path


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One film a label, and one of two heads, made once and copied from then on."""
    root = tmp_path_factory.mktemp("shots")
    for label in ("angry", "happy", "neutral", "sad"):
        film(root / f"{label}.mp4", [label])
    film(root / "two.mp4", ["happy", "sad"])
    write_wav(root / "voice.wav", tone_voice(1.4))
    return root


def laid(shots: Path, path: Path, shot: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(shots / shot, path)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def iemocap(root: Path, shots: Path, sessions: int = 3) -> Path:
    """Two speakers a session, each class once by each of them; and the published lists beside it."""
    names = []
    for number in range(1, sessions + 1):
        session = root / "IEMOCAP_full_release" / f"Session{number}"
        dialog = f"Ses{number:02d}F_impro01"
        laid(shots, session / "dialog" / "avi" / "DivX" / f"{dialog}.avi", "two.mp4")
        lines, said = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for at, (label, who) in enumerate((label, who) for label in SIX for who in "FM"):
            name = f"{dialog}_{who}{at:03d}"
            names.append(name)
            lines.append(f"[0.1000 - 1.3000]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]")
            said.append(f"{name} [000.1000-001.3000]: I am {label} {at}.")
            laid(shots, session / "sentences" / "wav" / dialog / f"{name}.wav", "voice.wav")
        lines.append(f"[0.1000 - 1.3000]\t{dialog}_F099\txxx\t[2.5000, 2.5000, 2.5000]")
        laid(shots, session / "sentences" / "wav" / dialog / f"{dialog}_F099.wav", "voice.wav")
        write(session / "dialog" / "EmoEvaluation" / f"{dialog}.txt", "\n".join(lines))
        write(session / "dialog" / "transcriptions" / f"{dialog}.txt", "\n".join(said))
    sides = {"train": names[::2], "valid": names[1::6], "test": names[3::6] + names[5::6]}
    for part, those in sides.items():
        write(root / "mosei_iemocap_splits" / f"IEMOCAP_{part}.txt", "\n".join(those))
    return root


def mosei(root: Path, shots: Path) -> Path:
    raw = root / "Raw"
    (raw / "Labels").mkdir(parents=True)
    with (raw / "Labels" / "batch.csv").open("w", newline="") as file:
        answers = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
        out = csv.writer(file)
        out.writerow(["Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{name}" for name in answers)])
        for video in "abc":
            out.writerow([video, 0, 0, 0, 0, 0, 0, 0])
            out.writerow([video, 0, 1, 0, 0, 0, 0, 0])
            out.writerow([video, 1, 0, 0, 0, 2, 1, 0])
    for part, video in zip(("train", "valid", "test"), "abc", strict=True):
        laid(shots, raw / "Videos" / "Full" / "Combined" / f"{video}.mp4", "happy.mp4")
        rows = [
            f"{video}___0___0.0___0.7___Oh dear.",
            f"{video}___1___0.7___1.4___Good.",
            f"{video}___9___0___1___x",
        ]
        write(raw / "Transcript" / "Combined" / f"{video}.txt", "\n".join(rows))
        write(root / "mosei_iemocap_splits" / f"MOSEI_{part}.txt", f"{video}_0\n{video}_1\n")
    return root


def afew(root: Path, shots: Path) -> Path:
    for part, count in (("Train", 6), ("Val", 2)):
        for label in AFEW_LABELS:
            for number in range(count):
                laid(shots, root / part / label / f"{part}{label}{number}.avi", "neutral.mp4")
    return root


def ravdess(root: Path, shots: Path) -> Path:
    for actor in range(1, 6):
        for code in range(1, 9):
            name = f"01-01-{code:02d}-01-01-01-{actor:02d}.mp4"
            laid(shots, root / f"Video_Speech_Actor_{actor:02d}" / f"Actor_{actor:02d}" / name, "sad.mp4")
    return root


def crema_d(root: Path, shots: Path) -> Path:
    rows = ["path,sha256,size"]
    for actor in range(1001, 1006):
        for code in ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS"):
            sound = laid(shots, root / "CREMA-D" / "AudioWAV" / f"{actor}_IEO_{code}_XX.wav", "voice.wav")
            laid(shots, root / "CREMA-D" / "VideoFlash" / f"{actor}_IEO_{code}_XX.flv", "angry.mp4")
            digest = hashlib.sha256(sound.read_bytes()).hexdigest()
            rows.append(f"AudioWAV/{sound.name},{digest},{sound.stat().st_size}")
    write(root / "CREMA-D" / "lfs_oids.csv", "\n".join(rows))
    return root


def meld(root: Path, shots: Path) -> Path:
    tables = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for part, folder in tables.items():
        rows = ["Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"]
        for at, label in enumerate(("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")):
            rows.append(f'{at},"Well, no.",Joey,{label},x,0,{at}')
            laid(shots, root / "MELD.Raw" / folder / f"dia0_utt{at}.mp4", "happy.mp4")
        write(root / "MELD.Raw" / f"{part}_sent_emo.csv", "\n".join(rows))
    return root


LAYOUTS: dict[str, tuple[Callable[[Path, Path], Path], int]] = {
    "iemocap": (iemocap, 39),
    "mosei": (mosei, 6),
    "afew": (afew, 56),
    "ravdess": (ravdess, 40),
    "crema-d": (crema_d, 30),
    "meld": (meld, 21),
}


@pytest.mark.parametrize("corpus", LAYOUTS)
def test_every_layout_is_read_whole(tmp_path: Path, shots: Path, corpus: str) -> None:
    make, count = LAYOUTS[corpus]
    found = read_films(corpus, make(tmp_path, shots))
    assert len(found.takes) == count
    assert all(take.speaker.startswith(f"{corpus}/") for take in found.takes)
    assert {
        trouble: number for trouble, number in found.troubles.items() if trouble != "without a label"
    } == {}


def test_iemocap_tells_who_speaks_on_which_side_and_what(tmp_path: Path, shots: Path) -> None:
    takes = {take.name: take for take in read_films("iemocap", iemocap(tmp_path, shots)).takes}
    one, other = takes["Ses01F_impro01_F000"], takes["Ses01F_impro01_M001"]
    assert (one.speaker, one.half, one.session) == ("iemocap/Ses01F", "left", "Session1")
    assert (other.speaker, other.half) == ("iemocap/Ses01M", "right")
    assert (one.begin_s, one.end_s, one.words) == (0.1, 1.3, "I am ang 0.")
    assert one.labels == ("ang",)


def test_mosei_is_yes_where_any_annotator_said_so_and_none_where_nobody_did(
    tmp_path: Path, shots: Path
) -> None:
    found = read_films("mosei", mosei(tmp_path, shots))
    takes = {take.name: take for take in found.takes}
    assert takes["a_0"].labels == ("anger",)
    assert takes["a_1"].labels == ("happiness", "sadness")
    assert found.named["without a label"] == ["a_9", "b_9", "c_9"]


def test_the_processed_forms_are_read_and_their_pickle_may_run_nothing(tmp_path: Path, shots: Path) -> None:
    root = tmp_path / "IEMOCAP_RAW_PROCESSED"
    name = "Ses01F_impro01_M003"
    laid(shots, root / "Ses01F_impro01" / name / "audio_R.wav", "voice.wav")
    for at in range(30):
        cv2.imwrite(str(root / "Ses01F_impro01" / name / f"image_R_{at}.jpg"), np.zeros((8, 8, 3), np.uint8))
    (root / "meta.pkl").write_bytes(
        pickle.dumps({name: {"text": "No.", "label": "fru"}, "x_y": {"label": "sad"}})
    )
    found = read_films("iemocap", tmp_path)
    (take,) = found.takes
    assert (take.labels, take.words, take.picture_name) == (("fru",), "No.", "image_R_*.jpg")
    assert found.troubles["utterance's folder missing"] == 1
    (root / "meta.pkl").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(CorpusError, match="wants to load pathlib"):
        read_films("iemocap", tmp_path)


def test_missing_and_altered_files_are_named_and_counted(tmp_path: Path, shots: Path) -> None:
    crema_d(tmp_path, shots)
    sounds = sorted((tmp_path / "CREMA-D" / "AudioWAV").iterdir())
    sounds[0].write_bytes(sounds[0].read_bytes()[:-1] + b"x")
    next((tmp_path / "CREMA-D" / "VideoFlash").iterdir()).unlink()
    found = read_films("crema-d", tmp_path)
    assert dict(found.troubles) in ({"damaged": 1, "film missing": 1}, {"damaged": 1})
    assert str(sounds[0]) in found.told()[0]
    with pytest.raises(CorpusError, match="holds nothing usable of 'meld'"):
        read_films("meld", tmp_path)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_speaker_is_on_two_sides_but_where_the_title_says_so(
    tmp_path: Path, shots: Path, name: str
) -> None:
    protocol = PROTOCOLS[name]
    data = LAYOUTS[protocol.corpus][0](tmp_path, shots)
    takes = protocol.chosen(read_films(protocol.corpus, data).takes)
    folds = protocol.folds(takes, data)
    tested = [row for fold in folds for row in fold.test]
    assert len(tested) == len(set(tested)), "an utterance is tested on twice"
    assert protocol.shares_speakers == (SHARES in protocol.title)
    for fold in folds:
        if protocol.shares_speakers:
            with pytest.raises(ValueError, match="on two sides"):
                refuse_leak(fold, takes)
        else:
            refuse_leak(fold, takes)


def test_a_speaker_on_two_sides_is_refused_by_every_other_protocol(tmp_path: Path, shots: Path) -> None:
    takes = read_films("ravdess", ravdess(tmp_path, shots)).takes
    leaking = replace(
        PROTOCOLS["ravdess-7"], divide=lambda *_: [Fold("bad", (0, 1, 2), (), (3, *range(10, 40)))]
    )
    with pytest.raises(ValueError, match="has the speaker 'ravdess/0"):
        leaking.folds(takes, tmp_path)


def test_the_figures_are_those_counted_by_hand() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool)
    said = np.array([[1, 0], [0, 0], [0, 1], [1, 1]], bool)
    found = binary_figures(truth, said, said.astype(float))
    assert found["each"]["accuracy"] == [0.5, 0.75]
    assert found["each"]["weighted_accuracy"] == [0.5, (1 + 2 / 3) / 2]
    assert found["each"]["f1"] == [0.5, 2 / 3]


def test_saying_no_everywhere_has_five_sixths_plain_and_half_weighted_accuracy() -> None:
    truth = np.eye(6, dtype=bool)[np.arange(60) % 6]
    found = baselines(PROTOCOLS["iemocap-6-published"], truth, truth, ["a", "b", "c"] * 20)
    assert found["all negative"]["mean"]["accuracy"] == pytest.approx(5 / 6)
    assert found["all negative"]["mean"]["weighted_accuracy"] == 0.5
    assert found["majority"]["classes"]["unweighted_recall"] == pytest.approx(1 / 6)


def test_thresholds_follow_validation_and_nothing_else() -> None:
    truth = np.array([[True], [True], [False], [False]])
    shares = np.array([[0.32], [0.31], [0.22], [0.1]])
    (threshold,) = thresholds_from(truth, shares)
    assert 0.22 <= threshold < 0.31
    assert thresholds_from(~truth & truth, shares).tolist() == [0.5]
    lifted = judged(
        PROTOCOLS["mosei-6"],
        np.tile(truth, 6),
        np.tile(shares, 6),
        np.tile(shares > threshold, 6),
        list("abcd"),
    )
    assert lifted["mean"]["f1"] == 1.0


def cut_of(takes: Sequence[FilmTake], hz: float) -> Iterator[tuple[FilmTake, Cut | str]]:
    for take in takes:
        yield (
            take,
            Cut(
                np.zeros((2, 64, 64, 3), np.uint8),
                np.array([0, 0.5], np.float32),
                np.ones(16_000, np.float16),
            ),
        )


def cut_badly(takes: Sequence[FilmTake], hz: float) -> Iterator[tuple[FilmTake, Cut | str]]:
    yield from list(cut_of(takes, hz))[:1]
    raise ValueError("the film breaks off")


def test_cutting_goes_on_where_it_was_and_keeps_what_came_before_a_film_broke(tmp_path: Path) -> None:
    one = Path(__file__)
    takes = [FilmTake("x", f"{at}", "x/a", ("sad",), one, begin_s=at) for at in range(3)]
    reading = FilmReading()
    first = cut_all(takes, CutOrder(cut_badly, tmp_path, 2.0), reading)
    assert (set(first.files), first.made, reading.troubles["damaged"]) == ({"0"}, 1, 2)
    assert "1: the film breaks off" in reading.named["damaged"]
    second = cut_all(takes, CutOrder(cut_of, tmp_path, 2.0, workers=2), FilmReading())
    assert (len(second.files), second.made) == (3, 2)
    assert cut_all(takes, CutOrder(cut_badly, tmp_path, 2.0), FilmReading()).made == 0
    assert cut_all(takes, CutOrder(cut_of, tmp_path, 5.0), FilmReading()).made == 3, (
        "another rate is another cut"
    )


def test_a_film_is_cut_as_live_each_speaker_on_his_side(tmp_path: Path, shots: Path) -> None:
    takes = [t for t in read_films("iemocap", iemocap(tmp_path, shots, 1)).takes if t.labels != ("xxx",)]
    takes = [takes[0], next(t for t in takes if t.half != takes[0].half)]
    found = cut_all(takes, CutOrder(cut_film, tmp_path / "cut", 5.0), FilmReading())
    left, right = (read_cut(found.files[take.name]) for take in takes)
    for cut in (left, right):
        assert cut.crops.shape[0] in range(3, 8)
        assert np.diff(cut.times_s).min() >= 0.19
        assert len(cut.samples) == pytest.approx(1.4 * SAMPLE_RATE, abs=400)
    happy, sad = left.crops[-1].astype(int), right.crops[-1].astype(int)
    assert np.abs(happy - sad).mean() > 3, "both are shown the same face"
