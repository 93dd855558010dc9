"""Films whose expression is known at every moment: what `bench_response.py` measures delay and calm on.

A film is made while it is watched: two photographs of one person, neutral and smiling, are joined into a
mesh over their landmarks, and any amount of the smile can be had of it. The mesh is then held in front of
a camera that shakes as in a hand, under light that changes, with noise. Beside them stand films of people
who truly talk, disturbed in many ways. The expression of a film is a function of time, so delay is counted
from when it began to change, whatever the pictures a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (480, 360)
SIDE_PX = 300
"""Side of the square that holds a head; the face in it is about 110 pixels wide."""
_GRAINS = 6
Picture = NDArray[np.uint8]
Points = NDArray[np.float32]
Amount = Callable[[float], float]
"""How much of the expression is shown at a time in seconds, 0 to 1."""


class Mesh:
    """468 landmarks of a face, by the model that mediapipe packages."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped,unused-ignore]

        self._net = Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        self._side = int(self._net.get_input_details()[0]["shape"][1])
        self._in = self._net.get_input_details()[0]["index"]
        self._out = next(
            o["index"] for o in self._net.get_output_details() if int(np.prod(o["shape"])) == 1404
        )

    def find(self, image: Picture, eyes: Points) -> NDArray[np.float32]:
        """(468, 3) in pixels of the picture; `eyes` are the left and the right one in it."""
        across = eyes[1] - eyes[0]
        wide, angle = 3.6 * float(np.hypot(*across)), math.atan2(across[1], across[0])
        middle = eyes.mean(0) + 0.30 * np.array([-across[1], across[0]])
        scale = self._side / wide
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        there = np.column_stack([turn, self._side / 2 - turn @ middle])
        crop = cv2.warpAffine(image, there, (self._side, self._side))
        self._net.set_tensor(self._in, (crop[None].astype(np.float32) / 255.0))
        self._net.invoke()
        found = self._net.get_tensor(self._out).reshape(468, 3).copy()
        back = cv2.invertAffineTransform(there)
        flat = found[:, :2] @ back[:, :2].T + back[:, 2]
        return np.column_stack([flat, found[:, 2] / scale]).astype(np.float32)


def triangles(points: Points, side: int) -> NDArray[np.int64]:
    """Rows of three places: the Delaunay mesh over the points and the square's edge."""
    around = cv2.Subdiv2D((0, 0, side, side))
    where: dict[tuple[float, float], int] = {}
    for at, (x, y) in enumerate(points):
        key = (float(np.clip(x, 0, side - 1)), float(np.clip(y, 0, side - 1)))
        around.insert(key)
        where[key] = at
    out = []
    keys = np.array(list(where))
    places = np.array(list(where.values()))
    for row in around.getTriangleList():
        corners = np.asarray(row, np.float32).reshape(3, 2)
        if (corners < -1).any() or (corners > side).any():
            continue
        near = [places[int(np.argmin(np.abs(keys - c).sum(1)))] for c in corners]
        if len(set(near)) == 3:
            out.append(near)
    return np.array(out, np.int64)


def warped(image: Picture, source: Points, target: Points, mesh: NDArray[np.int64]) -> Picture:
    """The picture with its points moved from `source` to `target`, triangle by triangle."""
    side = image.shape[0]
    which = np.full((side, side), -1, np.int32)
    for k, corners in enumerate(mesh):
        cv2.fillConvexPoly(which, np.round(target[corners]).astype(np.int32), k)
    to = np.concatenate([target[mesh], np.ones((len(mesh), 3, 1), np.float32)], axis=2).astype(np.float64)
    sound = np.abs(np.linalg.det(to)) > 1e-3
    affine = np.zeros((len(mesh), 3, 2))
    affine[sound] = np.linalg.solve(to[sound], source[mesh][sound].astype(np.float64))
    y, x = np.mgrid[0:side, 0:side].astype(np.float64)
    place = np.stack([x, y, np.ones_like(x)], axis=2)
    known = (which >= 0) & sound[np.maximum(which, 0)]
    at = np.einsum("ijk,ijkl->ijl", place, affine[np.maximum(which, 0)])
    at[~known] = place[..., :2][~known]
    return np.asarray(
        cv2.remap(
            image,
            at[..., 0].astype(np.float32),
            at[..., 1].astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def edge(side: int) -> Points:
    """Points along the edge of a square, which stay where they are."""
    line = np.linspace(0, side - 1, 9)
    ends = np.zeros_like(line), np.full_like(line, side - 1)
    ring = [*zip(line, ends[0], strict=True), *zip(line, ends[1], strict=True)]
    ring += [*zip(ends[0][1:-1], line[1:-1], strict=True), *zip(ends[1][1:-1], line[1:-1], strict=True)]
    return np.array(ring, np.float32)


class Head:
    """One person with any amount of an expression between two photographs."""

    STEPS = 20

    def __init__(self, rest: Picture, shown: Picture, rest_at: Points, shown_at: Points) -> None:
        """Square pictures of one side with the landmarks of a face in both."""
        self.rest, self.landmarks = rest, rest_at
        self._pictures = rest, shown
        ring = edge(rest.shape[0])
        self._points = np.vstack([rest_at[:, :2], ring]), np.vstack([shown_at[:, :2], ring])
        middle = np.asarray((self._points[0] + self._points[1]) / 2, np.float32)
        self._mesh = triangles(middle, rest.shape[0])
        self._made: dict[int, Picture] = {}

    def at(self, amount: float) -> Picture:
        """The head with that much of the expression, 0 to 1."""
        step = round(min(max(amount, 0.0), 1.0) * self.STEPS)
        if step not in self._made:
            share = step / self.STEPS
            target = np.asarray((1 - share) * self._points[0] + share * self._points[1], np.float32)
            one, other = (
                warped(p, s, target, self._mesh) for p, s in zip(self._pictures, self._points, strict=True)
            )
            self._made[step] = np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), np.uint8)
        return self._made[step]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of what is shown, with the moment at which it begins."""

    at_s: float
    label: str
    blend_s: float
    until_s: float
    """When the next change begins, or the film ends."""
    amount: float = 1.0


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How a film differs from a still photograph."""

    seed: int
    shake: float = 1.0
    """Of a hand that holds the camera; 1 moves by 2 % of the picture and turns by 4 degrees."""
    noise: float = 4.0
    """Standard deviation of every pixel, of 255."""
    light: float = 0.15
    """Share by which light swings and steps."""
    scale: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """One film: what is shown when, how it is filmed."""

    name: str
    kind: str
    fps: float
    seconds: float
    heads: tuple[Callable[[float], Picture], ...]
    """One picture of a square head each, by time."""
    changes: tuple[tuple[Change, ...], ...]
    """Of each head, from left to right."""
    disturbance: Disturbance
    size: tuple[int, int] = SIZE
    first_s: float = 0.0
    """When the first picture is taken: onsets fall anywhere on the grid."""
    person: str = ""

    def frames(self) -> Iterator[tuple[int, Picture]]:
        """Times in nanoseconds and RGB pictures."""
        camera = Camera(self.disturbance, self.size)
        for k in range(int((self.seconds - self.first_s) * self.fps)):
            t_s = self.first_s + k / self.fps
            yield round(t_s * 1e9), camera.take([head(t_s) for head in self.heads], t_s)


