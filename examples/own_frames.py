"""Analyse pictures that a program has already, here read with OpenCV, and draw the overlay on them.

    python own_frames.py FILM OUT.mp4

With `wait=True` every push returns when it has been analysed, which suits recorded material. A program with a
live camera leaves it out: then pushing never waits, and `losses` counts what came too fast.
"""

from __future__ import annotations

import sys

import cv2

import liveaffect


def main(film: str, out: str) -> None:
    """Write the film again with the overlay, and print how often each label was given."""
    source = cv2.VideoCapture(film)
    if not source.isOpened():
        sys.exit(f"{film} cannot be read as a film")
    rate = source.get(cv2.CAP_PROP_FPS)
    size = int(source.get(cv2.CAP_PROP_FRAME_WIDTH)), int(source.get(cv2.CAP_PROP_FRAME_HEIGHT))
    target = cv2.VideoWriter(out, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    counts = dict.fromkeys((*liveaffect.LABELS, liveaffect.NOT_SURE), 0)
    with liveaffect.Analyzer(sound=False, wait=True) as analyzer:
        while True:
            there, image = source.read()
            if not there:
                break
            analyzer.push_frame(image, t=analyzer.pictures / rate, bgr=True)
            target.write(analyzer.draw(image, bgr=True))
            for cue in analyzer.cues():
                counts[cue.label] += 1
    target.release()
    source.release()
    print(", ".join(f"{label} {count}" for label, count in counts.items() if count))


if __name__ == "__main__":
    main(*sys.argv[1:])
