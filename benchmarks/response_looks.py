"""What the real finder, tracker and face network say of every look of a film: recorded once, judged often.

    uv run python benchmarks/response_looks.py --data DIR --landmarks FILE --out DIR [KIND ...]

FILE is `face_landmark.tflite` out of the wheel of mediapipe 0.10.21; DIR holds the pictures that
`response_cast.py` names.

Estimators of what a face shows can then be compared in seconds, on the very looks they would have had.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from response_cast import Programme, Talk, programme
from response_films import Film

from liveaffect.engines import manifest as manifests
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.crop import quality
from liveaffect.realtime.face_analyzer import FaceAnalyzer
from liveaffect.realtime.frame import VideoFrame


def record(films: Iterable[Film | Talk]) -> dict[str, np.ndarray]:
    """Looks of all films as columns, and the films themselves as JSON."""
    engine = OnnxEngine(manifests.read(manifests.SHIPPED / "face.json"), manifests.SHIPPED, "int8")
    rows: list[tuple[int, int, int, float, float]] = []
    said: list[tuple[np.ndarray, np.ndarray, float]] = []
    about = []
    finders = make_finder()
    for number, film in enumerate(films):
        sight = FaceAnalyzer("film", *finders, ids=itertools.count(1))
        for seq, (t_ns, picture) in enumerate(film.frames()):
            sighting = sight.step(VideoFrame("film", seq, t_ns, picture))
            if not sighting.faces:
                continue
            answer = engine.infer({"crop": np.stack([face.crop for face in sighting.faces])})
            for face, vector, logits, score in zip(
                sighting.faces, answer["vector"], answer["logits"], answer["score"], strict=True
            ):
                rows.append((number, t_ns, face.track, quality(face.crop, face.points).score, face.box[0]))
                said.append((vector, logits, float(score[0])))
        about.append(
            {
                "name": film.name,
                "kind": film.kind,
                "person": film.person,
                "fps": film.fps,
                "seconds": film.seconds,
                "changes": [[asdict(c) for c in one] for one in film.changes],
            }
        )
    table = np.array(rows, np.float64)
    return {
        "film": table[:, 0].astype(np.int32),
        "t_ns": table[:, 1].astype(np.int64),
        "track": table[:, 2].astype(np.int32),
        "quality": table[:, 3],
        "left_px": table[:, 4],
        "vector": np.stack([v for v, _, _ in said]),
        "logits": np.stack([x for _, x, _ in said]),
        "score": np.array([s for _, _, s in said]),
        "films": np.array(json.dumps(about)),
    }


def main() -> None:
    """The films of some kinds, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each-talker", type=int, default=20)
    parser.add_argument("--part", default="1/1", help="only this part of the films of a kind")
    parser.add_argument("kinds", nargs="*")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    films: Programme = programme(given.data, given.landmarks, each_talker=given.each_talker)
    for kind in given.kinds or films:
        part, parts = map(int, given.part.split("/"))
        made = record(films[kind]()[part - 1 :: parts])
        np.savez_compressed(given.out / f"{kind}.{part}of{parts}.npz", allow_pickle=False, **made)
        print(kind, len(made["film"]), "looks", flush=True)


if __name__ == "__main__":
    main()
