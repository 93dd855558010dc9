"""Readers of faces take every published layout, name what is wrong, and let no face lie on two sides."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import CORPUS_LABELS, CROP_SIZE, LABELS
from liveaffect.engines.training import corpora_faces, splits
from liveaffect.engines.training.corpora_faces import FERPLUS, find_faces, load_split, read_plain, soft_labels
from liveaffect.engines.training.corpora_voices import CorpusError

COLUMNS = tuple(CORPUS_LABELS[FERPLUS])


def picture(seed: int, side: int = 48) -> NDArray[np.uint8]:
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(cv2.resize(rough, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def votes(**given: int) -> NDArray[np.int64]:
    return np.array([[given.get(name, 0) for name in COLUMNS]])


def ferplus(path: Path, count: int = 40, *, tested: int = 8, leak: int | None = None) -> Path:
    """A miniature of the one-file form; picture 1 equals picture 0, the last `tested` are for testing."""
    blobs = [cv2.imencode(".png", picture(max(i, 1)))[1].ravel() for i in range(count)]
    ends = np.cumsum([0, *map(len, blobs)])
    ballots = np.zeros((count, len(COLUMNS)), np.uint8)
    ballots[np.arange(count), np.arange(count) % 7] = 10
    near = np.zeros(count, bool)
    if leak is not None:
        near[leak] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        blob=np.concatenate(blobs),
        offset=ends.astype(np.uint32),
        votes=ballots,
        split=(np.arange(count) >= count - tested).astype(np.uint8),
        near_leak=near,
    )
    return path


def as_published(root: Path, *, pixels: bool) -> None:
    """Microsoft's table with FER2013 beside it; the second row has no picture, the last is a benchmark's."""
    usages = ["Training", "Training", "Training", "PublicTest", "PrivateTest"]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "fer2013new.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["Usage", "Image name", *COLUMNS])
        for at, usage in enumerate(usages):
            name = "" if at == 1 else f"fer{at:07d}.png"
            out.writerow([usage, name, *votes(happiness=7, anger=3)[0]])
    if pixels:
        with (root / "fer2013.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["emotion", "pixels", "Usage"])
            for at, usage in enumerate(usages):
                out.writerow([3, " ".join(map(str, picture(at).ravel())), usage])
        return
    for folder, at in (("FER2013Train", 0), ("FER2013Train", 2), ("FER2013Valid", 3)):
        (root / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(root / folder / f"fer{at:07d}.png"), picture(at))


def test_every_column_of_votes_is_one_of_the_seven_or_left_out_on_purpose() -> None:
    ours = [label for label in CORPUS_LABELS[FERPLUS].values() if label is not None]
    assert sorted(ours) == sorted(LABELS)
    assert [name for name, label in CORPUS_LABELS[FERPLUS].items() if label is None] == [
        "contempt",
        "unknown",
        "NF",
    ]


@pytest.mark.parametrize(("name", "label"), [(n, lab) for n, lab in CORPUS_LABELS[FERPLUS].items() if lab])
def test_a_unanimous_vote_is_certain_of_its_label(name: str, label: str) -> None:
    soft, said = soft_labels(votes(**{name: 10}))
    assert LABELS[said[0]] == label
    assert soft[0, said[0]] == 1.0


def test_votes_stay_a_distribution_and_single_votes_are_slips() -> None:
    soft, said = soft_labels(votes(happiness=6, neutral=3, anger=1))
    assert soft[0, LABELS.index("happy")] == pytest.approx(6 / 9)
    assert soft[0, LABELS.index("neutral")] == pytest.approx(3 / 9)
    assert LABELS[said[0]] == "happy"
    scattered = np.ones((1, len(COLUMNS)), int)
    assert soft_labels(scattered)[0][0] == pytest.approx(1 / 7)


def test_a_majority_is_more_than_half_of_the_votes_that_are_no_slips() -> None:
    for agreed, cast in (
        (True, {"happiness": 6, "neutral": 4}),
        (False, {"happiness": 5, "neutral": 5}),
        (True, {"happiness": 4, "neutral": 3, "anger": 1, "fear": 1, "sadness": 1}),
        (False, {"happiness": 4, "neutral": 2, "anger": 2, "fear": 1, "sadness": 1}),
        (False, dict.fromkeys(COLUMNS, 1)),
    ):
        assert corpora_faces.majorities(votes(**cast)).tolist() == [agreed], cast


def test_contempt_is_left_out_and_the_rest_renormalised() -> None:
    soft, said = soft_labels(votes(neutral=4, contempt=3, sadness=3))
    assert soft[0, LABELS.index("neutral")] == pytest.approx(4 / 7)
    assert LABELS[said[0]] == "neutral"


@pytest.mark.parametrize("name", ["contempt", "unknown", "NF"])
def test_what_none_of_the_seven_describes_has_neither_distribution_nor_label(name: str) -> None:
    soft, said = soft_labels(votes(**{name: 7}, neutral=3))
    assert not soft.any()
    assert said[0] == -1


def test_the_one_file_form_is_read_whole_and_near_leaks_are_dropped(tmp_path: Path) -> None:
    ferplus(tmp_path / corpora_faces.FERPLUS_FILE, leak=5)
    (faces,) = find_faces(tmp_path)
    assert len(faces) == 39
    assert "00005" not in faces.names
    assert faces.sides.count("test") == 8
    np.testing.assert_array_equal(faces.pictures[2], picture(2))
    assert faces.groups[0] == faces.groups[1] != faces.groups[2]


@pytest.mark.parametrize("pixels", [True, False])
def test_the_published_table_is_read_with_pixels_in_a_table_or_in_files(
    tmp_path: Path, *, pixels: bool
) -> None:
    as_published(tmp_path / "somewhere", pixels=pixels)
    (faces,) = find_faces(tmp_path)
    assert faces.names == ("fer0000000", "fer0000002", "fer0000003")
    assert faces.sides == ("train", "train", "test")
    np.testing.assert_array_equal(faces.pictures[1], picture(2))
    assert faces.soft[0, LABELS.index("happy")] == pytest.approx(0.7)


def test_a_training_picture_that_is_also_a_test_picture_is_not_trained_on(tmp_path: Path) -> None:
    as_published(tmp_path, pixels=False)
    shutil.copy(tmp_path / "FER2013Valid/fer0000003.png", tmp_path / "FER2013Train/fer0000000.png")
    (faces,) = find_faces(tmp_path)
    assert faces.names == ("fer0000002", "fer0000003")


def test_a_plain_folder_gives_labels_persons_and_pictures_of_any_size(tmp_path: Path) -> None:
    for label, name, side in (
        ("happy", "anna_1.png", 90),
        ("sad", "ben_x_2.jpg", 64),
        ("sad", "anna_3.png", 30),
    ):
        (tmp_path / "faces" / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "faces" / label / name), picture(side, side))
    (faces,) = find_faces(tmp_path)
    assert faces.names == ("happy/anna_1.png", "sad/anna_3.png", "sad/ben_x_2.jpg")
    assert faces.groups == ("anna", "anna", "ben")
    assert [LABELS[i] for i in faces.label] == ["happy", "sad", "sad"]
    assert faces.pictures.shape == (3, CROP_SIZE, CROP_SIZE)


def _cut_short(root: Path) -> None:
    path = ferplus(root / corpora_faces.FERPLUS_FILE)
    path.write_bytes(path.read_bytes()[:-400])


def _no_columns(root: Path) -> None:
    (root / "fer2013new.csv").write_text("Usage,Image name\nTraining,a.png\n")


def _no_number(root: Path) -> None:
    as_published(root, pixels=True)
    table = root / "fer2013new.csv"
    table.write_text(table.read_text().replace(",7,", ",many,", 1))


def _other_length(root: Path) -> None:
    as_published(root, pixels=True)
    (root / "fer2013.csv").write_text("emotion,pixels,Usage\n3,0 0,Training\n")


def _no_picture(root: Path) -> None:
    as_published(root, pixels=False)
    (root / "FER2013Train/fer0000002.png").unlink()


def _no_png(root: Path) -> None:
    as_published(root, pixels=False)
    (root / "FER2013Train/fer0000002.png").write_bytes(b"GIF8")


def _nobody(root: Path) -> None:
    (root / "faces/happy").mkdir(parents=True)
    cv2.imwrite(str(root / "faces/happy/smile.png"), picture(1))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda root: None, "holds no corpus of faces; looked for faces/fer2013plus.npz"),
        (_cut_short, "damaged or not the FER. file"),
        (_no_columns, "no column neutral, happiness"),
        (_no_number, "row 2 of .* has 'many' where a number of votes belongs"),
        (_other_length, "has 1 pictures, fer2013new.csv votes for 5"),
        (_no_picture, "cannot read the picture .*fer0000002.png"),
        (_no_png, "fer0000002.png is no picture"),
        (_nobody, "named for its person first, such as 'anna_smile.png'"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, harm: Callable[[Path], object], told: str
) -> None:
    harm(tmp_path)
    with pytest.raises(CorpusError, match=told):
        find_faces(tmp_path)


def test_no_group_and_no_name_lies_on_two_sides_and_the_sides_stay(tmp_path: Path) -> None:
    ferplus(tmp_path / corpora_faces.FERPLUS_FILE, count=200, tested=30)
    frozen = tmp_path / "splits.json"
    first, again = (load_split(find_faces(tmp_path), frozen) for _ in range(2))
    assert first.digest == again.digest
    parts = (first.train, first.calibrate, first.test)
    assert sum(map(len, parts)) == 200
    assert len(first.test) == 30
    assert 5 < len(first.calibrate) < 35
    groups = [set(part.groups) for part in parts]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_persons_of_a_plain_folder_stay_whole(tmp_path: Path) -> None:
    for person in range(60):
        for label in LABELS[:2]:
            folder = tmp_path / label
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"p{person}_1.png"), picture(person, 64))
    faces = load_split([read_plain(tmp_path)], tmp_path / "splits.json")
    persons = [set(part.groups) for part in (faces.train, faces.calibrate, faces.test)]
    assert all(persons)
    assert sum(map(len, persons)) == 60
    assert len(faces.train) == 2 * len(persons[0])


def test_changed_data_no_longer_fits_the_frozen_sides(tmp_path: Path) -> None:
    ferplus(tmp_path / corpora_faces.FERPLUS_FILE)
    frozen = tmp_path / "splits.json"
    load_split(find_faces(tmp_path), frozen)
    ferplus(tmp_path / corpora_faces.FERPLUS_FILE, leak=3)
    with pytest.raises(EngineFileError, match="are not those frozen"):
        load_split(find_faces(tmp_path), frozen)


def test_a_group_on_two_sides_is_refused(tmp_path: Path) -> None:
    members = [splits.Member("a", "anna", "train"), splits.Member("b", "anna", "test")]
    with pytest.raises(ValueError, match="'anna' lies on two sides"):
        splits.freeze(tmp_path / "splits.json", "x", members)
    assert not (tmp_path / "splits.json").exists()


def test_a_side_depends_on_the_group_alone_and_shares_hold() -> None:
    drawn = [splits.side_of(f"speaker {i}", calibrate=0.2, test=0.1) for i in range(4000)]
    assert drawn.count("calibrate") / 4000 == pytest.approx(0.2, abs=0.02)
    assert drawn.count("test") / 4000 == pytest.approx(0.1, abs=0.02)
    assert splits.side_of("speaker 1", calibrate=0.2, test=0.1) == drawn[1]
