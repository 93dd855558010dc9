"""The calibration report shows what was measured, says what was not, and needs nothing but itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from liveaffect import cli
from liveaffect.calibration import report
from liveaffect.calibration.int8_tables import read_int8
from liveaffect.calibration.report import ListedNetwork, OffsetOfPair, ReportInputs, report_page, short_layer

INT8 = Path(__file__).resolve().parent.parent / "docs" / "results" / "int8"
SUMMARY = "answers,side,level,state,temperature,items,accuracy,error,perfect,excess"
TABLES = {
    "diagram.csv": [
        "answers,side,level,state,cues,confidence,accuracy",
        *(
            f"{answers},{side},cues,{state},50,{k / 5},{k / 5 * share}"
            for answers in ("face reading", "face+voice")
            for side in ("calibrate", "test")
            for state, share in (("before", 0.8), ("after", 1.0))
            for k in range(1, 6)
        ),
    ],
    "summary.csv": [
        SUMMARY,
        *(
            f"{answers},{side},cues,{state},{temperature},250,0.8,{error},0.03,{error - 0.03}"
            for answers in ("face reading", "face+voice")
            for side in ("calibrate", "test")
            for state, temperature, error in (("before", 1, 0.09), ("after", 1.7, 0.04))
        ),
    ],
    "risk.csv": [
        "answers,side,coverage,threshold,risk",
        *(
            f"{a},{side},{k / 10},0.5,{k / 100}"
            for a in ("face reading", "face+voice")
            for side in ("test", "pooled")
            for k in range(1, 11)
        ),
    ],
    "promises.csv": [
        "answers,side,threshold,answered,promised_risk,risk,risk_low,risk_high",
        "face reading,test,0.5123,0.81,0.081,0.09,0.05,0.13",
        "face+voice,test,0.4,0.80,0.08,0.07,0.05,0.12",
    ],
    "quality_curves.csv": [
        "evidence,spoilt_by,level,quality,weight",
        *(f"face,blur px,{k},{1 - k / 4},{0.6 - k / 10}" for k in range(4)),
    ],
}


def everything(folder: Path) -> ReportInputs:
    (folder / "confidence").mkdir(parents=True)
    for name, rows in TABLES.items():
        (folder / "confidence" / name).write_text("\n".join(rows) + "\n")
    (folder / "int8").mkdir()
    for ending in ("methods.csv", "layers.csv"):
        for kind in ("face", "voice"):
            shutil.copy(INT8 / f"face_{ending}", folder / "int8" / f"{kind}_{ending}")
    pairs = [OffsetOfPair("Camera <1> with Mic", 120.0, "mouth"), OffsetOfPair("B with C", -40.0, "clap")]
    model = read_int8(folder / "int8", "face").model.split()[-1]
    return ReportInputs(folder, [ListedNetwork("face-live", f"face.onnx {model}")], pairs)


@pytest.fixture
def sources(tmp_path: Path) -> ReportInputs:
    return everything(tmp_path / "results")


def body_of(page: str) -> ElementTree.Element:
    """Every picture and table has to be well-formed: the page's body is read as XML."""
    return ElementTree.fromstring(page[page.index("<main>") : page.index("</main>") + len("</main>")])


def test_every_part_is_there_with_its_figures(sources: ReportInputs) -> None:
    page = report_page(sources)
    main = body_of(page)
    assert [head.text for head in main.iter("h2")] == [
        "Is a confidence a frequency?",
        "What does it cost to answer more often?",
        "Temperatures",
        "INT8, face",
        "INT8, voice",
        "Sound and picture",
        "Bad evidence weighs less",
    ]
    titles = [svg.findtext("title") for svg in main.iter("svg") if svg.get("role") == "img"]
    # Two sorts of answers, each with two sides and its risk; temperatures; INT8; offsets; one curve.
    assert len(titles) == 2 * (2 + 1) + 1 + 2 * 2 + 1 + 1
    text = "".join(main.itertext())
    for told in (
        "excess +0.060 before, +0.010 after",
        "promised 8.1% wrong, found 9.0% of 81%",
        "1.700",
        "0.5123",
    ):
        assert told in text
    for told in ("back to fp32", "+120 ms", "-40 ms", "Camera <1> with Mic", "face-live"):
        assert told in text
    assert 'class="missing"' not in page


def test_the_page_needs_nothing_but_itself(sources: ReportInputs) -> None:
    page = report_page(sources)
    assert not re.search(r"<script|https?:|\bsrc=|@import|url\(|//", page.replace("<!doctype html>", ""))
    assert "prefers-color-scheme:dark" in page


