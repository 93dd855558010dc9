"""Trains the network that judges what was said, on comments with labels, and writes it for the product.

    uv run python -m liveaffect.engines.training.train_words goemotions.tar.gz --out engines/weights

Several networks are trained one after the other, and the one that is kept learns from labels and from the
mean of what they say, which is worth more than any of them. A folder with MiniLM (`--teacher`) first teaches
the table what words mean: each whole word of its vocabulary is drawn to a projection of MiniLM's vector for
it, so words that no comment holds are not blank. A run looks at the test part once, at its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from liveaffect.engines.model.words import WIDTH, WordEmotions
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.word_emotions import PIECES, letters_of, table_rows, words_of

EKMAN = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
OURS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
BATCH, EPOCHS, RATE = 64, 4, 1.5e-3
RARE = 0.4
"""Labels count by their frequency to minus this power."""
FINE_SHARE = 0.3
"""How much the 28 fine labels count beside the seven."""
TEACHERS, TEACHERS_SHARE = 3, 0.6
"""So many networks teach the one that is kept, and how much they count beside the labels."""
DROPPED = 0.1
TEACHER_EPOCHS = 12
FINE = 28


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Comments with their labels, several for some."""

    texts: list[str]
    labels: NDArray[np.float32]
    fine: NDArray[np.float32]

    @property
    def single(self) -> NDArray[np.bool_]:
        """Those with exactly one of the seven."""
        return np.asarray(self.labels.sum(1) == 1)


def read_comments(path: Path) -> dict[str, Part]:
    """The corpus as it is packed: `ekman/*.tsv` and `original/*.tsv`."""
    with tarfile.open(path) as archive:
        files = {
            m.name.removeprefix("./"): archive.extractfile(m) for m in archive.getmembers() if m.isfile()
        }
        lines = {name: file.read().decode("utf-8").splitlines() for name, file in files.items() if file}
    place = [LABELS.index(OURS[EKMAN.index(name.strip())]) for name in lines["ekman/labels.txt"]]
    return {
        part: _comments(lines[f"ekman/{part}.tsv"], lines[f"original/{part}.tsv"], place)
        for part in ("train", "dev", "test")
    }


def _comments(ekman: list[str], original: list[str], place: list[int]) -> Part:
    fine = {line.split("\t")[2]: line.split("\t")[1] for line in original}
    rows = [line.split("\t") for line in ekman]
    labels, fines = np.zeros((len(rows), len(LABELS)), np.float32), np.zeros((len(rows), FINE), np.float32)
    for at, (_, given, key) in enumerate(rows):
        labels[at, [place[int(one)] for one in given.split(",")]] = 1
        fines[at, [int(one) for one in fine[key].split(",")]] = 1
    return Part([row[0] for row in rows], labels, fines)


def padded(rows: list[NDArray[np.int64]]) -> torch.Tensor:
    """Sentences of one batch, as long as the longest."""
    out = np.zeros((len(rows), max(2, *(len(row) for row in rows)), PIECES), np.int64)
    for at, row in enumerate(rows):
        out[at, : len(row)] = row
    return torch.from_numpy(out)


