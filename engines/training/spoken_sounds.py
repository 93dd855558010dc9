"""Speech without labels that is made here: espeak-ng's voices in many languages, paces and pitches.

The student of Whisper's layers needs speech, not labels, and more kinds of it than a few corpora of actors
hold. Synthetic voices sound like nobody, but their vowels, pitches and pauses are many.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.training.corpora_voices import Take
from liveaffect.engines.training.sound_store import decode

SENTENCES = {
    "en": "I told you twice already, the train leaves at seven and nobody is ready.",
    "en-us": "Well, that is the best news I have heard all week, come in and sit down!",
    "en-gb-scotland": "Mind the step there, it has been raining since the early morning.",
    "de": "Warum hast du mir nicht gesagt, dass der Schlüssel unter der Matte liegt?",
    "fr": "Je ne sais pas où il est allé, mais il reviendra certainement demain soir.",
    "es": "No me digas que otra vez perdiste las llaves de la casa en el mercado.",
    "it": "Oggi il mare è calmo e il cielo è così chiaro che si vedono le isole.",
    "pl": "Nie wiem, dlaczego nikt nie otworzył okna, przecież jest tu gorąco.",
    "pt": "A menina correu pela rua gritando que a chuva finalmente tinha chegado.",
    "nl": "Ik heb de hele dag gewacht en niemand heeft mij iets gevraagd.",
    "sv": "Han satt vid fönstret och räknade båtarna som kom in i hamnen.",
    "ru": "Завтра утром мы поедем к бабушке, если дорога будет сухая.",
    "cs": "Včera večer jsme dlouho mluvili o tom, co bude na jaře.",
    "tr": "Bu sabah pazarda taze ekmek ve çok güzel üzümler var.",
    "hi": "कल शाम को हम नदी के किनारे बहुत देर तक बैठे रहे।",
    "cmn": "今天早上我在公园里看见一只很小的猫。",
    "id": "Saya tidak tahu siapa yang datang tadi malam dengan mobil merah.",
    "fi": "Talvella järvi jäätyy ja lapset luistelevat koulun jälkeen.",
}
VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+whisper", "+croak")


def made(count: int, seed: int) -> Iterator[NDArray[np.float16]]:
    """So many sentences, none if espeak-ng is not installed; the same seed makes the same ones."""
    program = shutil.which("espeak-ng")
    if program is None:
        return
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "said.wav"
        for _ in range(count):
            language = str(rng.choice(list(SENTENCES)))
            voice = language + str(rng.choice(VARIANTS))
            pace, pitch = str(int(rng.integers(110, 240))), str(int(rng.integers(10, 95)))
            command = [program, "-v", voice, "-s", pace, "-p", pitch, "-w", str(out), SENTENCES[language]]
            subprocess.run(command, check=True, capture_output=True)
            yield decode(out.read_bytes(), Take("espeak", voice, voice, "neutral", out))
