"""What one face looks like at rest, learnt while it rests: the measure for its smallest smiles.

A network that knows no face by name calls small smiles neutral, though on one and the same face every smile
scores higher than rest. So the log-odds of every label against neutral are averaged over the looks at which
the face is believed to be neutral, and what is odd about this face is taken out of its logits: a smile is
judged by how far it rises above this face, and a face that looks a little sad at rest is not called sad.

An expression that lasts is never taken for rest: only looks believed to be neutral teach, so somebody who
smiles for ten minutes stays happy, and a face that was never seen neutral is judged like everybody's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from liveaffect.engines.recipe import LABELS
from liveaffect.realtime.pooling import Evidence, Pooled

NEUTRAL = LABELS.index("neutral")
USUAL = 2.5
"""So many nats every label stands below neutral on a face at rest, once what is odd about it is taken out."""
MOST_LOWERED = 2.0
MOST_RAISED: dict[str, float] = {"happy": 6.0}
"""Small smiles are missed for want of this. Of no other label it was measured that raising helps."""
DOUBT_S = 0.5
"""Rest of this length is trusted by half."""
MEMORY_S = 60.0
"""Later looks are averaged over this time: light and posture change, faces hardly."""
SURE = 0.6
"""From this probability of neutral on a look teaches."""
ANYBODY, FULL = -5.5, 5.5
"""Log-odds against neutral of an expression on a face at rest that nobody knows yet, and when fully shown."""

_LOWERED = np.full(len(LABELS), MOST_LOWERED)
_RAISED = np.array([MOST_RAISED.get(label, 0.0) for label in LABELS])


class Rest:
    """Of one face. Dies with the track; one caller."""

    def __init__(self, temperature: float) -> None:
        """`temperature` makes log-odds out of logits."""
        self._temperature = temperature
        self._odds = np.full(len(LABELS), ANYBODY)
        self._shift = np.zeros(len(LABELS))
        """Added to log-odds: what is odd about this face, with the other sign."""
        self.seen_s = 0.0
        """How long the face was seen at rest."""

    @property
    def trust(self) -> float:
        """How far what was learnt is believed, 0 to 1."""
        return self.seen_s / (self.seen_s + DOUBT_S)

    def taken_out(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits without what is odd about this face."""
        return np.asarray(logits + self._temperature * self._shift, np.float32)

    def learn(self, item: Evidence, covers_s: float, believed: Pooled) -> None:
        """Take in one look as the network judged it; `believed` says whether the face rests."""
        against = (believed.logits - believed.logits[NEUTRAL]).astype(np.float64) / self._temperature
        weight = covers_s * item.share
        if SURE * float(np.exp(against).sum()) > 1.0 or weight <= 0.0:
            return
        self.seen_s += weight
        odds = (item.logits - item.logits[NEUTRAL]) / self._temperature
        self._odds += min(1.0, weight / min(self.seen_s, MEMORY_S)) * (odds - self._odds)
        wanted = -USUAL - self._odds
        self._shift = self.trust * np.minimum(np.maximum(wanted, -_LOWERED), _RAISED)
        self._shift[NEUTRAL] = 0.0

    def strength(self, believed: Pooled) -> tuple[float, ...]:
        """How far the face has come from rest to a full expression of every label, 0 to 1; 0 for neutral."""
        raised = (believed.logits - believed.logits[NEUTRAL]).astype(np.float64) / self._temperature
        # Of this face as the network sees it, without what was taken out.
        rest = self.trust * self._odds + (1.0 - self.trust) * ANYBODY
        way = np.clip((raised - self._shift - rest) / (FULL - rest), 0.0, 1.0)
        way[NEUTRAL] = 0.0
        return tuple(way.tolist())
