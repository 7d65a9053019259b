from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from tests.reference import rome as reference
from tests.tiny import TEXT, tiny_model, tiny_tokenizer

from emend import _io, _tensors
from emend.editing import collecting, covariance, memory, subject_keys, tensor_cache
from emend.editing.collecting import collect_covariance
from emend.editing.covariance import KeyCovariance, key_covariance
from emend.editing.sources import TextFile, Texts, texts_for
from emend.edits import Edit
from emend.errors import InvalidInput, NotEnoughMemory, NumericalFailure
from emend.models import ModelView
from emend.models.placing import stored_weights

ROOT = Path(__file__).resolve().parents[2]
PACKED = Texts(TEXT, packed=True)


def plainly_packed(view, tokenizer, layer, window, limit=None):
    """Sum of k k^T over windows of the joined texts, each run alone; and the number of tokens."""
    joined = [i for text in TEXT for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    joined = joined[:limit]
    seen = []
    site = view.down_projection(layer)
    handle = site.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad():
        for start in range(0, len(joined), window):
            view.model(torch.tensor([joined[start : start + window]]))
    handle.remove()
    keys = torch.cat([each.reshape(-1, each.shape[-1]) for each in seen]).double()
    return keys.T @ keys / len(joined), len(joined)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama", "gpt_neo"])
def test_padding_is_left_out(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    found = collect_covariance(view, tokenizer, TEXT, [0, 2], batch_size=1)
    for layer, moment in found.items():
        site = view.down_projection(layer)
        expected = reference.second_moment(model, site, tokenizer, TEXT)
        assert torch.allclose(moment.matrix, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
        assert moment.count == sum(len(tokenizer(text)["input_ids"]) for text in TEXT)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "bloom", "mistral", "gemma2"])
@pytest.mark.parametrize("limit", [None, 70])
def test_windows_are_cut_from_joined_documents(architecture, limit) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    view = ModelView(model)
    found = collect_covariance(
        view, tokenizer, PACKED, [0, 2], window=16, max_tokens=limit, dtype=torch.float64
    )
    for layer, moment in found.items():
        expected, count = plainly_packed(view, tokenizer, layer, 16, limit)
        assert moment.count == count
        assert torch.allclose(moment.matrix, expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(moment.matrix, moment.matrix.T)


def test_rows_of_padding_that_see_nothing_do_no_harm() -> None:
    # In float64 Gemma 2's softmax over nothing is NaN, which 0 * NaN would spread.
    model, tokenizer = tiny_model("gemma2", dtype=torch.float64)
    view = ModelView(model)
    found = collect_covariance(view, tokenizer, TEXT, [2], dtype=torch.float64)[2]
    expected = reference.second_moment(model, view.down_projection(2), tokenizer, TEXT)
    assert torch.allclose(found.matrix, expected.double(), rtol=1e-4, atol=1e-6)
    edits = [
        Edit("{} is", "Rome", "b"),
        Edit("In the middle of a long sentence, {} is", "Oslo", "b"),
    ]
    assert subject_keys(view, tokenizer, edits, ("{}",), [2])[2].keys.isfinite().all()


def test_panels_of_large_keys_make_the_whole_matrix() -> None:
    model, tokenizer = tiny_model("llama", inner=600)
    view = ModelView(model)
    found = collect_covariance(view, tokenizer, PACKED, [1], window=32)[1].matrix
    expected, _ = plainly_packed(view, tokenizer, 1, 32)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_in_float64_of_keys_in_less(dtype) -> None:
    model, tokenizer = tiny_model("gpt2", dtype=dtype)
    view = ModelView(model)
    found = collect_covariance(view, tokenizer, PACKED, [1], window=32, dtype=torch.float64)[
        1
    ].matrix
    expected, _ = plainly_packed(view, tokenizer, 1, 32)
    assert found.dtype == torch.float64
    assert torch.allclose(
        found, expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4
    )


def test_one_pass_for_all_layers_gives_what_each_alone_gives() -> None:
    model, tokenizer = tiny_model("qwen3")
    view = ModelView(model)
    together = collect_covariance(view, tokenizer, PACKED, [0, 1, 3], window=16)
    for layer, moment in together.items():
        alone = collect_covariance(view, tokenizer, PACKED, [layer], window=16)[layer]
        assert torch.equal(moment.matrix, alone.matrix)


def test_pass_stops_at_the_last_layer_wanted() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    model.model.layers[1].register_forward_hook(lambda *_: pytest.fail("ran too far"))
    collect_covariance(view, tokenizer, TEXT, [0, 1])


def test_what_was_collected_is_kept(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    first = collect_covariance(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    monkeypatch.setattr(collecting, "_collect", lambda *_: pytest.fail("collected again"))
    again = collect_covariance(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    assert torch.equal(first.matrix, again.matrix)
    assert first.describe() == again.describe()


@pytest.mark.parametrize(
    "change",
    [
        *("weights", "configuration", "tokenizer", "texts", "packed", "window", "layer"),
        *("count", "dtype"),
    ],
)
def test_anything_that_matters_is_in_the_key(change, tmp_path) -> None:
    """Fault 4: a second tokenizer was served the first one's matrix."""
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    settings = {"max_tokens": None, "window": 16, "dtype": torch.float32, "cache": tmp_path}
    texts = TEXT if change == "packed" else PACKED
    collect_covariance(view, tokenizer, texts, [1], **settings)
    changed = {"count": {"max_tokens": 40}, "dtype": {"dtype": torch.float64}}
    changed["window"] = {"window": 8}
    if change == "weights":
        with torch.no_grad():
            model.transformer.h[0].mlp.c_fc.weight.mul_(1.5)
    elif change == "configuration":
        model.config.layer_norm_epsilon = 0.1
    elif change == "tokenizer":
        tokenizer = tiny_tokenizer("bytes_bos")
    elif change == "texts":
        texts = Texts(TEXT[:-1], packed=True)
    elif change == "packed":
        texts = PACKED
    layer = 2 if change == "layer" else 1
    collect_covariance(view, tokenizer, texts, [layer], **settings | changed.get(change, {}))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_broken_files_are_made_again(tmp_path) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    first = collect_covariance(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    again = collect_covariance(view, tokenizer, TEXT, [1], cache=tmp_path)[1]
    assert torch.equal(first.matrix, again.matrix)


def test_texts_are_taken_until_there_are_enough_tokens() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXT]
    found = collect_covariance(view, tokenizer, TEXT, [1], max_tokens=lengths[0] + 1)[1]
    assert found.count == lengths[0] + lengths[1]


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    for texts in ([], Texts((" ", "\n"), packed=True)):
        with pytest.raises(InvalidInput, match="no texts"):
            collect_covariance(view, tokenizer, texts, [1])
    for setting in ("window", "batch_size", "max_tokens"):
        with pytest.raises(InvalidInput, match="is 0, expected at least 1"):
            collect_covariance(view, tokenizer, TEXT, [1], **{setting: 0})
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.bias[0] = torch.nan
    with pytest.raises(NumericalFailure, match="not finite"):
        collect_covariance(view, tokenizer, TEXT, [1])


def test_what_will_not_fit_is_not_begun(monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    monkeypatch.setattr(memory, "available", lambda _device: 1000)
    with pytest.raises(NotEnoughMemory, match=r"1\.0 kB are free on cpu: .* ignore_memory"):
        collect_covariance(view, tokenizer, TEXT, [1])
    assert collect_covariance(view, tokenizer, TEXT, [1], ignore_memory=True)


KILLED = """
import sys, time, torch
from pathlib import Path
from tests.tiny import tiny_model
from emend.editing.collecting import collect_covariance
from emend.editing.sources import TextFile
from emend.models import ModelView
from emend.models.placing import stored_weights
torch.set_num_threads(1)
model, tokenizer = tiny_model("gpt2")
view = ModelView(model)
model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
collect_covariance(view, tokenizer, TextFile(Path(sys.argv[1])), [0, 2], window=16, batch_size=1,
               seconds=0.0, cache=Path(sys.argv[2]))
"""


class Watched(TextFile):
    """Notes from which document on it is read."""

    skips: list[int] = []  # noqa: RUF012

    def documents(self, skip=0):
        self.skips.append(skip)
        return super().documents(skip)


def test_a_killed_run_goes_on_and_gives_the_same(tmp_path) -> None:
    texts, cache = tmp_path / "texts.txt", tmp_path / "cache"
    texts.write_text("\n\n".join(f"{text} {number}" for number in range(30) for text in TEXT))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    command = [sys.executable, "-c", KILLED, str(texts), str(cache)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(noted(file) > 0 for file in cache.glob("*.partial")):
            break
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(cache.glob("*.partial"))) == 1
    assert not list(cache.glob("*.safetensors"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, tokenizer = tiny_model("gpt2")
    view, source = ModelView(model), Watched(texts)
    settings = {"window": 16, "batch_size": 1}
    went_on = collect_covariance(view, tokenizer, source, [0, 2], cache=cache, **settings)
    assert source.skips[0] > 0
    whole = collect_covariance(view, tokenizer, TextFile(texts), [0, 2], **settings)
    torch.set_num_threads(threads)
    for layer in (0, 2):
        assert torch.equal(went_on[layer].matrix, whole[layer].matrix)
        assert went_on[layer].count == whole[layer].count
    assert not [file for file in cache.iterdir() if file.suffix != ".safetensors"]


def noted(file: Path) -> int:
    """How many documents a half run has taken."""
    return (collecting.tensor_cache.read_note(file) or {}).get("documents", 0)


def test_an_interrupted_pass_over_given_texts_goes_on(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    whole = collect_covariance(view, tokenizer, TEXT * 20, [1], batch_size=1)[1]
    run, batches = collecting.Sums.run, []

    def interrupted(self, batch):
        batches.append(batch)
        if len(batches) == 4:
            raise KeyboardInterrupt
        run(self, batch)

    monkeypatch.setattr(collecting.Sums, "run", interrupted)
    settings = {"cache": tmp_path, "batch_size": 1, "seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        collect_covariance(view, tokenizer, TEXT * 20, [1], **settings)
    again = collect_covariance(view, tokenizer, TEXT * 20, [1], **settings)[1]
    assert torch.equal(again.matrix, whole.matrix)
    assert len(batches) == 1 + -(-len(TEXT * 20) // 16)


def test_factors_are_kept_and_weights_hashed_once(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    calls = []
    hashing = _tensors._computed
    monkeypatch.setattr(_tensors, "_computed", lambda one: calls.append(1) or hashing(one))
    keys = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    prior = key_covariance(view, tokenizer, [0, 1, 2], texts_for(view, tokenizer, TEXT))
    first = [prior.inverse(layer, 1e-4).whiten(keys) for layer in (0, 1, 2)]
    assert len(calls) == len(dict(stored_weights(model)))  # each weight once
    monkeypatch.setattr(covariance, "inverse", lambda *_: pytest.fail("factored again"))
    monkeypatch.setattr(covariance, "read_covariance", lambda *_: pytest.fail("read without need"))
    prior = key_covariance(view, tokenizer, [0, 1, 2], texts_for(view, tokenizer, TEXT))
    again = [prior.inverse(layer, 1e-4).whiten(keys) for layer in (0, 1, 2)]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert len(calls) == len(dict(stored_weights(model)))
    unkept = KeyCovariance({}, collect_covariance(view, tokenizer, TEXT, [1]))
    monkeypatch.undo()
    assert torch.allclose(unkept.inverse(1, 1e-4).whiten(keys), first[1], rtol=1e-5)


@pytest.mark.parametrize("place", ["below a file", "read only"])
def test_a_cache_that_cannot_be_written_is_said_once(place, tmp_path, monkeypatch) -> None:
    """Fault B6: the edit failed."""
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    root = tmp_path / "cache"
    if place == "below a file":
        root.write_text("")
    else:
        (root / "moments").mkdir(parents=True)
        monkeypatch.setattr(_io, "name_beside", lambda path: Path("/proc/emend/none"))
    monkeypatch.setenv("EMEND_CACHE", str(root))
    monkeypatch.setattr(tensor_cache, "_warned", set())
    keys = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prior = key_covariance(view, tokenizer, [0, 2], texts_for(view, tokenizer, TEXT * 9))
        found = [prior.inverse(layer, 1e-4).whiten(keys) for layer in (0, 2)]
        collect_covariance(
            view, tokenizer, TEXT, [1], seconds=0.0, cache=collecting.cache_directory()
        )
    assert ["EMEND_CACHE" in str(one.message) for one in said] == [True]
    unkept = KeyCovariance({}, collect_covariance(view, tokenizer, TEXT * 9, [0, 2]))
    for layer, one in zip((0, 2), found, strict=True):
        assert torch.equal(unkept.inverse(layer, 1e-4).whiten(keys), one)
    assert not prior.on_disk
    assert prior.note["tokens"] == sum(len(tokenizer(t)["input_ids"]) for t in TEXT * 9)


def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, monkeypatch) -> None:
    """Fault B6."""
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    key_covariance(view, tokenizer, [1], texts_for(view, tokenizer, TEXT))
    monkeypatch.setattr(_io, "name_beside", lambda path: Path("/proc/emend/none"))
    monkeypatch.setattr(collecting, "_collect", lambda *_: pytest.fail("collected again"))
    assert key_covariance(view, tokenizer, [1], texts_for(view, tokenizer, TEXT)).on_disk == (1,)