def tensor_of(path: Path, name: str) -> NDArray[np.float32]:
    """One tensor of a safetensors file: the length of a heading in JSON, the heading, the bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length])[name]
    if told["dtype"] != "F32":
        raise ValueError(f"{name} in {path} is {told['dtype']}; float32 is read here")
    begin, end = (8 + length + at for at in told["data_offsets"])
    return np.frombuffer(content[begin:end], np.float32).reshape(told["shape"])


def teach_words(net: WordEmotions, folder: Path, texts: list[str]) -> None:
    """Draw the vectors of whole words to what MiniLM knows of them, projected to our width."""
    vocabulary = (folder / "vocab.txt").read_text("utf-8").splitlines()
    table = tensor_of(folder / "model.safetensors", "embeddings.word_embeddings.weight")
    whole = [at for at, word in enumerate(vocabulary) if word.isalpha() and word.isascii()]
    often = Counter(word for text in texts for word in words_of(text))
    weight = np.array([np.sqrt(often[vocabulary[at]]) + 0.3 for at in whole])
    known = table[whole] - np.average(table[whole], axis=0, weights=weight)
    axes = np.linalg.svd(known * np.sqrt(weight)[:, None], full_matrices=False)[2][:WIDTH]
    wanted = torch.tensor(known @ axes.T, dtype=torch.float32)
    wanted *= 0.25 / wanted.std()
    counts = torch.tensor(weight / weight.mean(), dtype=torch.float32).clamp(max=20)
    rows = np.zeros((len(whole), PIECES), np.int64)
    for at, place in enumerate(whole):
        pieces = letters_of(vocabulary[place])
        rows[at, : len(pieces)] = pieces
    inputs, steps = torch.from_numpy(rows), torch.optim.Adam(net.table.parameters(), lr=3e-3)
    for epoch in range(TEACHER_EPOCHS):
        steps.param_groups[0]["lr"] = 3e-3 * (1 - epoch / TEACHER_EPOCHS) + 1e-4
        for batch in torch.split(torch.randperm(len(whole)), 1024):
            loss = (((net.vectors(inputs[batch]) - wanted[batch]) ** 2).mean(1) * counts[batch]).mean()
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()


def learn(
    net: WordEmotions,
    parts: Mapping[str, Part],
    rng: random.Random,
    teachers: NDArray[np.float64] | None = None,
) -> WordEmotions:
    """Some epochs over the comments; the net is left as it was best on the development part.

    `teachers` are logits of the training comments that count beside the labels.
    """
    train, dev = parts["train"], parts["dev"]
    epochs = EPOCHS if teachers is None else EPOCHS + 2
    rows = [table_rows(text) for text in train.texts]
    target = torch.tensor(train.labels / train.labels.sum(1, keepdims=True))
    if teachers is not None:
        told = torch.softmax(torch.tensor(teachers, dtype=torch.float32), 1)
        target = (1 - TEACHERS_SHARE) * target + TEACHERS_SHARE * told
    fine = torch.tensor(train.fine / train.fine.sum(1, keepdims=True))
    rare = torch.tensor(train.labels / train.labels.sum(1, keepdims=True)).mean(0) ** -RARE
    rare = rare / (rare * target.mean(0)).sum()
    steps = torch.optim.Adam(net.parameters(), lr=RATE)
    total, done, best = epochs * (len(rows) // BATCH), 0, (-1.0, net.state_dict())
    for epoch in range(epochs):
        net.train()
        for batch in batches(rows, rng):
            steps.param_groups[0]["lr"] = RATE * min(1, (done + 1) / 100) * max(0.03, 1 - done / total)
            logits, finer = net(with_words_dropped(padded([rows[at] for at in batch])))
            counts = (target[batch] * rare).sum(1)
            loss = (F.cross_entropy(logits, target[batch], reduction="none") * counts).mean()
            loss = loss + FINE_SHARE * F.cross_entropy(finer, fine[batch])
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
            done += 1
        macro = scores(logits_of(net, dev), dev)["macro_f1"]
        sys.stdout.write(f"epoch {epoch}: development macro-F1 {macro:.4f}\n")
        if macro > best[0]:
            best = macro, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(best[1])
    return net


def batches(rows: list[NDArray[np.int64]], rng: random.Random) -> list[list[int]]:
    """Shuffled, with sentences of like length together."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    chunks = [
        sorted(order[at : at + 50 * BATCH], key=lambda k: len(rows[k]))
        for at in range(0, len(order), 50 * BATCH)
    ]
    found = [chunk[at : at + BATCH] for chunk in chunks for at in range(0, len(chunk), BATCH)]
    rng.shuffle(found)
    return found


