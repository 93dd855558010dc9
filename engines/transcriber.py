"""Whether somebody speaks, and what was said in short pieces of sound, word by word, with times.

Silero's network, from the copy that faster-whisper carries, says 31 times a second whether anybody speaks.
Its file keeps no state, so state and the last samples are handed back with each call, and a stream costs the
same however it is cut. It is far cheaper than hearing words, which is only done where this one says speech.

For Whisper CTranslate2 runs an encoder that is only as long as the sound, where Whisper's own use pads
everything to half a minute and pays for that each time. The decoder then misses the silence that tells it
where to stop, and says the sentence again: so behind the vectors of the sound stand a few of silence, taken
at even steps from a silent half minute that was encoded once. Known words are not given to the
decoder: it says them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.onnx_engine import ort
from liveaffect.engines.protocol import SPEECH_CHUNK as CHUNK
from liveaffect.engines.protocol import EngineFileError, EngineUnavailable, HeardWords, TimedWord
from liveaffect.engines.recipe import SAMPLE_RATE

FRAME = 160
"""Samples of one frame of Whisper's log-mel."""
STEP_S = 0.02
"""Time between two vectors of the encoder."""
LONGEST_S = 28.0
TAIL_S = 1.0
"""Silence behind the sound, before it is encoded."""
SILENT_VECTORS = 300
"""Vectors of silence behind those of the sound: without them one sentence in two is said again. What is left
of that takes no time, and `utterance.plausible` drops it."""
CUT_TAIL_S, CUT_SILENT_VECTORS = 0.3, 100
"""The same behind sound that ends in the middle of speech, where what comes last is not believed anyway."""
WINDOW = 1500
"""Vectors of half a minute."""
TOKENS_A_SECOND = 6.0
"""Nobody says more; what is longer repeats itself."""
FEWEST_TOKENS = 6
BEAM = 5
"""Hypotheses beside each other where nothing is cut and the words will stay: an eighth of the errors less."""
CURE = "uv sync --inexact --extra words"
CONTEXT = 64
FILE = "silero_vad_v6.onnx"
SLOWED = 1.5
"""So much longer is the sound that is heard for screams."""