def test_what_is_missing_is_a_sentence_with_the_command_that_makes_it(tmp_path: Path) -> None:
    page = report_page(ReportInputs(tmp_path, [], []))
    told = [p.text or "" for p in body_of(page).iter("p") if p.get("class") == "missing"]
    assert len(told) == 7
    assert all(
        line.startswith("Nothing was measured yet. This is made by: liveaffect calibrate") for line in told
    )
    for command in (
        "confidence --data",
        "int8 --data DIR --out docs/results/int8 --kind voice",
        "calibrate av",
    ):
        assert any(command in line for line in told)
    assert list(body_of(page).iter("svg")) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("confidence/risk.csv", "answers,side\nface,test\n"),
        ("confidence/risk.csv", ""),
        ("confidence/diagram.csv", "\n".join(TABLES["diagram.csv"]).replace("0.2", "zero")),
        ("int8/face_methods.csv", "a,b\n1,2\n"),
        ("int8/voice_layers.csv", "name,work\nx,y\n"),
    ],
)
def test_a_damaged_table_is_named_and_the_other_parts_are_shown(
    sources: ReportInputs, name: str, content: str
) -> None:
    (sources.results / name).write_text(content)
    main = body_of(report_page(sources))
    told = [p.text or "" for p in main.iter("p") if p.get("class") == "missing"]
    assert len(told) == 1
    assert told[0].startswith("It cannot be shown: ")
    assert len(list(main.iter("figure"))) >= 6


def test_figures_of_weights_that_are_not_at_hand_say_so(sources: ReportInputs) -> None:
    network = ListedNetwork("face-live", "face.onnx 0123456789ab")
    others = ReportInputs(sources.results, [network], sources.pairs)
    told = [p.text or "" for p in body_of(report_page(others)).iter("p") if p.get("class") == "missing"]
    assert len(told) == 2
    assert all("which is not at hand. New ones are made by: liveaffect calibrate int8" in one for one in told)


def test_a_drawing_takes_its_colours_from_the_page_and_points_nowhere() -> None:
    rows = [report.Bar("a < b", 1.0, "1"), report.Bar("c", -0.25, "-0.25", True, 0.5)]
    picture = ElementTree.fromstring(report.bars("x & y", rows))
    assert picture.findtext("title") == "x & y"
    assert {"a < b", "c", "1", "-0.25"} <= {(text.text or "").strip() for text in picture.iter("text")}
    told = report.bars("x & y", rows)
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", told)) == set()
    assert all(f"var(--{name})" in told for name in ("first", "quiet", "ink"))


def test_the_same_figures_are_drawn_alike_and_a_line_reaches_as_far_as_its_points() -> None:
    points = {"after": [(0.0, 0.0), (1.0, 1.0)]}
    assert report.reliability("x", points) == report.reliability("x", points)
    lines = [
        [float(n) for n in re.findall(r"[\d.]+", path.get("d", ""))]
        for path in ElementTree.fromstring(report.reliability("x", points)).iter("path")
        if "var(--first)" in path.get("style", "") and "fill: none" in path.get("style", "")
    ]
    ideal = [
        [float(n) for n in re.findall(r"[\d.]+", path.get("d", ""))]
        for path in ElementTree.fromstring(report.reliability("x", points)).iter("path")
        if "stroke-dasharray" in path.get("style", "")
    ]
    assert lines == ideal  # from corner to corner, as the diagonal does


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/cnn/cnn.1/folded/Conv", "cnn.1"),
        ("/trunk/levels/levels.0/layers/layers.1/feed/feed.3/MatMul", "trunk/levels.0/layers.1/feed.3"),
        ("Conv_7", "Conv_7"),
    ],
)
def test_names_of_layers_say_nothing_twice(name: str, told: str) -> None:
    assert short_layer(name) == told


def test_the_command_writes_the_page_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    results = everything(tmp_path / "results").results
    out, weights = tmp_path / "told" / "report.html", tmp_path / "weights"
    weights.mkdir()
    (weights / "face.json").write_text("{")
    command = ["calibrate", "report", "--out", str(out), "--results", str(results), "--weights", str(weights)]
    assert cli.main(command) == 0
    assert "left out: the manifest" in capsys.readouterr().err
    text = "".join(body_of(out.read_text("utf-8")).itertext())
    assert "No networks were found." in text
    assert "liveaffect calibrate av" in text
    pairs = [
        {"camera": "C", "microphone": "M", "offset_ns": 80_000_000, "method": "mouth", "confidence": 0.9}
    ]
    folder = tmp_path / "config" / "liveaffect"
    folder.mkdir(parents=True)
    (folder / "av-offsets.json").write_text(json.dumps({"format": 1, "pairs": pairs}))
    assert cli.main(command) == 0
    assert "C with M+80 ms" in "".join(body_of(out.read_text("utf-8")).itertext()).replace("\n", "")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("look", "page_is"), [("light", 251), ("dark", 22)])
def test_a_browser_draws_every_figure_without_a_complaint(
    sources: ReportInputs, tmp_path: Path, look: str, page_is: int
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    page.write_text(report_page(sources), "utf-8")
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1080,4200"]
    flags += ["--force-dark-mode"] if look == "dark" else []
    ran = subprocess.run(
        [browser, *flags, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert picture.exists(), ran.stderr
    assert "CONSOLE" not in ran.stderr, ran.stderr
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert abs(int(drawn[4, 4, 1]) - page_is) <= 2
    # Blue is only used for marks: every part of the page that holds a figure has some.
    blue = drawn[..., 0].astype(int) - drawn[..., 2] > 60
    rows = np.flatnonzero(blue.any(axis=1))
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 60) + 1)
    assert len(groups) >= 7


def test_a_report_of_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from liveaffect import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("liveaffect.calibration.report.load_pairs", list)
    assert cli.main(["calibrate", "report"]) == 1
    assert "there is nothing to report" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
