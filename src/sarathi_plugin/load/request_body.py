"""A request as OpenAI-compatible servers take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarathi_plugin.workload.model import ScheduledRequest


def request_body(request: ScheduledRequest, model: str, *, vllm: bool) -> dict[str, Any]:
    """The JSON of one request. vllm: the server understands vLLM's extensions."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.is_chat:
        body["messages"] = [{"role": role, "content": content} for role, content in request.prompt]  # type: ignore[misc, str-unpack]
    else:
        body["prompt"] = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    if vllm:
        body["stream_options"]["continuous_usage_stats"] = True
        if request.ignore_eos:
            body["ignore_eos"] = True
        if request.min_tokens:
            body["min_tokens"] = request.min_tokens
        if request.return_ids:
            body["return_token_ids"] = True
        if request.slo_class:
            body["vllm_xargs"] = {"slo_class": request.slo_class}
    return body