def with_words_dropped(rows: torch.Tensor) -> torch.Tensor:
    """Some words become one that nobody knows, so that no answer hangs on a single one."""
    gone = (torch.rand(rows.shape[:2]) < DROPPED) & (rows[..., 0] > 0)
    rows = rows.masked_fill(gone.unsqueeze(-1), 0)
    rows[..., 0] = torch.where(gone, torch.ones_like(rows[..., 0]), rows[..., 0])
    return rows


def logits_of(net: WordEmotions, part: Part) -> NDArray[np.float64]:
    """Logits of all comments."""
    net.eval()
    rows = [table_rows(text) for text in part.texts]
    out, order = np.zeros((len(rows), len(LABELS))), sorted(range(len(rows)), key=lambda k: len(rows[k]))
    with torch.no_grad():
        for at in range(0, len(order), 256):
            batch = order[at : at + 256]
            out[batch] = net(padded([rows[k] for k in batch]))[0].numpy()
    return out


def scores(logits: NDArray[np.float64], part: Part) -> dict[str, float]:
    """Accuracy, macro-F1 and unweighted recall over the comments with one label."""
    said, true = logits[part.single].argmax(1), part.labels[part.single].argmax(1)
    hits = np.array([((said == k) & (true == k)).sum() for k in range(len(LABELS))])
    given, there = (np.array([(x == k).sum() for k in range(len(LABELS))]) for x in (said, true))
    f1 = 2 * hits / np.maximum(given + there, 1)
    recall = hits / np.maximum(there, 1)
    figures = {
        "accuracy": float((said == true).mean()),
        "macro_f1": float(f1.mean()),
        "recall": float(recall.mean()),
    }
    return figures | {f"recall_{label}": float(value) for label, value in zip(LABELS, recall, strict=True)}


def temperature_of(logits: NDArray[np.float64], part: Part) -> float:
    """The one with which the development comments with one label are likeliest."""
    own, true = logits[part.single], part.labels[part.single].argmax(1)

    def loss(temperature: float) -> float:
        told = torch.log_softmax(torch.tensor(own / temperature), 1).numpy()
        return -float(told[np.arange(len(true)), true].mean())

    return float(min(np.arange(0.5, 3.01, 0.02), key=loss))


def sureness_error(logits: NDArray[np.float64], part: Part) -> float:
    """How far confidence and hit rate lie apart on average, in ten steps of confidence."""
    shares = torch.softmax(torch.tensor(logits[part.single]), 1).numpy()
    sure, hit = shares.max(1), shares.argmax(1) == part.labels[part.single].argmax(1)
    steps = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(abs(sure[steps == k].mean() - hit[steps == k].mean()) * (steps == k).mean() for k in set(steps))
    )


def constants(net: WordEmotions) -> dict[str, NDArray[Any]]:
    """What the graph holds, by name."""
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    table = state["table.weight"].copy()
    table[0] = 0.0
    step = np.abs(table).max(0) / 127
    tensors: dict[str, NDArray[Any]] = {
        "table": np.round(table / step).astype(np.int8),
        "step": step.astype(np.float32),
        "head_bias": state["head.bias"],
        "zero": np.zeros(1, np.int64),
        "one": np.ones(1, np.float32),
        "piece_axis": np.array([1], np.int64),
        "word_axis": np.array([2], np.int64),
        "label_axis": np.array([0], np.int64),
    }
    for name in (
        "near.weight",
        "near.bias",
        "far.weight",
        "far.bias",
        "score.weight",
        "score.bias",
        "head.weight",
    ):
        tensors[name.replace(".", "_")] = state[name]
    tensors["score_weight"] = state["score.weight"][:, :, None]
    return tensors