class Camera:
    """Held by a hand, with noise, under light that swings and steps."""

    def __init__(self, disturbance: Disturbance, size: tuple[int, int]) -> None:
        self._how = disturbance
        self._size = size
        self._rng = np.random.default_rng(disturbance.seed)
        self._phases = self._rng.uniform(0, 2 * math.pi, 12)
        self._rates = np.concatenate([self._rng.uniform(0.1, 0.5, 6), self._rng.uniform(2.0, 7.0, 6)])
        self._steps = self._rng.uniform(0, 30, 6)
        # Grain around the middle of a byte: adding it to a picture is then one call.
        self._grain = [
            np.clip(self._rng.normal(128, disturbance.noise, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            for _ in range(_GRAINS)
        ]
        slope = np.linspace(100, 150, size[1])[:, None, None]
        self._wall = np.broadcast_to(slope, (size[1], size[0], 3)).astype(np.uint8)

    def take(self, heads: Sequence[Picture], t_s: float) -> Picture:
        """One picture with the heads side by side."""
        canvas = self._wall.copy()
        for k, head in enumerate(heads):
            self._place(canvas, head, t_s, k, len(heads))
        return self._exposed(canvas, t_s)

    def of_film(self, picture: Picture, t_s: float) -> Picture:
        """A picture of a film, as filmed once more."""
        canvas = picture.copy()
        self._place(canvas, picture, t_s, 0, 1)
        return self._exposed(canvas, t_s)

    def _place(self, canvas: Picture, head: Picture, t_s: float, k: int, of: int) -> None:
        width, height = self._size
        high, wide = head.shape[:2]
        swing = np.sin(2 * math.pi * self._rates * t_s + self._phases + 1.7 * k) * self._how.shake
        # A slow sway, and a tremor an eighth as large.
        sway = swing[:6] + 0.12 * swing[6:]
        angle = math.radians(4.0) * sway[2]
        zoom = self._how.scale * (1 + 0.03 * sway[3]) * (1.0 if of == 1 else 0.75)
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([width * (k + 0.5) / of, height / 2]) + sway[:2] * 0.02 * width
        shift = middle - turn @ [(wide - 1) / 2, (high - 1) / 2]
        cv2.warpAffine(
            head,
            np.column_stack([turn, shift]),
            self._size,
            dst=canvas,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )

    def _exposed(self, canvas: Picture, t_s: float) -> Picture:
        light = self._how.light
        stepped = 1.0 if int(np.sum(self._steps < t_s)) % 2 else -1.0
        gain = 1.0 + light * (0.5 * math.sin(2 * math.pi * 0.23 * t_s + self._phases[7]) + 0.5 * stepped)
        grain = self._grain[int(self._rng.integers(_GRAINS))]
        return np.asarray(cv2.addWeighted(canvas, gain, grain, 1.0, -128.0), np.uint8)


def steps(*points: tuple[float, float, float]) -> Amount:
    """An amount that goes to a value, from a time on, within a blend: rows of (time, value, blend)."""

    def amount(t_s: float) -> float:
        value = 0.0
        for at_s, to, blend_s in points:
            if t_s < at_s:
                break
            share = min(1.0, (t_s - at_s) / blend_s) if blend_s > 0 else 1.0
            value += (to - value) * share
        return value

    return amount
