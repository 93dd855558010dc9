"""Small smiles in single pictures: how many are named where how many neutral faces are kept.

    python benchmarks/accuracy/smiles.py --data DIR --landmarks FILE [WEIGHTS ...]

Twenty people photographed neutral and smiling; a mild smile is a morph of 40 to 70 % of one that the first
network is sure of, or the smile of somebody else. Every picture is seen at four sizes. WEIGHTS are folders
with a face.json, by default the package's; the first one says who smiles strongly, for all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from response_cast import MILD, STRONG, Judge, londoners
from response_films import SIDE_PX, Mesh, Picture

from liveaffect.engines import manifest as manifests
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.scores import markdown_table

SIZES = (1.0, 0.85, 0.7, 0.55)
KEPT = (1.0, 0.975, 0.95)
HAPPY, NEUTRAL = LABELS.index("happy"), LABELS.index("neutral")


def margins(judge: Judge, pictures: list[Picture]) -> NDArray[np.float64]:
    """By how much happy leads the best other label in log-probability, of every size that shows a face."""
    found = []
    for picture in pictures:
        for size in SIZES:
            small = cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
            border = (SIDE_PX - len(small)) // 2
            framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_REPLICATE)
            if (looked := judge.look(np.asarray(framed, np.uint8))) is not None:
                log = np.log(np.maximum(looked[1], 1e-9))
                found.append(log[HAPPY] - np.delete(log, HAPPY).max())
    return np.array(found)


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, required=True, help="face_landmark.tflite of mediapipe")
    parser.add_argument("weights", type=Path, nargs="*", default=[manifests.SHIPPED])
    given = parser.parse_args()
    judges = [Judge(folder) for folder in given.weights]
    people = londoners(given.data / "faces/london20.tar", Mesh(given.landmarks), judges[0])
    rest = [one.head.rest for one in people]
    strong = [one for one in people if one.strength >= STRONG]
    mild = [one.head.at(share) for one in strong for share in MILD]
    mild += [one.head.at(1.0) for one in people if one.strength < STRONG]
    print(f"{len(people)} people, {len(strong)} smile strongly, {len(mild)} mildly, at {len(SIZES)} sizes")
    heads = [f"mild named at {kept:.1%} neutral kept" for kept in KEPT]
    rows = []
    for folder, judge in zip(given.weights, judges, strict=True):
        calm, slight = margins(judge, rest), margins(judge, mild)
        full = margins(judge, [one.head.at(1.0) for one in strong])
        bounds = [np.sort(calm)[::-1][min(round((1 - kept) * len(calm)), len(calm) - 1)] for kept in KEPT]
        shares = [calm <= 0, slight > 0, full > 0, *(slight > bound for bound in bounds)]
        rows.append((folder, *(f"{share.mean():.3f}" for share in shares)))
    print(markdown_table(("network", "neutral kept", "mild named", "strong named", *heads), rows))


if __name__ == "__main__":
    main()
