"""vLLM is imported here first: its dependencies warn at import, and a warning is an error in our tests."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tests.engine import emulator

if TYPE_CHECKING:
    from collections.abc import Callable

logging.getLogger("vllm").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def config_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``config_for(budget=512, ...)``: a VllmConfig, built once per variant. A scheduler may not change it."""
    folder = tmp_path_factory.mktemp("model")
    built: dict[str, Any] = {}

    def find(**variant: Any) -> Any:
        key = repr(sorted(variant.items()))
        if key not in built:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                built[key] = emulator.make_config(folder, **variant)
        return built[key]

    return find
