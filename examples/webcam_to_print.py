"""Watch a camera and listen to a microphone, and print a line whenever somebody's label changes.

    python webcam_to_print.py [CAMERA [MICROPHONE]]

A camera is an index, a part of its name, a device, a URL or a film; 'none' leaves one out. Ctrl-C ends it.
"""

from __future__ import annotations

import sys

import liveaffect


def main(camera: str = "0", microphone: str = "default") -> None:
    """Print changes until stopped, or until a film is over."""
    labels: dict[int | None, str] = {}
    with liveaffect.watch(camera, microphone) as cues:
        for cue in cues:
            if labels.get(cue.track) != cue.label:
                labels[cue.track] = cue.label
                who = "somebody out of view" if cue.track is None else f"person {cue.track}"
                why = f" ({cue.reason})" if cue.reason else f" {cue.confidence:.0%}"
                print(f"{cue.t:7.1f} s  {who}: {cue.label}{why}", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped")
    except liveaffect.SourceError as error:
        sys.exit(str(error))
