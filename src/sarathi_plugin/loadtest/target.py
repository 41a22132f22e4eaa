"""The server under test: which model it serves, how long it may be, and whether it speaks vLLM's dialect."""

from __future__ import annotations

from typing import Any, NamedTuple

import requests

from sarathi_plugin.address import authorization, parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.client import KEY

BAD_ADDRESS = "Give the server's address as http://HOST:PORT, without a key in it."


class Served(NamedTuple):
    """A model as its server describes it. max_tokens: its length, None where the server does not say."""

    url: str
    model: str
    max_tokens: int | None
    vllm: bool


def describe(url: str, model: str | None = None, *, timeout_s: float = 10.0) -> Served:
    """Ask a server what it serves; ``model`` picks one of several, else the first is taken.

    The key is read from OPENAI_API_KEY. Raises ConfigError for a bad address, no answer, or an unknown model.
    """
    parts = parts_of(url)
    if parts is None or parts.username or parts.password:
        raise ConfigError(BAD_ADDRESS)
    root = url.rstrip("/").removesuffix("/v1")
    cards = _cards(root, timeout_s)
    chosen = [card for card in cards if model in (None, card.get("id"))]
    if not chosen:
        raise ConfigError(
            f"{root} serves {', '.join(str(c.get('id')) for c in cards) or 'nothing'}, not {model!r}."
        )
    limit = chosen[0].get("max_model_len")
    vllm = isinstance(limit, int) and chosen[0].get("owned_by") == "vllm"
    return Served(root, str(chosen[0].get("id")), limit if isinstance(limit, int) else None, vllm)


def _cards(root: str, timeout_s: float) -> list[dict[str, Any]]:
    headers = authorization(KEY)
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{root}/v1/models", headers=headers, timeout=timeout_s, allow_redirects=False
            )
            answer.raise_for_status()
            cards = answer.json()["data"]
    except requests.exceptions.HTTPError as error:
        raise ConfigError(
            f"{root}/v1/models answers {error.response.status_code}: check address and key."
        ) from error
    except requests.exceptions.JSONDecodeError as error:
        raise ConfigError(f"{root}/v1/models does not answer as an OpenAI-compatible server does.") from error
    except requests.exceptions.InvalidURL as error:
        raise ConfigError(BAD_ADDRESS) from error
    except requests.exceptions.RequestException as error:
        raise ConfigError(f"No server answers at {root} ({type(error).__name__}).") from error
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{root}/v1/models does not answer as an OpenAI-compatible server does.") from error
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
