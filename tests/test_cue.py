"""Every cue that can be made fits the schema in docs/cue.md, sums to one, and is always written alike."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.cue import NOT_SURE, Cue, Scores
from liveaffect.realtime.sinks.files import COLUMNS, line, row
from liveaffect.realtime.testing.scenes import cue

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "cue.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


EXAMPLE, SCHEMA = (json.loads(block) for block in blocks("json"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def normed(values: list[float]) -> Scores:
    total = sum(values)
    return tuple(v / total for v in values)


scores = st.lists(st.floats(1e-9, 1.0), min_size=7, max_size=7).map(normed)
perhaps_scores = st.none() | scores
shares = st.floats(0.0, 1.0)
weights = st.sampled_from([(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.7, 0.3, 0.0), (1 / 3, 1 / 3, 1 / 3)])
ages = st.none() | st.integers(0, 10**6)
cues = st.builds(
    Cue,
    t_ns=st.integers(0, 10**15),
    source=st.text(min_size=1, max_size=12),
    frame=st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
    track=st.none() | st.integers(0, 10**9),
    box=st.none()
    | st.tuples(st.integers(-999, 9999), st.integers(-999, 9999), st.integers(0, 9999), st.integers(0, 9999)),
    speaking=st.booleans(),
    face=perhaps_scores,
    voice=perhaps_scores,
    words=perhaps_scores,
    raw=scores,
    fused=scores,
    weights=weights,
    label=st.sampled_from([*LABELS, NOT_SURE]),
    confidence=shares,
    reason=st.none() | st.text(max_size=30),
    age_ms=st.tuples(ages, ages),
    skipped=st.integers(0, 10**6),
    model=st.text(min_size=1, max_size=8),
    epoch_ns=st.none() | st.integers(0, 2**63),
)


@given(cues)
@settings(max_examples=150)
def test_every_cue_fits_the_schema_of_the_document(made: Cue) -> None:
    VALIDATOR.validate(json.loads(line(made)))


@given(cues)
@settings(max_examples=100)
def test_every_distribution_has_seven_entries_in_order_and_sums_to_one_within_a_millionth(made: Cue) -> None:
    written = json.loads(line(made))
    for name in ("face", "voice", "words", "raw", "fused"):
        if written[name] is not None:
            assert tuple(written[name]) == LABELS
            assert abs(sum(written[name].values()) - 1) <= 1e-6


@given(cues)
@settings(max_examples=60)
def test_a_cue_is_one_line_of_plain_ascii_and_always_the_same_bytes(made: Cue) -> None:
    written = line(made)
    assert written.isascii()
    assert written.count("\n") == 1
    assert written.endswith("\n")
    assert written == line(made)


def test_the_example_of_the_document_fits_its_own_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(EXAMPLE)


def test_the_document_explains_every_key_and_no_other() -> None:
    table = DOCUMENT.split("## Keys")[1].split("## Schema")[0]
    explained = [
        key
        for cell in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", cell)
    ]
    assert explained == list(SCHEMA["properties"])


def spoil(change: dict[str, Any]) -> dict[str, Any]:
    return {**EXAMPLE, **change}


@pytest.mark.parametrize(
    "spoilt",
    [
        spoil({"surprise": 1}),
        {key: value for key, value in EXAMPLE.items() if key != "reason"},
        spoil({"face": {"happy": 1.0}}),
        spoil({"fused": {**EXAMPLE["fused"], "bored": 0.0}}),
        spoil({"fused": None}),
        spoil({"label": "bored"}),
        spoil({"box": [1, 2, 3]}),
        spoil({"box": [1, 2, 3, 4, 5]}),
        spoil({"confidence": 1.1}),
        spoil({"v": 2}),
        spoil({"strength": 1.5}),
        spoil({"transcript": 3}),
    ],
)
def test_the_schema_refuses_what_is_not_a_cue(spoilt: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(spoilt)


@pytest.mark.parametrize("reserved", [{}, {"transcript": None}, {"transcript": "hello"}])
def test_a_reserved_key_may_be_absent_null_or_what_it_will_be(reserved: dict[str, Any]) -> None:
    """So that whoever checks cues against today's schema can read those of a later version."""
    VALIDATOR.validate(spoil(reserved))


def test_the_document_lists_the_columns_of_the_table_in_their_order() -> None:
    (listed,) = blocks("text")
    assert tuple(listed.split()) == COLUMNS


@given(cues)
@settings(max_examples=60)
def test_a_row_has_a_value_for_every_column_and_agrees_with_the_json(made: Cue) -> None:
    values = dict(zip(COLUMNS, row(made), strict=True))
    written = made.to_json()
    assert values["t"] == written["t"]
    assert values["fused_surprised"] == written["fused"]["surprised"]
    assert values["voice_neutral"] == (None if made.voice is None else written["voice"]["neutral"])
    assert values["weight_voice"] == written["weights"]["voice"]
    assert values["box_height"] == (None if made.box is None else made.box[3])
    assert values["epoch_ns"] == made.epoch_ns


def test_a_number_that_is_not_one_is_refused_instead_of_written() -> None:
    with pytest.raises(ValueError, match="NaN"):
        line(cue("happy", confidence=float("nan")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        line(replace(cue("happy"), weights=(float("nan"), 0.0, 0.0)))
