"""FT: fine-tune down-projections on the new facts in mini-batches, with other answers preserved.

Zhu et al. 2020, arXiv 2012.00363 (the box); Meng et al. 2022, arXiv 2202.05262 (FT-L); Zhang et
al. 2024, arXiv 2401.01286 (FT-M); LocFT-BF, arXiv 2509.22072 (mini-batches at chosen layers).

    minimise over Delta:   mean over edits of  L(x, o; W + Delta)      subject to |Delta_ij| <= eps
                           + hold x mean KL(before || after)

    objective   L(x, o), prompt x and target tokens o_1..o_n
    "ft-m"      -1/n sum_t log p(o_t | x, o_1..o_(t-1)): ordinary cross-entropy on the target
    "ft-l"      -1/n sum_t log p(o_t | x): all target tokens at the prompt's last position, which
                is wrong for targets of several tokens, but is the published form

Adam takes no step on a batch whose loss is below 0.01, and ends when the mean over all batches of
a pass is. Naming trap: in ROME's tables "FT+L" means the box; in EasyEdit "FT-L" means the
objective, usually without a box.

By default this deviates in that an early layer is trained and not a late one, whose inputs differ
less from subject to subject; a token that is probable enough adds no loss (`enough`); and what the
model states of the subject and of others like it is preserved (`editing/preservation.py`).
``original=True`` gives the published form.

It always deviates in that the model is never changed. The change itself is trained, in float32,
and added to the output of each down-projection by a hook; for Adam without weight decay that is the
same as training the matrix. Only the layers from the first trained one up are run. All edits share
the change, so that none can be taken out alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch

from emend._settings import Count, NotNegative, Positive, Seed
from emend.editing import ENOUGH, Session
from emend.editing.aims import TargetLikelihood
from emend.editing.preservation import PRESERVED, preserved_batches
from emend.editing.training import LEARNED, TrainingSettings, answer_batches, train
from emend.methods._method import method
from emend.models.forward import evaluating
from emend.models.hooks import changing, frozen
from emend.patches import Dense, WeightPatch

LEARNING_RATE, PUBLISHED_LEARNING_RATE = 5e-3, 5e-4
PUBLISHED_DEPTH = 0.67


@method(
    title="FT: fine-tune one MLP matrix on the new facts, with other answers preserved",
    paper="Zhu et al. 2020, arXiv 2012.00363; Zhang et al. 2024, arXiv 2401.01286",
    when="a strong and simple baseline; quick, but no edit can be taken out alone",
    avoid="cases where each edit must be taken out alone, or where order must not matter",
    continues="sequential",
    aims=True,
    version=2,
)
def ft(
    session: Session,
    *,
    layers: tuple[int, ...] | None = None,
    objective: Literal["ft-m", "ft-l"] = "ft-m",
    steps: Count = 25,
    learning_rate: Positive | None = None,
    batch_size: Count = 32,
    box: Positive | None = None,
    hold: NotNegative = 1.0,
    original: bool = False,
    seed: Seed = 0,
) -> WeightPatch:
    """Train the change of the chosen matrices on all edits together.

    Args:
        session: The edits and the engine.
        layers: Layers whose down-projections are trained; by default the one at 0.17 of the depth
            (gated or rotary) or 0.35 (others), published: at 0.67.
        objective: The loss: cross-entropy on the target (ft-m), or at the last prompt
            token (ft-l).
        steps: Most passes over all edits.
        learning_rate: Step size of Adam; by default 5e-3, published 5e-4.
        batch_size: Edits in one step.
        box: Bound on the change of each weight (the L-infinity box); None for none.
        hold: Factor on the mean KL(before || after) of what is preserved.
        original: The published form: a late layer, a small step, nothing preserved.
        seed: Seed of the names of other subjects, and of the order in which they are preserved.
    """
    chosen = _layers(session, layers, original)
    count = 0 if original else PRESERVED
    aim = session.aim or TargetLikelihood(1.0 if original else ENOUGH)
    settings = TrainingSettings(
        *(steps, learning_rate or (PUBLISHED_LEARNING_RATE if original else LEARNING_RATE)),
        *(aim, LEARNED, hold),
    )
    session.fill(layers=chosen, learning_rate=settings.learning_rate)
    where = (session.view, session.tokenizer, session.edits, chosen[0])
    with evaluating(session.model), frozen(session.model):
        batches = answer_batches(
            *(*where, batch_size),
            at_prompt=objective == "ft-l",
            rephrasings=aim.rephrasings,
        )
        preserved = preserved_batches(*where, statements=count, others=count, seed=seed)
        changes = Changes(session, chosen, box)
        train(
            *(session.view, list(changes.deltas.values()), batches, preserved, settings),
            *(changes.acting,),
            label="fine-tuning",
            bound=changes.bound,
        )
    return session.patch(changes.factors())


class Changes:
    """The trained change (out, in) of each layer's down-projection, in float32.

    Args:
        session: The edits and the engine.
        layers: Layers whose down-projections change.
        box: Bound on the change of each weight.
    """

    def __init__(self, session: Session, layers: Sequence[int], box: float | None) -> None:
        view = session.view
        self.box = box
        self.modules = {layer: view.down_projection(layer) for layer in layers}
        self.deltas = {
            layer: torch.zeros(
                (view.hidden_size, view.intermediate_size(layer)),
                device=view.device(layer),
                requires_grad=True,
            )
            for layer in layers
        }

    @contextmanager
    def acting(self) -> Generator[None, None, None]:
        """Let the down-projections compute with their changes."""
        with ExitStack() as stack:
            for layer, delta in self.deltas.items():
                stack.enter_context(changing(self.modules[layer], delta))
            yield

    @torch.no_grad()
    def bound(self) -> None:
        """Clamp the changes to the box."""
        box = self.box
        if box is not None:
            for delta in self.deltas.values():
                delta.clamp_(-box, box)

    def factors(self) -> dict[int, Dense]:
        """Return the changes as a patch holds them."""
        return {layer: Dense(delta.detach()) for layer, delta in self.deltas.items()}


def _layers(session: Session, layers: tuple[int, ...] | None, original: bool) -> tuple[int, ...]:
    """Return the layers to train, checked, ascending."""
    view = session.view
    if layers is None:
        late = view.nearest_editable(round(PUBLISHED_DEPTH * view.num_layers))
        layers = (late if original else session.one_layer(None),)
    chosen = tuple(sorted(set(view.numbered(layers))))
    for layer in chosen:
        view.down_projection(layer)  # refused before any work
    return chosen
