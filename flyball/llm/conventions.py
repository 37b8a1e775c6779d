"""What spans of other makers say, in MLflow's words: type, inputs, outputs, model, tokens.

OpenTelemetry's conventions for generative models, OpenInference and Traceloop each have names of their own. What a span
says already in MLflow's words stays. Source: OpenTelemetry semantic conventions, registry `gen_ai`; OpenInference
specification, semantic conventions; Traceloop's `openllmetry` semantic conventions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyball.llm.spans import INPUTS, OUTPUTS, TYPE, loaded
from flyball.llm.usage import SPAN_USAGE, whole

__all__ = ["MODEL", "PROVIDER", "in_our_words"]

MODEL = "mlflow.llm.model"
PROVIDER = "mlflow.llm.provider"

_TYPES = {
    "openinference.span.kind": {
        "TOOL": "TOOL", "CHAIN": "CHAIN", "LLM": "LLM", "RETRIEVER": "RETRIEVER", "EMBEDDING": "EMBEDDING",
        "AGENT": "AGENT", "RERANKER": "RERANKER", "GUARDRAIL": "GUARDRAIL", "EVALUATOR": "EVALUATOR",
    },
    "gen_ai.operation.name": {
        "chat": "CHAT_MODEL", "create_agent": "AGENT", "embeddings": "EMBEDDING", "execute_tool": "TOOL",
        "generate_content": "LLM", "invoke_agent": "AGENT", "text_completion": "LLM", "response": "LLM",
    },
    "traceloop.span.kind": {"workflow": "WORKFLOW", "task": "TASK", "agent": "AGENT", "tool": "TOOL"},
}  # fmt: skip
_INPUTS: tuple[str, ...] = (
    "input.value",
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "traceloop.entity.input",
    "gen_ai.prompt",
)
_OUTPUTS: tuple[str, ...] = (
    "output.value", "gen_ai.output.messages", "gen_ai.tool.call.result", "traceloop.entity.output", "gen_ai.completion",
)  # fmt: skip
_MODELS: tuple[str, ...] = ("llm.model_name", "embedding.model_name", "gen_ai.response.model", "gen_ai.request.model")
_PROVIDERS: tuple[str, ...] = ("llm.provider", "gen_ai.provider.name", "gen_ai.system")
_TOKENS = {
    "input_tokens": ("llm.token_count.prompt", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("llm.token_count.completion", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "total_tokens": ("llm.token_count.total", "llm.usage.total_tokens", "gen_ai.usage.total_tokens"),
    "cache_read_input_tokens": (
        "llm.token_count.prompt_details.cache_read", "gen_ai.usage.cache_read.input_tokens",
    ),
    "cache_creation_input_tokens": (
        "llm.token_count.prompt_details.cache_write", "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
}  # fmt: skip


def in_our_words(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span, with what other conventions say of it in MLflow's words beside them."""
    found = dict(attributes)
    if found.get(TYPE) in (None, "UNKNOWN"):
        for key, types in _TYPES.items():
            said = found.get(key)
            if isinstance(said, str) and said in types:
                found[TYPE] = types[said]
                break
    for ours, spellings in ((INPUTS, _INPUTS), (OUTPUTS, _OUTPUTS)):
        if ours not in found and (value := _first(attributes, spellings)) is not None:
            found[ours] = loaded(value) if isinstance(value, str) else value
    for ours, keys in ((MODEL, _MODELS), (PROVIDER, _PROVIDERS)):
        if ours not in found and isinstance(value := _first(attributes, keys), str):
            found[ours] = value
    if SPAN_USAGE not in found and (usage := _usage(attributes)):
        found[SPAN_USAGE] = usage
    return found


def _usage(attributes: Mapping[str, Any]) -> dict[str, int]:
    found = {name: tokens for name, keys in _TOKENS.items() if (tokens := whole(_first(attributes, keys))) is not None}
    if not {"input_tokens", "output_tokens", "total_tokens"} & found.keys():
        return {}
    if "total_tokens" not in found and {"input_tokens", "output_tokens"} <= found.keys():
        found["total_tokens"] = found["input_tokens"] + found["output_tokens"]
    return {name: found[name] for name in _TOKENS if name in found}


def _first(attributes: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((attributes[key] for key in keys if attributes.get(key) not in (None, "")), None)
