"""A request's SLO class, checked in the API server's process where a mistake is an HTTP 400."""

from __future__ import annotations

from typing import Any

from sarathi_plugin.plugins import order_by_nearness

KEY = "slo_class"


def check_slo_class(extra_args: dict[str, Any] | None, known: tuple[str, ...]) -> None:
    """Raises ValueError with one sentence when ``vllm_xargs`` names a class that does not exist."""
    value = (extra_args or {}).get(KEY)
    if value is None:
        return
    names = ", ".join(known)
    if not isinstance(value, str):
        raise ValueError(f"{KEY} must be a string, one of {names}; got {value!r}.")
    if value not in known:
        raise ValueError(f"Unknown {KEY} {value!r}; known: {', '.join(order_by_nearness(value, known))}.")


def client_error() -> type[Exception]:
    """The exception that vLLM answers with HTTP 400: its own where it has one, ValueError before that."""
    try:
        from vllm.exceptions import VLLMValidationError
    except ImportError:
        return ValueError
    error: type[Exception] = VLLMValidationError
    return error


def refuse(vllm_config: Any, params: Any, known: tuple[str, ...]) -> None:
    """Raises what vLLM answers with HTTP 400 when a request to one of our schedulers names no class of ours."""
    from sarathi_plugin.engine.entry import settings_of

    try:
        check_slo_class(getattr(params, "extra_args", None), known)
    except ValueError as error:
        if settings_of(vllm_config.scheduler_config.scheduler_cls) is not None:
            raise client_error()(str(error)) from error


def install_validation(known: tuple[str, ...]) -> None:
    """Make vLLM check the class of every request to our schedulers. Safe to repeat.

    Its input processor sees every request, but those of ``generate`` only once somebody waits for the first token, and
    a stream has answered HTTP 200 by then. So ``generate`` checks, too, when it is called.
    """
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor

    original = getattr(InputProcessor.process_inputs, "sarathi_original", InputProcessor.process_inputs)
    original_generate = getattr(AsyncLLM.generate, "sarathi_original", AsyncLLM.generate)

    def process_inputs(
        self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        refuse(self.vllm_config, params, known)
        return original(self, request_id, prompt, params, *args, **kwargs)

    def generate(self: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(self.vllm_config, sampling_params, known)
        return original_generate(self, prompt, sampling_params, *args, **kwargs)

    process_inputs.sarathi_original = original  # type: ignore[attr-defined]
    InputProcessor.process_inputs = process_inputs
    generate.sarathi_original = original_generate  # type: ignore[attr-defined]
    AsyncLLM.generate = generate