def graph(net: WordEmotions) -> bytes:
    """The network for one sentence: `rows` int64 (words, pieces) to `logits` (7). The table is INT8."""
    tensors = constants(net)
    make = helper.make_node
    # Half precision halves what lies in the repository; loaded, they are what they were but for a thousandth.
    halves = {name: f"{name}_half" for name in ("near_weight", "far_weight")}
    tensors = {halves.get(name, name): value for name, value in tensors.items()}
    for half in halves.values():
        tensors[half] = tensors[half].astype(np.float16)
    nodes = [
        *(make("Cast", [half], [name], to=TensorProto.FLOAT) for name, half in halves.items()),
        make("Gather", ["table", "rows"], ["looked_up"], axis=0),
        make("Cast", ["looked_up"], ["raised"], to=TensorProto.FLOAT),
        make("ReduceSum", ["raised", "piece_axis"], ["summed"], keepdims=0),
        make("Mul", ["summed", "step"], ["scaled"]),
        make("Greater", ["rows", "zero"], ["there"]),
        make("Cast", ["there"], ["there_f"], to=TensorProto.FLOAT),
        make("ReduceSum", ["there_f", "piece_axis"], ["counted"], keepdims=1),
        make("Max", ["counted", "one"], ["count"]),
        make("Div", ["scaled", "count"], ["vectors"]),
        make("Unsqueeze", ["vectors", "label_axis"], ["sentence"]),
        make("Transpose", ["sentence"], ["words"], perm=[0, 2, 1]),
        make("Conv", ["words", "near_weight", "near_bias"], ["near_raw"], kernel_shape=[3], pads=[1, 1]),
        make("Relu", ["near_raw"], ["near"]),
        make("Conv", ["near", "far_weight", "far_bias"], ["far_raw"], kernel_shape=[3], pads=[1, 1]),
        make("Relu", ["far_raw"], ["far_relu"]),
        make("Add", ["far_relu", "near"], ["far"]),
        make("Conv", ["far", "score_weight", "score_bias"], ["score"], kernel_shape=[1]),
        make("Softmax", ["score"], ["attention"], axis=2),
        make("Mul", ["far", "attention"], ["weighted"]),
        make("ReduceSum", ["weighted", "word_axis"], ["mean"], keepdims=0),
        make("ReduceMax", ["far", "word_axis"], ["most"], keepdims=0),
        make("ReduceMean", ["words", "word_axis"], ["plain"], keepdims=0),
        make("Concat", ["most", "mean", "plain"], ["pooled"], axis=1),
        make("Gemm", ["pooled", "head_weight", "head_bias"], ["row"], transB=1),
        make("Squeeze", ["row", "label_axis"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["words", PIECES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [len(LABELS)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def main() -> int:
    """Train, write `words.onnx` and `words.json`, print the figures of the test part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("corpus", type=Path, help="goemotions.tar.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="folder with vocab.txt and model.safetensors of MiniLM")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = read_comments(given.corpus)

    def one(seed: int, teachers: NDArray[np.float64] | None) -> WordEmotions:
        torch.manual_seed(seed)
        net = WordEmotions(FINE)
        if given.teacher is not None:
            teach_words(net, given.teacher, parts["train"].texts)
        return learn(net, parts, random.Random(seed), teachers)

    seeds = range(given.seed, given.seed + TEACHERS)
    teachers = np.mean([logits_of(one(seed, None), parts["train"]) for seed in seeds], axis=0)
    net = one(given.seed + TEACHERS, teachers)
    on_dev, on_test = (logits_of(net, parts[name]) for name in ("dev", "test"))
    temperature = temperature_of(on_dev, parts["dev"])
    content = graph(net)
    figures = scores(on_test, parts["test"]) | {
        "calibration_error": sureness_error(on_test / temperature, parts["test"])
    }
    told = {
        "name": "words",
        "labels": list(LABELS),
        "files": {"words.onnx": hashlib.sha256(content).hexdigest()},
        "temperature": round(temperature, 3),
        "training": {
            "corpora": ["GoEmotions"],
            "teacher": "word vectors of all-MiniLM-L6-v2" if given.teacher else None,
            "seed": given.seed,
        },
        "figures": {name: round(value, 4) for name, value in figures.items()},
    }
    (given.out / "words.onnx").write_bytes(content)
    (given.out / "words.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    sys.stdout.write(json.dumps(told["figures"]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
