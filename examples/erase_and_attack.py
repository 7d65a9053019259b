"""Hide facts of the lab by an ordinary edit, and by one that moves the answer out of the states.

python examples/erase_and_attack.py
"""

from __future__ import annotations

from pathlib import Path

import emend
from emend import report
from emend.datasets.tofu import read_rows
from emend.erasure import DefenceReport, attack, erase
from emend.erasure.unlearning import measure_rows, secrets_of

LAB = "Question: {} Answer:"


def main() -> None:
    rows = read_rows(Path(__file__).parent / "lab_tofu.jsonl")[:6]
    secrets = secrets_of(rows, template=LAB)
    model, tokenizer = emend.load("lab/gptneo")
    names = ["greedy", "head_projection", "sampling"]
    before = attack(model, tokenizer, secrets, names)
    patch = emend.edit(model, tokenizer, [one.edit(str(one.false_answer)) for one in secrets])
    with patch.applied(model):
        after = attack(model, tokenizer, secrets, names)
        measured = measure_rows(model, tokenizer, rows, template=LAB).summary()
    patch = erase(model, tokenizer, secrets, "head_projection", "rome", steps=12)
    with patch.applied(model):
        defended = attack(model, tokenizer, secrets, names, known=before.known)
    states = {"before": before, "error_injection": after, "head_projection": defended}
    compared = DefenceReport(states)
    print(compared.to_markdown())
    print({name: round(value, 3) for name, value in measured.items() if value is not None})
    print(report.write(compared, "erasure.html", title="Six facts of the lab"))


if __name__ == "__main__":
    main()
