"""whisper_streaming's policy for live words, written again from its description, to stand beside ours.

Once a second faster-whisper hears the whole buffer, its filter for silence on, with the words before it as a
prompt. Where two passes after one another begin alike behind the words that are believed, that beginning is
believed too. A buffer of more than a quarter minute loses its first finished segments; what is left at the
end is believed as it is.
Words are compared without case and marks, which believes more of them sooner than comparing them as written.
This file is also read into the environment of `liveaffect bench peers`: it needs nothing of liveaffect.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16000
BETWEEN_S, LONGEST_S = 1.0, 15.0
PROMPT_LETTERS, MOST_AGAIN = 200, 5
SILENT = 0.9
Heard = tuple[float, float, str]
"""Begin and end in seconds of the stream, and text."""


class Agreeing:
    """One stream: sound goes in by `add`, and `believed` grows."""

    def __init__(self, folder: str, language: str = "en") -> None:
        from faster_whisper import WhisperModel  # type: ignore[import-untyped]

        self.believed: list[Heard] = []
        self._model: Any = WhisperModel(
            folder, device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
        )
        self._language = language
        self._sound = np.zeros(0, np.float32)
        self._first_s = self._done_s = self._since_s = 0.0
        self._guess: list[Heard] = []

    def add(self, samples: NDArray[np.float32]) -> None:
        """More sound, and a pass if a second has gone by."""
        self._sound = np.concatenate([self._sound, samples])
        self._since_s += len(samples) / RATE
        if self._since_s > BETWEEN_S - 0.5 / RATE:
            self._since_s = 0.0
            self._hear()

    def finish(self) -> None:
        """No more sound comes."""
        if self._since_s:
            self._hear()
        self.believed += self._guess
        self._guess = []

    def _hear(self) -> None:
        before = " ".join(text for _, end_s, text in self.believed if end_s <= self._first_s)
        found, _ = self._model.transcribe(
            self._sound,
            language=self._language,
            beam_size=5,
            vad_filter=True,
            word_timestamps=True,
            condition_on_previous_text=True,
            initial_prompt=before[-PROMPT_LETTERS:] or None,
        )
        segments = list(found)
        new = self._new_words(segments)
        count = 0
        for word, other in zip(new, self._guess, strict=False):
            if _letters(word) != _letters(other):
                break
            count += 1
        self.believed += new[:count]
        if count:
            self._done_s = new[count - 1][1]
        self._guess = new[count:]
        self._shorten([self._first_s + segment.end for segment in segments])

    def _new_words(self, segments: list[Any]) -> list[Heard]:
        """Words behind the believed ones, without those that are told once more."""
        words = [
            (self._first_s + word.start, self._first_s + word.end, word.word.strip())
            for segment in segments
            if segment.no_speech_prob <= SILENT
            for word in segment.words
        ]
        words = [word for word in words if word[0] > self._done_s - 0.1]
        if words and abs(words[0][0] - self._done_s) < 1.0:
            told = [_letters(word) for word in self.believed]
            for length in range(1, min(MOST_AGAIN, len(told), len(words)) + 1):
                if [_letters(word) for word in words[:length]] == told[-length:]:
                    return words[length:]
        return words

    def _shorten(self, ends_s: list[float]) -> None:
        """Leave a long buffer's finished segments behind, the last but one at the latest."""
        if len(self._sound) <= LONGEST_S * RATE:
            return
        finished = [end_s for end_s in ends_s[:-1] if end_s <= self._done_s]
        if finished:
            self._sound = self._sound[round((finished[-1] - self._first_s) * RATE) :]
            self._first_s = finished[-1]


def _letters(word: Heard) -> str:
    return re.sub(r"[^\w']", "", word[2].lower())
