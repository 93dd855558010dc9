"""Fits the shipped sort of fusion to pairs of answers.

Two temperatures come first, so that both modalities promise what they keep; then four numbers say how far to
believe two opinions that come together. They are learnt from all pairs, whole and with either modality taken
away, so that a missing one is nothing new in use.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from liveaffect.engines.model import presets
from liveaffect.engines.model.fusion import Fusion, FusionEvidence, LateMaskedFusion
from liveaffect.engines.protocol import VECTOR
from liveaffect.engines.recipe import LABELS
from liveaffect.engines.training.pairs import balanced_weights

PRESET = "late-masked"
BOTH, FACE, VOICE = (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
CONDITIONS = {"both": BOTH, "voice blanked": FACE, "face blanked": VOICE}
EPOCHS, BLANKED_SHARE = 25, 0.5
"""Steps, and the share of the pairs that lose one modality."""
_SMALL = 1e-3
"""What a learnt number costs by its square, so that one that changes nothing stays zero."""


def evidence_of(
    face: NDArray[np.float32], voice: NDArray[np.float32], mask: tuple[float, float, float]
) -> FusionEvidence:
    """The fusion's inputs for takes by the logits of both; a fusion of opinions looks at no vector."""
    count = len(face)
    nothing = torch.zeros(count, VECTOR)
    return FusionEvidence(
        nothing,
        nothing,
        nothing,
        nothing,
        torch.from_numpy(np.ascontiguousarray(face)),
        torch.from_numpy(np.ascontiguousarray(voice)),
        torch.zeros(count, len(LABELS)),
        torch.tensor([mask]).expand(count, -1),
    )


def fit_late_masked(
    given: FusionEvidence,
    truth: NDArray[np.int64],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    blanked: float = BLANKED_SHARE,
    honest: int | None = None,
) -> LateMaskedFusion:
    """A fusion learnt from pairs, in evaluation mode; temperatures are fitted on the first `honest`."""
    network, wanted = presets.build("fusion", PRESET, seed=seed), torch.from_numpy(truth)
    assert isinstance(network, LateMaskedFusion)
    for at, logits in enumerate((given.face_logits, given.voice_logits)):
        network.temperature[at] = fusion_temperature(logits[:honest], wanted[:honest])
    settle(network, given, wanted, epochs=epochs, blanked=blanked)
    return network.eval()


def settle(
    network: Fusion, given: FusionEvidence, truth: Tensor, *, epochs: int = EPOCHS, blanked: float
) -> None:
    """A handful of numbers is learnt from all pairs at once, whole and with either modality blanked."""
    weight = balanced_weights(truth)
    kept = [p for p in network.parameters() if p.requires_grad]
    shares = {BOTH: 1.0 - blanked, FACE: blanked / 2, VOICE: blanked / 2}
    masks = {mask: torch.tensor([mask]).expand(len(truth), -1) for mask, share in shares.items() if share}
    optimiser = torch.optim.LBFGS(kept, max_iter=epochs, line_search_fn="strong_wolfe")

    def price() -> Tensor:
        optimiser.zero_grad()
        total = _SMALL * torch.stack([(p**2).sum() for p in kept]).sum()
        for mask, tensor in masks.items():
            answer = network(*given._replace(mask=tensor))
            total = total + shares[mask] * functional.cross_entropy(answer.logits, truth, weight=weight)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(price)  # type: ignore[no-untyped-call]


def fusion_temperature(logits: Tensor, truth: Tensor, *, balanced: bool = True) -> float:
    """What logits must be divided by so that they promise as much as they keep.

    `balanced`: every label counts the same however often it occurs.
    """
    candidates = torch.logspace(-1, 1, 401)
    weight = balanced_weights(truth) if balanced else None
    losses = [functional.cross_entropy(logits / one, truth, weight=weight) for one in candidates]
    return float(candidates[int(torch.stack(losses).argmin())])


def probabilities(network: Fusion, given: FusionEvidence) -> NDArray[np.float64]:
    """(n, 7): what a fusion says."""
    with torch.inference_mode():
        return np.asarray(network(*given).logits.double().softmax(1).numpy())
