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


def install_validation(known: tuple[str, ...]) -> None:
    """Make vLLM's input processor check the class of every request to our schedulers. Safe to repeat."""
    from vllm.v1.engine.input_processor import InputProcessor

    from sarathi_plugin.engine.entry import settings_of

    original = getattr(InputProcessor.process_inputs, "sarathi_original", InputProcessor.process_inputs)

    def process_inputs(
        self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if settings_of(self.vllm_config.scheduler_config.scheduler_cls) is not None:
            try:
                check_slo_class(getattr(params, "extra_args", None), known)
            except ValueError as error:
                raise client_error()(str(error)) from error
        return original(self, request_id, prompt, params, *args, **kwargs)

    process_inputs.sarathi_original = original  # type: ignore[attr-defined]
    InputProcessor.process_inputs = process_inputs