class Transcriber:
    """One Whisper. One caller at a time."""

    def __init__(
        self, folder: Path, *, threads: int = 1, language: str = "auto", device: str = "auto"
    ) -> None:
        """Raises EngineUnavailable without the packages, EngineFileError for files that cannot be used."""
        try:
            import ctranslate2  # type: ignore[import-untyped]
            import tokenizers
            from faster_whisper import feature_extractor, tokenizer  # type: ignore[import-untyped]
        except ImportError as error:
            raise EngineUnavailable(f"words need faster-whisper ({error}): {CURE}") from error
        self._runtime: Any = ctranslate2
        self._make_tokenizer: Any = tokenizer.Tokenizer
        on_gpu = device != "cpu" and ctranslate2.get_cuda_device_count() > 0
        kind = "int8_float16" if on_gpu else "int8"
        where = "cuda" if on_gpu else "cpu"
        self._model: Any = _loaded_or_refused(
            folder,
            lambda: ctranslate2.models.Whisper(
                str(folder), device=where, compute_type=kind, intra_threads=threads
            ),
        )
        self._tokens: Any = _loaded_or_refused(
            folder, lambda: tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        )
        self.multilingual = bool(self._model.is_multilingual)
        self.name = f"whisper on {'the GPU' if on_gpu else 'the CPU'}, {kind}"
        if not self.multilingual and language not in ("auto", "en"):
            raise EngineFileError(
                f"the Whisper in {folder} understands English alone, not '{language}'; "
                "take another with --words base"
            )
        if language != "auto" and self.multilingual and self._tokens.token_to_id(f"<|{language}|>") is None:
            raise EngineFileError(
                f"the Whisper in {folder} knows no language '{language}'; give a code such as 'de', or 'auto'"
            )
        self._mel: Any = feature_extractor.FeatureExtractor(feature_size=self._model.n_mels)
        self._chosen = "en" if not self.multilingual else language
        self._writers: dict[tuple[str, str], Any] = {}
        self._silence = self._vectors(np.zeros(30 * SAMPLE_RATE, np.float32))

    def hear(
        self,
        samples: NDArray[np.float32],
        *,
        language: str | None = None,
        cut: bool = False,
    ) -> HeardWords:
        """What was said in at most LONGEST_S of sound; `cut`: it ends in the middle of speech."""
        samples = samples[: int(LONGEST_S * SAMPLE_RATE)]
        tail = (CUT_TAIL_S, CUT_SILENT_VECTORS) if cut else (TAIL_S, SILENT_VECTORS)
        encoded = self._encode(samples, *tail)
        spoken = language or self._chosen
        writer = self._writer(self._language_of(encoded) if spoken == "auto" else spoken, "transcribe")
        return self._decode(encoded, writer, len(samples) / SAMPLE_RATE, 1 if cut else BEAM)

    def translate(self, samples: NDArray[np.float32], language: str) -> str:
        """The same in English, as text."""
        samples = samples[: int(LONGEST_S * SAMPLE_RATE)]
        encoded = self._encode(samples, TAIL_S, SILENT_VECTORS)
        heard = self._decode(encoded, self._writer(language, "translate"), len(samples) / SAMPLE_RATE, BEAM)
        return "".join(word.text for word in heard.words).strip()

    def _decode(self, encoded: Any, writer: Any, seconds: float, beam: int) -> HeardWords:
        start = [*writer.sot_sequence, writer.no_timestamps]
        most = max(FEWEST_TOKENS, int(TOKENS_A_SECOND * seconds) + 2)
        (result,) = self._model.generate(
            encoded,
            [start],
            beam_size=beam,
            max_length=len(start) + most,
            return_scores=True,
            return_no_speech_prob=True,
        )
        found = [token for token in result.sequences_ids[0] if token < writer.eot]
        words = self._timed(encoded, writer, start, found, seconds) if found else ()
        return HeardWords(
            words=words,
            sureness=float(result.scores[0]) if found else 0.0,
            silence=float(result.no_speech_prob),
            language=writer.language_code,
        )

    def _encode(self, samples: NDArray[np.float32], tail_s: float, silent: int) -> Any:
        vectors = self._vectors(np.pad(samples, (0, int(tail_s * SAMPLE_RATE))))
        steps = np.linspace(min(vectors.shape[1], WINDOW - 1), WINDOW - 1, silent).astype(int)
        joined = np.concatenate([vectors, self._silence[:, steps]], axis=1)
        return self._runtime.StorageView.from_array(np.ascontiguousarray(joined))

    def _vectors(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = np.ascontiguousarray(self._mel(samples, padding=0)[None], np.float32)
        encoded = self._model.encode(self._runtime.StorageView.from_array(mel), to_cpu=True)
        return np.array(encoded, np.float32)

    def _language_of(self, encoded: Any) -> str:
        ((best, *_),) = self._model.detect_language(encoded)
        return str(best[0]).strip("<|>")

    def _writer(self, language: str, task: str) -> Any:
        key = (language, task)
        if key not in self._writers:
            self._writers[key] = self._make_tokenizer(
                self._tokens, self.multilingual, task=task, language=language
            )
        return self._writers[key]

    def _timed(
        self, encoded: Any, writer: Any, start: list[int], tokens: list[int], last_s: float
    ) -> tuple[TimedWord, ...]:
        """Words with the times that the decoder's attention says."""
        frames = max(int(last_s * SAMPLE_RATE) // FRAME, 2)
        (aligned,) = self._model.align(encoded, start[:-1], [tokens], frames)
        texts, groups = writer.split_to_word_tokens([*tokens, writer.eot])
        first_step: dict[int, int] = {}
        for token, step in aligned.alignments:
            first_step.setdefault(token, step)
        words: list[TimedWord] = []
        at = 0
        for text, group in zip(texts[:-1], groups[:-1], strict=True):
            begin = min(first_step.get(at, 0) * STEP_S, last_s)
            sure = aligned.text_token_probs[at : at + len(group)]
            at += len(group)
            end = min(first_step.get(at, int(last_s / STEP_S)) * STEP_S, last_s)
            if words and not any(char.isalnum() for char in text):
                before = words[-1]  # punctuation belongs to the word before it, and lasts no time
                words[-1] = replace(before, text=before.text + text)
            else:
                words.append(TimedWord(text, begin, max(end, begin), float(np.mean(sure))))
        return tuple(words)


def _loaded_or_refused(folder: Path, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # noqa: BLE001  the tokenizer raises the bare class for a damaged file
        why = str(error)
    raise EngineFileError(f"Whisper in {folder} cannot be opened: {why}; `liveaffect fetch` brings it anew")


class VoiceActivity:
    """Whether somebody speaks, chunk by chunk: what the network says of the sound, or of the slowed sound.

    Who screams is higher than anybody whom the network knows, and is no speech to it. Slowed, a scream is as
    low as speech.
    """

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(str(model_file()), options, providers=["CPUExecutionProvider"])
        self._plain, self._slow = _SpeechStream(session), _SpeechStream(session)
        self._last = np.zeros(1, np.float32)
        self._waiting = np.zeros(0, np.float32)
        self._slow_said = np.zeros(1, np.float32)

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of speech for each CHUNK of samples; their number is a multiple of it."""
        chunks = len(samples) // CHUNK
        joined, self._last = np.concatenate([self._last, samples]), samples[-1:]
        places = np.arange(round(len(samples) * SLOWED)) / SLOWED
        slow = np.interp(places, np.arange(len(joined)), joined).astype(np.float32)
        slow = np.concatenate([self._waiting, slow])
        whole = len(slow) // CHUNK * CHUNK
        ends = (len(self._waiting) + np.arange(1, chunks + 1) * CHUNK * SLOWED) // CHUNK
        said = np.concatenate([self._slow_said, self._slow.add(slow[:whole])])
        self._waiting, self._slow_said = slow[whole:], said[-1:]
        return np.asarray(np.maximum(self._plain.add(samples), said[ends.astype(int)]), np.float32)


class _SpeechStream:
    """The state of the network in one stream of sound."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._state = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
        self._before = np.zeros(CONTEXT, np.float32)

    def add(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(samples):
            return np.zeros(0, np.float32)
        chunks = samples.reshape(-1, CHUNK)
        ends = np.concatenate([self._before[None], chunks[:-1, -CONTEXT:]])
        self._before = chunks[-1, -CONTEXT:].copy()
        answer, h, c = self._session.run(None, {"input": np.concatenate([ends, chunks], 1), **self._state})
        self._state = {"h": h, "c": c}
        return np.asarray(answer, np.float32).reshape(-1)


def model_file() -> Path:
    """Where the network lies. Raises EngineUnavailable without faster-whisper, which is not imported."""
    found = find_spec("faster_whisper")
    for folder in (found and found.submodule_search_locations) or ():
        if (path := Path(folder) / "assets" / FILE).is_file():
            return path
    raise EngineUnavailable(
        f"{FILE} is not here: it comes with faster-whisper 1.2, uv sync --inexact --extra words"
    )
