"""A published system from film to table to live run: a small IEMOCAP, and an ALBERT made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not on this machine")

from torch import nn

from liveaffect.cli import main
from liveaffect.engines import load
from liveaffect.engines.manifest import read
from liveaffect.engines.model.paper import PaperNetwork, PaperPreset, silence_unlearnt
from liveaffect.engines.protocol import EngineFileError
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.scripted_engine import ScriptedFace, ScriptedVoice
from liveaffect.engines.training import train_paper as trainer
from liveaffect.engines.training.corpora_films import AFEW_LABELS, FilmTake
from liveaffect.engines.training.cutting import Cut
from liveaffect.engines.training.evaluate_paper import evaluate_paper, read_measured
from liveaffect.engines.training.loop import Schedule, optimiser_of
from liveaffect.engines.training.paper_task import PaperRecipe, PaperTask, Shower, system_answers
from liveaffect.engines.training.protocols import PROTOCOLS, protocols_of, thresholds_from
from liveaffect.engines.training.train_paper import PaperOptions, paper_preset, train_paper
from liveaffect.engines.word_emotions import load_judge, token_rows
from liveaffect.placing import cut_film
from liveaffect.realtime.estimate import Estimate, Opinion, SpokenEvidence
from liveaffect.realtime.expression import Pooled
from liveaffect.realtime.networks import Networks, fuse, spoken_opinion
from tests.test_papers import LAYOUTS, afew, iemocap, shots

__all__ = ["shots"]

SMALL_A = replace(
    trainer.SYSTEMS["fv2es"],
    published=PaperPreset("fv2es", "live", "nest", None, "late", order_free=True, whole_utterance=True),
)
"""The published way to look at time, to join and to learn, with networks that a test can train."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, shots: Path) -> Path:
    return iemocap(tmp_path_factory.mktemp("iemocap"), shots)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was cut once is not cut again by another test."""
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ALBERT with random weights, in the form in which the real one is published."""
    transformers = pytest.importorskip("transformers", reason="needs the extra papers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("albert")
    words = ["<pad>", "<unk>", "[CLS]", "[SEP]", "I", "am", "ang", "sad", "hap", "neu", "."]
    vocabulary = {word: at for at, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    config = transformers.AlbertConfig(
        vocab_size=len(words),
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    transformers.AlbertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def options(system: str, **given: object) -> PaperOptions:
    return replace(PaperOptions(system, "iemocap", smoke=True, threads=1), **given)  # type: ignore[arg-type]


def test_three_modalities_from_film_to_table_to_live(
    tmp_path: Path, corpus: Path, cache: Path, albert: Path, shots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    folder = train_paper(
        corpus, tmp_path, options("fv2es", albert=albert), cut_film, cache, report=told.append
    )
    assert folder is not None
    assert any(line.startswith("cut ") and "0 damaged" in line for line in told)
    (result,) = folder.rglob("result.json")
    assert json.loads(result.read_text())["sides"][2] > 0
    page = evaluate_paper(tmp_path, tmp_path / "page")
    assert "| fv2es, mended, a trial, here |" in page
    assert "| all negative |" in page
    assert "| majority |" in page
    assert (tmp_path / "page" / "papers.md").read_text() == page
    weights = result.parent / "weights"
    assert {read(weights / f"{kind}.json").preset for kind in ("face", "voice", "fusion")} == {
        "live",
        "nest",
        "late-masked",
    }
    said = load_judge(weights)("I am sad .")
    assert said is not None
    assert len(said) == 7
    assert np.argmin(said) in [LABELS.index(name) for name in ("fearful", "disgusted", "surprised")]
    assert words_weigh(weights, said)
    cues = tmp_path / "cues.jsonl"
    flags = ["--weights", str(weights), "--cues", str(cues)]
    assert main(["analyze", str(shots / "happy.mp4"), *flags]) == 0
    rows = [json.loads(line) for line in cues.read_text().splitlines()]
    live = ["live", "--camera", str(shots / "happy.mp4"), "--mic", "none", "--seconds", "3"]
    assert main([*live, "--sink", str(tmp_path / "live.jsonl"), "--weights", str(weights)]) == 0
    said_live = [json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines()]
    assert any(row["face"] is not None for row in said_live)
    rows += said_live
    scores = [row["face"] for row in rows if row["face"] is not None]
    assert scores
    for one in scores:
        assert max(one[label] for label in ("fearful", "disgusted", "surprised")) < 0.05, (
            "never learnt, yet said"
        )


def words_weigh(weights: Path, said: tuple[float, ...]) -> bool:
    """Whether words count live by the weight that the exported fusion learnt, and count for nothing later."""
    networks = Networks(ScriptedFace(), ScriptedVoice(), load.load("fusion", choice="onnx", weights=weights))
    assert networks.weigh_words
    pooled = Pooled(np.zeros(64, np.float32), np.zeros(7, np.float32))
    face = Opinion(0, pooled, pooled)
    heard = SpokenEvidence(0, np.asarray(said))
    now, later = (
        Estimate(0, 1, face, words=spoken_opinion(heard, at_ns, weighed=networks.weigh_words))
        for at_ns in (0, 10**10)
    )
    spoken, silent = fuse([now, later], networks.fuse)
    networks.close()
    assert silent.weights == pytest.approx((1.0, 0.0, 0.0))
    return spoken.weights[2] > 0.0 and not np.allclose(spoken.logits, silent.logits)


@pytest.mark.parametrize("system", ["fcn", "gfbp", "agfbp", "amfbp"])
def test_every_system_of_sound_and_face_leaves_answers_and_a_live_network(
    tmp_path: Path, corpus: Path, cache: Path, system: str
) -> None:
    folder = train_paper(corpus, tmp_path, options(system), cut_film, cache, report=lambda line: None)
    assert folder is not None
    (one,) = read_measured(tmp_path)
    assert one.judged[0]["items"] == one.results[0]["sides"][2]
    (weights,) = folder.rglob("weights")
    assert read(weights / "voice.json").preset == "amfbp"
    assert read(weights / "fusion.json").preset == ("late-masked" if system == "fcn" else system)
    for kind in ("face", "voice", "fusion"):
        load.load(kind, choice="onnx", weights=weights).close()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_goes_from_film_to_table_and_every_corpus_by_every_system(
    tmp_path: Path, shots: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SMOKE_UTTERANCES", 4)
    protocol = PROTOCOLS[name]
    data = LAYOUTS[protocol.corpus][0](tmp_path / "data", shots)
    # A corpus meets every system once, by its first protocol.
    systems = list(trainer.SYSTEMS) if protocols_of(protocol.corpus)[0] is protocol else ["agfbp"]
    trials = [options(system, corpus=protocol.corpus, protocol=name) for system in systems]
    for asked in trials:
        folder = train_paper(
            data, tmp_path / "out", asked, cut_film, tmp_path / "cache", report=lambda line: None
        )
        assert folder is not None
        assert len(list(folder.rglob("weights/*.json"))) >= 3, "not all that live use needs was exported"
    page = evaluate_paper(tmp_path / "out")
    for who in (*(f"{asked.variant}, here" for asked in trials), "all negative"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {who} |")]
        figures = [cell.strip() for cell in row.split("|")[2:9]]
        assert all(figures[3 if protocol.several else 0 : 6]), f"an empty cell in {row}"


def test_a_trial_takes_few_of_each_side_and_every_class_however_many_speakers_there_are(
    tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SMOKE_UTTERANCES", 7)
    cut: list[FilmTake] = []

    def counted(takes: Sequence[FilmTake], hz: float) -> Iterator[tuple[FilmTake, Cut | str]]:
        cut.extend(takes)
        yield from cut_film(takes, hz)

    given = options("fcn", corpus="afew")
    train_paper(afew(tmp_path / "afew", shots), tmp_path, given, counted, tmp_path, report=lambda line: None)
    (one,) = read_measured(tmp_path)
    assert len(cut) == sum(one.results[0]["sides"]) <= 21
    learnt = [take.labels for take in cut if take.part == "train"]
    assert {label for labels in learnt for label in labels} == set(AFEW_LABELS)


def test_the_published_form_learns_as_published_and_says_why_it_cannot_run_live(
    tmp_path: Path, corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trainer.SYSTEMS, "fv2es", SMALL_A)
    set_on: list[tuple[int, int]] = []

    def recorded(truth: NDArray[np.bool_], shares: NDArray[np.floating]) -> NDArray[np.float64]:
        set_on.append((len(truth), len(shares)))
        return thresholds_from(truth, shares)

    monkeypatch.setattr(trainer, "thresholds_from", recorded)
    given = options("fv2es", form="published", protocol="iemocap-6-published")
    folder = train_paper(corpus, tmp_path, given, cut_film, cache, report=lambda line: None)
    assert folder is not None
    (one,) = read_measured(tmp_path)
    assert one.results[0]["live"].startswith("none: its transformer")
    _, waiting, tested = one.results[0]["sides"]
    assert waiting != tested
    assert set_on == [(waiting, waiting)], "thresholds were not set on validation"
    page = evaluate_paper(tmp_path)
    assert "which SHARES SPEAKERS AND DIALOGUES" in page
    assert "83.3" in next(line for line in page.splitlines() if line.startswith("| all negative"))


def test_what_stands_is_not_done_again_and_what_was_cut_short_goes_on(
    tmp_path: Path, corpus: Path, cache: Path
) -> None:
    one = options("fcn", epochs=2)
    short = train_paper(
        corpus, tmp_path, replace(one, limit_s=1e-9), cut_film, cache, report=lambda line: None
    )
    assert short is None
    assert train_paper(corpus, tmp_path, one, cut_film, cache, report=lambda line: None) is not None
    told: list[str] = []
    train_paper(corpus, tmp_path, one, cut_film, cache, report=told.append)
    assert not any("epoch" in line for line in told)
    train_paper(corpus, tmp_path, replace(one, epochs=3), cut_film, cache, report=told.append)
    assert any("going on behind epoch 2 of 2, towards 3" in line for line in told)
    assert read_measured(tmp_path)[0].results[0]["epochs"] == 3


def test_a_page_without_results_holds_the_papers_figures_and_nothing_else(tmp_path: Path) -> None:
    page = evaluate_paper(tmp_path)
    rows = [line for line in page.splitlines() if ", here |" in line]
    assert rows
    assert all(not line.replace("|", " ").replace(", here", "").split()[1:] for line in rows)
    assert "| fv2es, reported |  |  |  | 84.77 |  | 58.57 | 87.47 |" in page
    assert "| amfbp, reported | 63.09 |" in page


def takes_of(tmp_path: Path, count: int = 4) -> tuple[list[FilmTake], dict[str, Path]]:
    """Utterances of unlike length, the second without a face, and where they lie."""
    rng = np.random.default_rng(0)
    takes, files = [], {}
    for at in range(count):
        name = f"u{at}"
        faces = 0 if at == 1 else 3 + at
        crops = rng.integers(0, 255, (faces, 64, 64, 3)).astype(np.uint8)
        samples = (0.1 * rng.standard_normal(16_000 + 4_000 * at)).astype(np.float16)
        files[name] = tmp_path / f"{name}.npz"
        np.savez(files[name], crops=crops, times_s=np.arange(faces, dtype=np.float32) / 5, samples=samples)
        takes.append(
            FilmTake("iemocap", name, f"s{at}", (("ang", "hap", "neu", "sad")[at % 4],), words="I am sad .")
        )
    return takes, files


def test_an_answer_does_not_depend_on_who_else_is_in_the_batch(tmp_path: Path, albert: Path) -> None:
    takes, files = takes_of(tmp_path)
    preset = PaperPreset("all", "live", "nest", albert, "amfbp")
    network = PaperNetwork(preset).eval()
    shower = Shower(takes, files, network, token_rows(albert / "tokenizer.json"))
    slots = range(len(LABELS))
    together = system_answers(network, shower, range(4), slots, 4, "cpu")
    alone = system_answers(network, shower, range(4), slots, 1, "cpu")
    np.testing.assert_allclose(together, alone, atol=2e-4)
    assert shower.batch([1]).mask.tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("form", ["mended", "published"])
@pytest.mark.parametrize("system", list(trainer.SYSTEMS))
def test_every_parameter_that_the_optimiser_holds_learns(
    tmp_path: Path, albert: Path, monkeypatch: pytest.MonkeyPatch, system: str, form: str
) -> None:
    monkeypatch.setitem(trainer.SYSTEMS, "fv2es", SMALL_A)
    takes, files = takes_of(tmp_path)
    given = options(system, form=form, albert=albert if system == "fv2es" else None)
    network = PaperNetwork(paper_preset(given)).train()
    tokens = token_rows(albert / "tokenizer.json")
    recipe = PaperRecipe(batch=4, binary=form == "published", beside=0.0 if system == "fv2es" else 0.3)
    shower = Shower(takes, files, network, tokens)
    task = PaperTask("x", shower, range(4), PROTOCOLS["iemocap-4-session"], replace(recipe, mended=False))
    (batch,) = task.batches(0, np.random.default_rng(0))
    torch.autograd.backward(task.loss(network, batch))
    still = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not still
    shares = {group["share"] for group in optimiser_of(network, Schedule(1)).param_groups}
    assert shares == ({1.0, 0.1} if system == "fv2es" else {1.0})


def test_the_published_encoder_knows_no_order_and_the_mended_one_forgets(tmp_path: Path) -> None:
    takes, files = takes_of(tmp_path, 1)
    for order_free in (True, False):
        network = PaperNetwork(PaperPreset("x", face="live", order_free=order_free)).eval()
        batch = Shower(takes, files, network, None).batch([0])
        turned = batch._replace(crops=batch.crops.flip(0), crop_age_s=batch.crop_age_s * 20)
        plain = batch._replace(crop_age_s=batch.crop_age_s * 20)
        with torch.inference_mode():
            one, other = network(plain).logits, network(turned).logits
        assert torch.allclose(one, other, atol=1e-5) == order_free


def test_labels_never_learnt_are_never_said_and_neutral_is_where_nothing_is() -> None:
    network = PaperNetwork(PaperPreset("x", face="live"))
    assert network.face is not None
    silence_unlearnt(network.face, [1, 2], neutral_is_none=True)
    head = network.face.to_logits
    assert isinstance(head, nn.Linear)
    assert head.bias.tolist()[0] == 0.0
    assert head.bias.tolist()[3:] == [-10.0] * 4
    assert not head.weight[[0, 3, 4, 5, 6]].any()


def test_a_folder_without_albert_is_named_with_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"holds no ALBERT: wanted are config.json, tokenizer.json"):
        PaperNetwork(PaperPreset("x", words=tmp_path))


def places(corpus: Path, cache: Path, out: Path, one: str) -> list[str]:
    """Flags of a small training, with one of something."""
    return ["--data", str(corpus), "--out", str(out), "--cache", str(cache), "--smoke", one, "1"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["paper"], "train paper fv2es|fcn"),
        (["paper", "fcn"], "--corpus NAME"),
        (["paper", "fcn", "--corpus", "iemocap", "--only", "face"], "fcn has none of face"),
        (["paper", "fcn", "--corpus", "iemocap", "--protocol", "afew-7"], "has no protocol 'afew-7'"),
        (["paper", "fcn", "--corpus", "iemocap", "--plain"], "has no such part to leave out"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    corpus: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    where = places(corpus, cache, tmp_path, "--workers")
    assert main(["train", *flags, *where]) != 0
    assert said in capsys.readouterr().err


def test_the_command_trains_and_prints_the_page(
    corpus: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = places(corpus, cache, tmp_path, "--threads")
    assert main(["train", "paper", "gfbp", "--corpus", "iemocap", "--workers", "1", *where]) == 0
    assert main(["evaluate", "paper", "--results", str(tmp_path)]) == 0
    assert "| gfbp, mended, a trial, here |" in capsys.readouterr().out
