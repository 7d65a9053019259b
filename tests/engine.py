"""llama.cpp in this process, by the package xllamacpp: what an exported patch does there."""

from __future__ import annotations

import json

import pytest

x = pytest.importorskip("xllamacpp", reason="needs llama.cpp (pip install 'emend[llamacpp]')")


PRINTABLE = 40
"""A token that is an ASCII character in all vocabularies here."""


class Engine:
    """One server of llama.cpp, with one thread and numbers kept in float32."""

    def __init__(self, model, *adapters, positions=256, cache=0):
        params = x.CommonParams()
        params.model.path = str(model)
        params.n_ctx = positions
        params.n_parallel = 1
        params.n_batch = params.n_ubatch = positions
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup = False
        params.fit_params = False
        params.verbosity = -1
        params.cache_ram_mib = cache
        params.cache_type_k = params.cache_type_v = x.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.lora_adapters = [x.CommonAdapterLoraInfo(str(one), 1.0) for one in adapters]
        self._adapters = len(adapters)
        self._server = x.Server(params)

    def generate(self, prompt, tokens=8, scales=None):
        """The greedy continuation of a text or of token ids."""
        return self._complete(prompt, scales, max_tokens=tokens)["choices"][0]["text"]

    def logprobs(self, prompt, most=20, scales=None):
        """Log-probabilities of the most probable next tokens, by token id."""
        # The token is forced, since probabilities come with whole characters alone; they are
        # those before any bias.
        answer = self._complete(
            prompt, scales, max_tokens=1, logprobs=most, logit_bias=[[PRINTABLE, 1000.0]]
        )
        first = answer["choices"][0]["logprobs"]["content"][0]
        return {one["id"]: one["logprob"] for one in first["top_logprobs"]}

    def _complete(self, prompt, scales, **fields):
        scales = [1.0] * self._adapters if scales is None else scales
        lora = [{"id": index, "scale": scale} for index, scale in enumerate(scales)]
        request = {"prompt": prompt, "temperature": 0.0, "lora": lora, **fields}
        answer = self._server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        assert "choices" in answer, answer
        return answer
