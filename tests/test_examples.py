"""Every example runs as its own text says, beside an installed liveaffect, and does what it is for."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import pytest

import liveaffect
from liveaffect.realtime.sinks.files import line
from liveaffect.realtime.testing.media import FILM_FPS, FILM_SECONDS, write_media

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTED = liveaffect.Settings(engine="scripted")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("media"))


def run(name: str, *arguments: object) -> str:
    """What an example prints; a traceback fails the test."""
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_example_is_tried_here_and_listed_in_their_readme() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(re.findall(r"run\(\"(\w+\.py)\"", Path(__file__).read_text("utf-8")))
    assert names == set(re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text("utf-8"), re.M))


def test_a_file_becomes_a_table_with_a_row_for_every_cue(media: Path, tmp_path: Path) -> None:
    run("file_to_csv.py", media / "talk.mp4", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    times = [float(row["seconds"]) for row in rows if row["person"] == "1"]
    assert times == [k / 10 for k in range(10 * FILM_SECONDS + 1)]
    assert all(abs(sum(float(row[label]) for label in liveaffect.LABELS) - 1) < 0.005 for row in rows)


def test_the_camera_example_prints_a_line_for_a_person(media: Path) -> None:
    assert re.search(r"^ +\d\.\d s  person 1: \w+", run("webcam_to_print.py", media / "talk.mp4", "none"))


def test_own_pictures_are_drawn_on_and_counted(media: Path, tmp_path: Path) -> None:
    said = run("own_frames.py", media / "talk.mp4", tmp_path / "out.mp4")
    assert sum(map(int, re.findall(r"\d+", said))) >= 10 * FILM_SECONDS - 2
    with av.open(str(tmp_path / "out.mp4")) as drawn, av.open(str(media / "talk.mp4")) as plain:
        pictures = [[f.to_ndarray(format="rgb24") for f in film.decode(video=0)] for film in (drawn, plain)]
    assert len(pictures[0]) == len(pictures[1]) == FILM_FPS * FILM_SECONDS
    assert (abs(pictures[0][-1].astype(int) - pictures[1][-1]) > 60).mean() > 0.01


def test_a_follower_sees_the_lines_that_come_while_it_looks(media: Path, tmp_path: Path) -> None:
    path = tmp_path / "cues.jsonl"
    lines = [line(cue) for cue in liveaffect.analyze(media / "talk.mp4", settings=SCRIPTED)]
    lines = [re.sub(r'"label":"[^"]+"', '"label":"happy"', text) for text in lines]
    path.write_text(lines[0])
    follower = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "follow_cues.py"), str(path), "1.0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    with follower, path.open("a", encoding="utf-8") as file:
        assert "person 1: happy" in follower.stdout.readline()
        for text in lines[1:]:
            file.write(text[:100])
            file.flush()
            file.write(text[100:])
            file.flush()
        assert len(follower.stdout.readlines()) == len(lines) - 1
    assert follower.returncode == 0


def test_a_follower_of_a_file_at_rest_prints_it_and_ends(tmp_path: Path) -> None:
    (tmp_path / "cues.jsonl").write_text('{"t":0.1,"track":4,"label":"sad"}\n{"t":0.2,"track":4,"label":')
    assert run("follow_cues.py", tmp_path / "cues.jsonl", 0.3) == "    0.1 s  person 4: sad\n"


def test_an_output_of_ones_own_keeps_a_drawn_picture(media: Path, tmp_path: Path) -> None:
    assert re.match(r"at most \d+% happy", run("own_sink.py", media / "talk.mp4", tmp_path / "out.png"))
    kept = cv2.imread(str(tmp_path / "out.png"))
    assert kept is not None
    assert kept.shape == (240, 320, 3)
