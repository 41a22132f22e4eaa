"""``--scheduler`` and the ``--sarathi-*`` flags, for any of vLLM's argument parsers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sarathi_plugin import plugins
from sarathi_plugin.config import ConfigError, make_settings
from sarathi_plugin.engine.entry import scheduler_path

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "Sarathi"
FIELDS = {
    "sarathi_slo": "slo",
    "sarathi_tbt_ms": "tbt_ms",
    "sarathi_ttft_slack_ms": "ttft_slack_ms",
    "sarathi_token_budget": "token_budget",
    "sarathi_record": "record",
    "sarathi_plugin": "plugins",
}
"""Namespace attribute -> field of Settings."""
EXCLUSIVE = "--scheduler and --scheduler-cls exclude each other; give one."

_used = False


def used_by_command_line() -> bool:
    """Whether this process (or the one that started it with its parsed arguments) got our flags on a command line."""
    return _used


def token_budget(text: str) -> str | int:
    """``auto`` or a number of tokens. Raises ArgumentTypeError, which ends as a sentence."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give auto or a number of tokens, not {text!r}") from None


class Resolve(argparse.Action):
    """Stores the value, then renews ``scheduler_cls`` from all of our flags seen so far, in whatever order they come.

    Done here rather than after parsing, so that ``EngineArgs.from_cli_args`` and pickled namespaces need no help.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Raises through ``parser.error``: one sentence, exit code 2."""
        del option_string
        global _used  # noqa: PLW0603 - a fact about the process
        _used = True
        if self.dest == "sarathi_plugin":
            values = [*(getattr(namespace, self.dest, None) or []), values]
        setattr(namespace, self.dest, values)
        resolve(parser, namespace)


def resolve(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> None:
    """Set ``namespace.scheduler_cls`` from our flags, if ``--scheduler`` is among them."""
    name = getattr(namespace, "scheduler", None)
    if name is None:
        return
    chosen = getattr(namespace, "scheduler_cls", None)
    if chosen is not None and not str(chosen).startswith("sarathi_plugin."):
        parser.error(EXCLUSIVE)
    given = {field: getattr(namespace, dest, None) for dest, field in FIELDS.items()}
    try:
        settings = make_settings(getattr(namespace, "sarathi_config", None), scheduler=name, **given)
        plugins.manager_for(settings)
        namespace.scheduler_cls = scheduler_path(settings)
    except ConfigError as error:
        parser.error(str(error))


def add_flags(parser: Any) -> None:
    """Add our group. A parser that already has ``--scheduler`` (ours, or a future vLLM's) is left alone."""
    if "--scheduler" in parser._option_string_actions:
        return
    names = ", ".join(plugins.known_policies())
    group = parser.add_argument_group(
        GROUP, "Stall-free scheduling by token deadlines. Without --scheduler none of this has an effect."
    )

    def flag(name: str, help_text: str, **rest: Any) -> None:
        group.add_argument(name, action=Resolve, default=None, help=help_text, **rest)

    flag("--scheduler", f"Scheduling policy: {names}, or one of an installed plugin.", metavar="NAME")
    flag(
        "--sarathi-slo",
        "deadline: early tokens bank slack (default); gap: every gap within the target.",
        choices=["deadline", "gap"],
    )
    flag(
        "--sarathi-tbt-ms",
        "Time allowed per further token (D_d) of the default class.",
        type=float,
        metavar="MS",
    )
    flag(
        "--sarathi-ttft-slack-ms",
        "Slack added to the prefill curve for the first token of the default class.",
        type=float,
        metavar="MS",
    )
    flag(
        "--sarathi-token-budget",
        "Most tokens per step: auto (the policy decides) or a number.",
        type=token_budget,
        metavar="{auto,N}",
    )
    flag(
        "--sarathi-config",
        "YAML file: SLO classes, policy settings, plugin settings. Flags win.",
        metavar="FILE",
    )
    flag("--sarathi-record", "Write StepRecords and RequestTimelines here (.jsonl.gz).", metavar="FILE")
    flag("--sarathi-plugin", "Load an installed plugin by name; may be repeated.", metavar="NAME")
    refuse_orphans(parser)


def refuse_orphans(parser: Any) -> None:
    """Our flags without ``--scheduler``, or with ``--scheduler-cls``, are mistakes: say so instead of ignoring them."""
    parse = parser.parse_known_args

    def parse_known_args(*args: Any, **kwargs: Any) -> Any:
        namespace, rest = parse(*args, **kwargs)
        ours = [dest for dest in (*FIELDS, "sarathi_config") if getattr(namespace, dest, None) is not None]
        name = getattr(namespace, "scheduler", None)
        if ours and name is None:
            parser.error(f"--{ours[0].replace('_', '-')} needs --scheduler NAME.")
        if name is not None and not str(namespace.scheduler_cls).startswith("sarathi_plugin."):
            parser.error(EXCLUSIVE)
        return namespace, rest

    parser.parse_known_args = parse_known_args
