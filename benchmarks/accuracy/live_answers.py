"""What the shipped networks say through the live path, item by item, for the tables of the results.

The live detector's crops of the corpus's own test pictures, portraits in colour, and ten people who talk. The
trainings cannot make these, because they know nothing of the live path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from accuracy.face_tables import FACE, LIVE_CROP, PORTRAITS, TALKERS
from numpy.typing import NDArray

from liveaffect.engines import manifest as manifests
from liveaffect.engines.manifest import write_whole
from liveaffect.engines.onnx_engine import OnnxEngine
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training import evaluate_face
from liveaffect.engines.training.augment_faces import grey_crops
from liveaffect.engines.training.corpora_faces import Faces
from liveaffect.engines.training.scores import change_tables
from liveaffect.placing import Picture, in_a_room, live_crop
from liveaffect.realtime.blazeface import make_finder
from liveaffect.realtime.cue import NOT_SURE, Cue
from liveaffect.realtime.estimate import softmax
from liveaffect.realtime.face_analyzer import find_in_picture
from liveaffect.realtime.lockstep import analyse, watched
from liveaffect.realtime.portrait import packaged_portraits
from liveaffect.realtime.replay import MediaFile, load_picture
from liveaffect.realtime.sinks import Outputs
from liveaffect.settings import Settings

TALKERS_CLIP = "clips/demo_grid_10speakers.mp4"
PORTRAIT_FILES = ("clips/lisa1.jpg", "clips/lisa3.jpg")
SURE = 0.45
"""Below this probability a single reading counts as 'not sure' in the table of talkers."""
Say = Callable[[str], None]


def live_crops(names: tuple[str, ...], pictures: Picture, truth: NDArray[np.int64], folder: Path) -> str:
    """Each picture as the corpus placed it and as the live detector did; `away` is empty if not found."""
    _, near = make_finder()
    crops = [live_crop(near, in_a_room(picture)) for picture in pictures]
    found = [at for at, crop in enumerate(crops) if crop is not None]
    given = {"placed": grey_crops(pictures[found]), "live": np.stack([c[0] for c in crops if c is not None])}
    manifest = manifests.read(folder / "face.json")
    called: dict[str, NDArray[np.int64]] = {}
    for precision in manifests.PRECISIONS:
        with closing(OnnxEngine(manifest, folder, precision)) as engine:
            for how, these in given.items():
                called[f"{precision}_{how}"] = evaluate_face.crop_answers(engine, these).argmax(1)
    row_of = {at: row for row, at in enumerate(found)}
    lines = [",".join(["name", "truth", "away", *called])]
    for at, name in enumerate(names):
        crop, row = crops[at], row_of.get(at)
        said = ["" if row is None else str(one[row]) for one in called.values()]
        lines.append(",".join([name, str(truth[at]), "" if crop is None else f"{crop[1]:.4f}", *said]))
    return "\n".join(lines) + "\n"


def portraits(data: Path, folder: Path) -> str:
    """The best face of every portrait at hand, in colour and made grey, per precision."""
    found = manifests.read(folder / "face.json")
    far, near = make_finder()
    lines = [",".join(["picture", "precision", "seen", *LABELS])]
    paths = [*packaged_portraits(), *(data / name for name in PORTRAIT_FILES if (data / name).exists())]
    for path in paths:
        faces = find_in_picture(far, near, load_picture(path))
        if not faces:
            continue
        colour = max(faces, key=lambda face: face.box[2] * face.box[3]).crop
        grey = np.asarray(
            cv2.cvtColor(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
        )
        for precision in manifests.PRECISIONS:
            with closing(OnnxEngine(found, folder, precision)) as engine:
                for seen, crop in (("colour", colour), ("grey", grey)):
                    scores = softmax(engine.infer({"crop": crop[None]})["logits"][0])
                    cells = [f"{score:.4f}" for score in scores]
                    lines.append(",".join([path.stem, precision, seen, *cells]))
    return "\n".join(lines) + "\n"


def talkers(data: Path, settings: Settings, say: Say) -> str:
    """What every cue about the talkers says: each reading's label, the label that is shown, the weights."""
    tools = settings.load_tools(say)
    media = MediaFile(data / TALKERS_CLIP)
    media.open()
    kept: list[Cue] = []
    try:
        analyse(watched(media), tools, Outputs([]), kept.extend)
    finally:
        media.close()
        tools.networks.close()
    lines = ["t,track,face,voice,shown,confidence,weight_face,weight_voice"]
    for cue in kept:
        track = "nobody" if cue.track is None else str(cue.track)
        said = [_called(cue.face), _called(cue.voice), cue.label]
        figures = [f"{value:.3f}" for value in (cue.confidence, *cue.weights[:2])]
        lines.append(",".join([f"{cue.t_ns * 1e-9:.1f}", track, *said, *figures]))
    return "\n".join(lines) + "\n"


def write_live_answers(data: Path, faces: Faces, results: Path, say: Say) -> None:
    """Write all three into the folder of the results; `faces` are those of the test side."""
    shipped = manifests.SHIPPED
    crops = live_crops(faces.names, faces.pictures, faces.label, shipped)
    change_tables(results / FACE, {LIVE_CROP: crops})
    write_whole(results / PORTRAITS, portraits(data, shipped).encode())
    write_whole(results / TALKERS, talkers(data, Settings(), say).encode())
    say(f"wrote what the live path says into {results}")


def _called(scores: tuple[float, ...] | None) -> str:
    if scores is None:
        return ""
    best = max(scores)
    return LABELS[scores.index(best)] if best >= SURE else NOT_SURE
