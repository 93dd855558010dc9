"""What does the live detector's crop cost in accuracy, against the corpus's own placing of faces?

    python benchmarks/bench_live_crop.py --data DIR [--weights DIR] [--pictures 3579]

Each test picture of FER+ is enlarged, put into a larger picture, found by the finder for close looks and cut
out by `realtime.crop`, as live. One JSON line: how many were found, the accuracy of the found ones with the
corpus's placing and with the live crop, and how far the two put the eyes apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from liveaffect.engines import manifest as manifests
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import CROP_SIZE, LABELS
from liveaffect.engines.training import corpora_faces, evaluate_face
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.scores import accuracy, unweighted_recall
from liveaffect.placing import in_a_room, live_crop
from liveaffect.realtime.blazeface import make_finder

ALLOWED_POINTS = 1.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=manifests.SHIPPED)
    parser.add_argument("--pictures", type=int, default=10_000)
    given = parser.parse_args()
    faces = corpora_faces.find_faces(given.data)[0]
    at = [i for i, side in enumerate(faces.sides) if side == "test" and faces.label[i] >= 0]
    test = faces.take(np.array(at[: given.pictures]))
    _, near = make_finder()
    crops = [live_crop(near, in_a_room(picture)) for picture in test.pictures]
    kept = np.flatnonzero([crop is not None for crop in crops])
    truth, away = test.label[kept], [crop[1] for crop in crops if crop is not None]
    manifest = manifests.read(given.weights / "face.json")
    line: dict[str, object] = {"pictures": len(test), "found": len(kept), "side_px": CROP_SIZE}
    line["eyes_apart_p50_p95"] = [round(float(v), 3) for v in np.percentile(away, [50, 95])]
    for precision in manifests.PRECISIONS:
        engine = OnnxEngine(manifest, given.weights, precision)
        both = {
            "placed": evaluate_face.crop_answers(engine, grey_crops(test.pictures[kept])),
            "live": evaluate_face.crop_answers(engine, np.stack([c[0] for c in crops if c is not None])),
        }
        for name, logits in both.items():
            said = logits.argmax(1)
            line[f"{precision}_{name}"] = [
                round(accuracy(truth, said), 4),
                round(unweighted_recall(truth, said, len(LABELS)), 4),
            ]
    line["allowed_points"] = ALLOWED_POINTS
    print(json.dumps(line))


if __name__ == "__main__":
    main()
