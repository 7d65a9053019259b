"""What each command does when all is well, with a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer.main

from emend import __version__
from emend.cli import whole_app
from emend.datasets import read_edits
from emend.patches import load_patch


def _commands():
    for name, command in typer.main.get_command(whole_app()).commands.items():
        nested = getattr(command, "commands", None)
        yield from ((name, one) for one in nested) if nested else ((name,),)


COMMANDS = tuple(_commands())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_json_and_snake_case_flags(emend, command):
    outcome = emend(*command, "--help")
    assert outcome.status == 0
    assert "Examples:\n    emend " + " ".join(command) in outcome.out
    assert "--json" in outcome.out or command[0] in ("serve", "studio")  # these run on
    # What other programs are told in an example has their own flags.
    own = "\n".join(line for line in outcome.out.splitlines() if "llama-server" not in line)
    flags = [word for word in own.split() if word.startswith("--")]
    assert not [flag for flag in flags if "-" in flag[2:]]


def test_version_and_bare_call(emend):
    assert emend("--version").out.strip() == __version__
    bare = emend()
    assert bare.status == 2
    assert "Usage: emend" in bare.err


def test_methods_are_listed_and_shown(emend):
    listed = emend("methods", "--json").data["methods"]
    assert {"ft", "rome"} <= {method["name"] for method in listed}
    assert all(method["title"] and method["when"] and method["paper"] for method in listed)
    table = emend("methods").out
    assert "rome" in table
    for method in listed:
        shown = emend("methods", method["name"], "--json").data
        assert shown["settings"]
        assert all(setting["help"] for setting in shown["settings"]), method["name"]
    assert "clamp" in emend("methods", "rome").out
    ways = {method["name"]: (method["order_invariant"], method["continues"]) for method in listed}
    assert ways["memit"] == (True, "joint")
    assert ways["kn"] == (True, "additive")
    assert ways["ft"] == (False, "sequential")
    assert "order matters" in emend("methods", "ft").out
    for word in ("order-invariant", "continues", "joint", "sequential"):
        assert word in table


def test_edit_goes_on_from_a_patch(emend, tmp_path, model_directory, patch_directory):
    more = ("--prompt", "{} lives in", "--subject", "Tom Berg", "--target", "Lyon")
    flags = ("edit", "--model", model_directory, *more, "--set", "steps=3")
    both = (*flags, "--previous", patch_directory, "--output_path", tmp_path / "both")
    outcome = emend(*both)
    assert f"3 with those of {patch_directory}" in outcome.out.replace("\n", " ")
    assert {edit.subject for edit in load_patch(tmp_path / "both").edits} == {
        *("Marie Curie", "Anna Berg", "Tom Berg")
    }
    over = emend(*flags, "--previous", tmp_path / "both", "--output_path", tmp_path / "both")
    assert over.status == 0  # a patch may be replaced by what goes on from it
    found = emend(*both, "--json").data
    assert (found["edits"], found["edits_held"]) == (1, 3)
    emend(*flags, "--previous", tmp_path / "none", "--output_path", tmp_path / "p").is_one_line(
        "none"
    )
    emend(*flags[:-2], *both[len(flags) :], "--method", "kn").is_one_line(
        "previous was made by rome", "expected kn"
    )


def test_edit_by_flags_and_settings_from_everywhere(emend, tmp_path, model_directory):
    (tmp_path / "rome.yaml").write_text("steps: 7\nclamp: 2\n")
    flags = ("--prompt", "{} was born in", "--subject", "Marie Curie", "--target", "Paris")
    result = emend(
        *("edit", "--model", model_directory, "--output_path", tmp_path / "patch", *flags),
        *("--config", tmp_path / "rome.yaml", "--config", "steps=5", "--set", "steps=2", "--json"),
    ).data
    assert result["edits"] == 1
    assert result["seconds_per_edit"] > 0
    patch = load_patch(result["output_path"])
    assert patch.edits[0].target == "Paris"
    assert patch.method == "rome"
    assert patch.config["steps"] == 2
    assert patch.config["clamp"] == 2.0


def test_edit_writes_a_patch_and_says_how_to_go_on(emend, tmp_path, model_directory, edits_file):
    outcome = emend(
        *("edit", "--model", model_directory, "--edits", edits_file, "--limit", 1),
        *("--set", "steps=2", "--output_path", tmp_path / "patch"),
    )
    assert outcome.status == 0
    assert "1 edit by rome" in outcome.out
    assert "emend eval" in outcome.out
    assert [edit.id for edit in load_patch(tmp_path / "patch").edits] == ["curie"]


def test_eval_without_a_file_asks_about_the_edits_in_the_patch(
    emend, model_directory, patch_directory
):
    flags = ("eval", "--model", model_directory, "--patch", patch_directory)
    assert emend(*flags, "--json").data["summary"]["reliability"]["n"] == 2
    assert "give --edits with probes" in emend(*flags, "--probes", "given").out


def test_eval_writes_records_and_prints_a_table(
    emend, tmp_path, model_directory, patch_directory, edits_file
):
    outcome = emend(
        *("eval", "--model", model_directory, "--patch", patch_directory),
        *("--edits", edits_file, "--output_path", tmp_path / "results", "--batch_size", 4),
    )
    assert outcome.status == 0, outcome.err
    for word in ("reliability", "generalization", "neighborhood", "before", "after"):
        assert word in outcome.out
    assert {file.name for file in (tmp_path / "results").iterdir()} == {
        "records.jsonl",
        "summary.json",
    }
    records = (tmp_path / "results" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(record)["edit"] for record in records} == {"curie", "berg"}


def test_eval_on_other_edits(emend, tmp_path, model_directory, patch_directory):
    path = tmp_path / "other.jsonl"
    path.write_text('{"prompt": "{} is in", "subject": "Lyon", "target": "Denmark", "id": "x"}\n')
    result = emend(
        *("eval", "--model", model_directory, "--patch", patch_directory),
        *("--edits", path, "--json"),
    ).data
    assert result["edits"] == 1
    assert set(result["summary"]["reliability"]) >= {"before", "after", "protocols"}


def test_lab_world(emend):
    counts = emend("lab", "world", "--json").data
    assert counts["counts"]["person"] >= 100
    person = counts["examples"]["person"]
    about = emend("lab", "world", "--about", person, "--json").data
    assert about["name"] == person
    assert about["facts"]
    assert person in emend("lab", "world", "--about", person).out


def test_lab_export_corpus(emend, tmp_path):
    outcome = emend("lab", "export", "corpus", "--limit", 20, "--output_path", tmp_path / "c")
    assert outcome.status == 0
    lines = (tmp_path / "c" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    assert all(json.loads(line)["text"] for line in lines)


def test_lab_train_two_steps(emend, tmp_path):
    flags = ("--arch", "qwen3", "--steps", 2, "--output_path", tmp_path / "m", "--json")
    assert emend("lab", "train", *flags).data["arch"] == "qwen3"
    assert (tmp_path / "m" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["lab/gptneo", "lab/qwen3"])
def test_lab_models(emend, tmp_path, name):
    listed = {model["name"]: model for model in emend("lab", "list", "--json").data["models"]}
    if name not in listed:
        pytest.skip(f"{name} does not ship yet")
    assert listed[name]["megabytes"] < 16
    assert emend("lab", "card", name, "--json").data
    assert name in emend("lab", "card", name).out
    assert emend("lab", "export", name, "--output_path", tmp_path / "copy").status == 0
    assert (tmp_path / "copy" / "config.json").exists()
    emend("lab", "export", name, "--output_path", tmp_path / "copy").is_one_line("not empty")


def test_lab_export_edits(emend, tmp_path):
    datasets = pytest.importorskip("emend.datasets.lab", reason="the lab's edits are not there yet")
    assert datasets
    out = tmp_path / "edits"
    assert emend("lab", "export", "edits", "--limit", 3, "--output_path", out).status == 0
    assert len(read_edits(out / "edits.jsonl")) == 3


def test_help_and_mistakes_load_no_torch():
    code = (
        "import sys, emend.cli; "
        "statuses = [emend.cli.run(['edit', '--help']), emend.cli.run(['edit', '--edits', 'x.csv',"
        " '--model', 'm', '--output_path', 'o'])]; "
        "assert statuses == [0, 2], statuses; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_dash_m_and_exit_status():
    command = [sys.executable, "-m", "emend", "methods", "nonsense"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_an_edit_in_several_languages_by_flags(emend, model_directory, tmp_path):
    model = model_directory
    translation = {"language": "zh", "prompt": "{} 的 capital:", "subject": "中国"}
    single = ("--prompt", "The capital of {} is", "--subject", "Poland", "--target", "Lyon")
    missing = emend(
        "edit", "--model", model, *single, "--translation", json.dumps(translation),
        "--output_path", tmp_path / "patch",
    )  # fmt: skip
    assert missing.status == 2
    assert "translations[0].target is missing" in missing.err
    broken = emend("ledger", "add", tmp_path / "facts.db", *single, "--translation", "zh")
    assert broken.status == 2
    whole = json.dumps({**translation, "target": "Lyon"})
    found = emend(
        "edit", "--model", model, *single, "--language", "en", "--translation", whole,
        "--method", "ft", "--set", "steps=2", "--probes", "none", "--json",
        "--output_path", tmp_path / "patch",
    ).data  # fmt: skip
    assert found["edits"] == found["edits_held"] == 1
    assert [one["language"] for one in found["outcomes"]] == ["en", "zh"]
    assert found["card"]["edits"] == [found["outcomes"][0]["edit"], found["outcomes"][1]["edit"]]
    emend("ledger", "init", tmp_path / "facts.db")
    added = emend("ledger", "add", tmp_path / "facts.db", *single, "--translation", whole, "--json")
    assert added.data["added"][0]["translations"][0]["subject"] == "中国"
    evaluated = emend("eval", "--model", model, "--patch", tmp_path / "patch", "--probes", "none")
    assert "in zh" in evaluated.out
