"""MEMIT: write many facts at once, spread over several layers, by least squares.

Meng et al. 2022, "Mass-Editing Memory in a Transformer", arXiv 2210.07229.

    Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,    R_l = (z - h) / (L - l + 1)   (eq. 14, 20)

    paper     here                       what
    z_i       targets                    target values of the last edited layer's output
    h_i       `LayerwiseReplay.read`     that output with the lower layers edited
    k_i       keys                       keys at the subject's last token, over contexts
    C_l       session.inverse            covariance of all keys
    lambda    cov_weight                 tokens of text that each edit is weighed against

Deviations: values are optimised as by ROME here (`methods.rome`), with the model's statements of
the subject preserved, and an edit is written at the keys of all contexts (docs/defaults.md); all
values are optimised on the unedited model and edits are sorted by id, so that the patch is a
function of the set of edits; C has a ridge, and systems are solved in float64 on their smaller
side; lambda is by default in proportion to the key's length, since k^T C^-1 k of a usual key is
that length (the published 15,000 is 0.9 times the intermediate size of GPT-J, and 20,000 is 3.1
times that of GPT-2 XL). Where a model puts a norm between MLP and residual stream (Gemma 2,
OLMo 2), one layer is edited, at that MLP's output.
"""

from __future__ import annotations

from emend._settings import NotNegative, Whole
from emend.editing import NORM_PENALTY, Search, Session
from emend.methods._method import method
from emend.patches import WeightPatch


@method(
    title="MEMIT: many facts at once, spread over several layers by least squares",
    paper="Meng et al. 2022, arXiv 2210.07229",
    when="from ten to some thousand facts at once; the same patch in whatever order they come",
    avoid="one or two facts, for which rome is as good and changes one matrix alone",
    continues="joint",
    order_invariant=True,
    by_subject=True,
    aims=True,
)
def memit(
    session: Session,
    search: Search = Search(),
    *,
    layers: tuple[int, ...] | None = None,
    cov_weight: NotNegative | None = None,
    preserve_factor: NotNegative = 0.3,
    others: Whole = 0,
    original: bool = False,
) -> WeightPatch:
    """Optimise a target value for each edit and write all of them layer by layer.

    Args:
        session: The edits and the engine.
        search: How values are optimised.
        layers: Layers to edit; by default five ending at 0.27 (gated or rotary) or 0.35 of the
            depth.
        cov_weight: Lambda; by default 0.1 times the intermediate size (published: 15000 for
            GPT-J, 20000 for GPT-2 XL).
        preserve_factor: Factor on the mean KL(before || after) of what the model states of the
            subject.
        others: Most other subjects for each edit, named by the model, whose values are written as
            they are: neighbours then move less (docs/erasing.md).
        original: The published form: Adam, nothing preserved, written at the mean key.
    """
    layers = session.several_layers(layers)
    session.prepare(layers, search)
    site = session.site(layers[-1])
    settings = session.search_settings(
        search,
        site,
        published=original,
        share_subject=True,
        norm_penalty=NORM_PENALTY,
        preserve_factor=preserve_factor,
    )
    targets = session.target_values(layers[-1], settings, site)  # (E, hidden_size)
    write = session.ridge_writer(cov_weight)
    changes = session.distribute(targets, layers, write, site, all_keys=not original, others=others)
    return session.patch(changes, layers=layers)
