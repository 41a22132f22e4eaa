"""The flags on vLLM's own parser and in its own configuration, without a server."""

from __future__ import annotations

import argparse
import inspect
import json
import pickle
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import vllm.plugins
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.metrics import loggers

from sarathi_plugin.config import ConfigError
from sarathi_plugin.engine import engine_arguments, flags, register, requests
from sarathi_plugin.engine.entry import settings_of
from tests.engine.emulator import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vllm

DESTS = {"scheduler", "sarathi_config", *flags.FIELDS}


@pytest.fixture
def vllm_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """vLLM as if we were not installed; what the test registers is gone after it."""
    monkeypatch.setattr(vllm.plugins, "plugins_loaded", True)
    monkeypatch.setattr(flags, "_used", False)
    inner = EngineArgs.create_engine_config
    monkeypatch.setattr(EngineArgs, "create_engine_config", getattr(inner, "__wrapped__", inner))
    flag_adder = EngineArgs.add_cli_args
    monkeypatch.setattr(
        EngineArgs, "add_cli_args", staticmethod(getattr(flag_adder, "__wrapped__", flag_adder))
    )
    monkeypatch.setattr(EngineArgs, "_sarathi", False, raising=False)
    monkeypatch.setattr(loggers.StatLoggerManager, "__init__", loggers.StatLoggerManager.__init__)
    monkeypatch.setattr(InputProcessor, "process_inputs", InputProcessor.process_inputs)
    monkeypatch.setattr(AsyncLLM, "generate", AsyncLLM.generate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield monkeypatch


@pytest.fixture
def registered(vllm_alone: pytest.MonkeyPatch) -> None:
    register.register()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return tmp_path


def parse(*words: str) -> argparse.Namespace:
    return make_arg_parser(FlexibleArgumentParser()).parse_args(["some-model", *words])


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence with which these flags are refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        parse(*words)
    assert exit_.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in last
    return last.partition("error: ")[2]


def config(model: Path, **arguments: Any) -> Any:
    plain = {"skip_tokenizer_init": True, "dtype": "bfloat16", "enforce_eager": True, "max_model_len": 1024}
    return EngineArgs(model=str(model), **{**plain, **arguments}).create_engine_config()


# -- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "words",
    [
        ["--scheduler", "sarathi-static", "--sarathi-tbt-ms", "50", "--sarathi-token-budget", "256"],
        ["--sarathi-token-budget", "256", "--sarathi-tbt-ms", "50", "--scheduler", "sarathi-static"],
        ["--sarathi_token_budget=256", "--scheduler=sarathi-static", "--sarathi_tbt_ms=50"],
        ["--scheduler", "sarathi", "--sarathi-tbt-ms", "50", "--sarathi-token-budget", "256", "--scheduler",
         "sarathi-static"],
    ],
)  # fmt: skip
def test_the_order_of_flags_does_not_matter(words: list[str]) -> None:
    settings = settings_of(parse(*words).scheduler_cls)

    assert settings is not None
    assert (settings.scheduler, settings.tbt_ms, settings.token_budget) == ("sarathi-static", 50, 256)


@pytest.mark.usefixtures("registered")
def test_flags_may_stand_in_vllm_s_own_yaml(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("sarathi-tbt-ms: 40\nscheduler: sarathi\nsarathi-slo: gap\nmax-num-seqs: 33\n")

    namespace = parse("--config", str(file))

    settings = settings_of(namespace.scheduler_cls)
    assert settings is not None
    assert (settings.tbt_ms, settings.slo, namespace.max_num_seqs) == (40, "gap", 33)


@pytest.mark.usefixtures("registered")
def test_flags_win_over_our_yaml(tmp_path: Path) -> None:
    file = tmp_path / "sarathi.yaml"
    file.write_text("tbt_ms: 40\nttft_slack_ms: 7\npolicy: {stall_cap: 3}\n")

    settings = settings_of(
        parse("--sarathi-tbt-ms", "60", "--sarathi-config", str(file), "--scheduler", "sarathi").scheduler_cls
    )

    assert settings is not None
    assert (settings.tbt_ms, settings.ttft_slack_ms, settings.policy) == (60, 7, {"stall_cap": 3})


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "words",
    [
        ("--sarathi-slo", "gap"), ("--sarathi-tbt-ms", "5"), ("--sarathi-ttft-slack-ms", "0"),
        ("--sarathi-token-budget", "auto"), ("--sarathi-config", "x.yaml"), ("--sarathi-record", "x.gz"),
        ("--sarathi-plugin", "x"),
    ],
)  # fmt: skip
def test_a_flag_without_a_scheduler_is_a_mistake(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert refusal(capsys, *words) == f"{words[0]} needs --scheduler NAME."


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("swap", [False, True])
def test_scheduler_and_scheduler_cls_exclude_each_other(
    capsys: pytest.CaptureFixture[str], swap: bool
) -> None:
    pair = ["--scheduler", "sarathi"], ["--scheduler-cls", "some.where.Scheduler"]

    sentence = refusal(capsys, *(pair[1] + pair[0] if swap else pair[0] + pair[1]))

    assert sentence == "--scheduler and --scheduler-cls exclude each other; give one."


@pytest.mark.usefixtures("registered")
def test_an_unknown_scheduler_is_answered_with_the_nearest_names_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sentence = refusal(capsys, "--scheduler", "sarati")

    assert sentence.startswith("Unknown scheduler 'sarati'; known: sarathi, sarathi-static, ")
    assert all(name in sentence for name in ("vllm", "orca", "prefill-first", "request-level", "alternate"))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--sarathi-token-budget", "0"), "must be 'auto' or a positive number of tokens"),
        (("--sarathi-token-budget", "-5"), "must be 'auto' or a positive number of tokens"),
        (("--sarathi-token-budget", "many"), "give auto or a number of tokens, not 'many'"),
        (("--sarathi-tbt-ms", "0"), "tbt_ms"),
        (("--sarathi-tbt-ms", "fast"), "fast"),
        (("--sarathi-tbt-ms", "nan"), "tbt_ms"),
        (("--sarathi-tbt-ms", "1e300"), "tbt_ms: Input should be less than or equal to 86400000"),
        (("--sarathi-record", ""), "record: String should have at least 1 character"),
        (("--sarathi-ttft-slack-ms", "-1"), "ttft_slack_ms"),
        (("--sarathi-slo", "best"), "best"),
        (("--sarathi-plugin", "nowhere"), "No plugin 'nowhere' is installed"),
        (("--sarathi-config", "/nowhere/x.yaml"), "Cannot read /nowhere/x.yaml"),
    ],
)
def test_a_bad_value_ends_with_one_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str
) -> None:
    assert part in refusal(capsys, "--scheduler", "sarathi-static", *words)


BAD_FILES = {
    "unknown key": "budget: 5",
    "not a mapping": "- a\n- b",
    "no YAML": "a: [",
    "binary": "\x00\x01",
    "wrong type": "tbt_ms: fast",
    "negative": "tbt_ms: -1",
    "infinite": "tbt_ms: .inf",
    "unknown meaning": "slo: best",
    "class without slack": "classes: {gold: {tbt_ms: 5}}",
    "class with a wrong key": "classes: {gold: {tbt_ms: 5, ttft_slack_ms: 5, colour: red}}",
    "unknown default class": "default_class: gold",
    "unknown policy key": "policy: {speed: 3}",
    "wrong policy value": "policy: {stall_cap: 0.5}",
    "policy is no mapping": "policy: 3",
    "missing plugin": "plugins: [nowhere]",
    "plugins is no list": "plugins: page",
    "unknown curve": "prefill_curve: nowhere",
    "unknown step-time model": "step_time: nowhere",
    "missing profile": "step_time_profile: nowhere.json",
    "descending targets": "curve_targets_ms: [50, 25]",
    "no target": "curve_targets_ms: []",
    "a budget of nothing": "token_budget: 0",
    "a date that is none": "policy: {when: 2020-13-45}",
    "a value in itself": "policy: {when: &x [*x]}",
    "too deep": f"policy: {'[' * 5000}",
    "a value that cannot travel": "policy: {when: !!binary /w==}",
    "a session": "session: abc",
    "a recording in a folder": "record: /",
    "a recording below a file": "record: /dev/null/run.jsonl.gz",
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("what", BAD_FILES)
def test_every_bad_file_ends_with_one_sentence_and_code_2(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, what: str
) -> None:
    """Either while the flags are parsed, or when the configuration is created: before anything is loaded."""
    file = tmp_path / "sarathi.yaml"
    file.write_text(BAD_FILES[what])

    with pytest.raises(SystemExit) as exit_:
        namespace = parse("--scheduler", "sarathi", "--sarathi-config", str(file))
        namespace.model = str(model)
        AsyncEngineArgs.from_cli_args(namespace).create_engine_config()

    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if "error: " in line]
    assert len(lines) == 1
    assert lines[0].rstrip().endswith(".")


@pytest.mark.usefixtures("registered")
def test_the_namespace_survives_pickling_with_its_scheduler(model: Path) -> None:
    """With several API servers the parsed namespace is pickled, and each child reads it anew."""
    namespace = parse("--scheduler", "sarathi", "--sarathi-tbt-ms", "40", "--model", str(model))

    arguments = AsyncEngineArgs.from_cli_args(pickle.loads(pickle.dumps(namespace)))

    assert arguments.scheduler_cls == namespace.scheduler_cls
    settings = settings_of(arguments.scheduler_cls)
    assert settings is not None
    assert settings.tbt_ms == 40
    assert settings.session


@pytest.mark.usefixtures("registered")
def test_registering_twice_and_two_parsers_are_harmless() -> None:
    first = EngineArgs.add_cli_args
    register.register()

    assert EngineArgs.add_cli_args is first
    assert parse("--scheduler", "sarathi").scheduler == "sarathi"
    assert parse().scheduler is None


@pytest.mark.usefixtures("registered")
def test_a_parser_that_has_our_flag_is_left_alone() -> None:
    """A future vLLM may have a --scheduler of its own."""
    parser = FlexibleArgumentParser()
    parser.add_argument("--scheduler")

    EngineArgs.add_cli_args(parser)

    assert parser.parse_args(["--scheduler", "anything"]).scheduler == "anything"


# -- without --scheduler ------------------------------------------------------------------------------------------


def test_without_scheduler_nothing_of_vllm_changes(vllm_alone: pytest.MonkeyPatch, model: Path) -> None:
    words = ["--max-num-seqs", "16", "--no-enable-prefix-caching"]
    plain_namespace, plain_config = vars(parse(*words)), config(model)
    hooks = loggers.StatLoggerManager.__init__, InputProcessor.process_inputs, AsyncLLM.generate

    register.register()

    namespace = vars(parse(*words))
    assert {key for key in namespace if key not in plain_namespace} == DESTS
    assert all(namespace.pop(dest) is None for dest in DESTS)
    assert namespace == plain_namespace
    ours = config(model)
    for part in ("scheduler_config", "cache_config", "parallel_config", "compilation_config"):
        assert repr(getattr(ours, part)) == repr(getattr(plain_config, part))
    assert ours.compute_hash() == plain_config.compute_hash()
    assert (loggers.StatLoggerManager.__init__, InputProcessor.process_inputs, AsyncLLM.generate) == hooks


# -- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "settings", [{}, {"tbt_ms": 33}, {"policy": {"stall_cap": 5}}, {"slo": "gap"}], ids=str
)
def test_settings_stay_out_of_the_compile_cache_key(model: Path, settings: dict[str, Any]) -> None:
    stock = config(model, max_num_batched_tokens=2048)
    ours = config(model, max_num_batched_tokens=2048, **engine_arguments("sarathi", **settings))

    assert ours.compute_hash() == stock.compute_hash()
    assert ours.scheduler_config.compute_hash() == stock.scheduler_config.compute_hash()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("policy", "settings", "tokens"),
    [
        ("vllm", {}, None), ("sarathi", {}, 8192), ("sarathi", {"token_budget": 700}, 700),
        ("sarathi-static", {}, 512), ("sarathi-static", {"token_budget": 900}, 900),
        ("sarathi-static", {"token_budget": 64}, 256), ("orca", {}, 1024), ("prefill-first", {}, 1024),
        ("request-level", {}, 1024), ("alternate", {}, 512),
    ],
)  # fmt: skip
def test_a_policy_sets_the_batch_size_where_the_user_did_not(
    model: Path, policy: str, settings: dict[str, Any], tokens: int | None
) -> None:
    ours = config(model, **engine_arguments(policy, **settings))

    stock = config(model).scheduler_config.max_num_batched_tokens
    assert ours.scheduler_config.max_num_batched_tokens == (tokens or stock)
    assert ours.scheduler_config.max_num_seqs == config(model).scheduler_config.max_num_seqs


@pytest.mark.usefixtures("registered")
def test_the_user_s_own_batch_size_is_kept(model: Path) -> None:
    ours = config(model, max_num_batched_tokens=3000, **engine_arguments("sarathi-static"))

    assert ours.scheduler_config.max_num_batched_tokens == 3000


@pytest.mark.usefixtures("registered")
def test_a_model_length_that_vllm_finds_out_is_used(model: Path) -> None:
    ours = config(model, max_model_len=None, **engine_arguments("orca"))

    assert ours.scheduler_config.max_num_batched_tokens == ours.model_config.max_model_len == 16384


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("policy", "settings", "arguments", "part"),
    [
        ("sarathi-static", {"token_budget": 900}, {"max_num_batched_tokens": 512}, "is above max_num_batched_tokens"),
        ("sarathi-static", {"token_budget": 1},
         {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
         r"is below 3 \(one token and 2 speculative ones\)"),
        ("orca", {"token_budget": 100}, {}, "has no token budget"),
        ("orca", {}, {"max_num_batched_tokens": 512}, "never splits a prompt"),
        ("sarathi", {}, {"enable_chunked_prefill": False}, "needs chunked prefill"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], vllm_alone: pytest.MonkeyPatch, model: Path, policy: str,
    settings: dict[str, Any], arguments: dict[str, Any], part: str,
) -> None:  # fmt: skip
    """Offline a ConfigError; on a command line one sentence and exit code 2."""
    with pytest.raises(ConfigError, match=part):
        config(model, **arguments, **engine_arguments(policy, **settings))

    vllm_alone.setattr(flags, "_used", True)
    with pytest.raises(SystemExit) as exit_:
        config(model, **arguments, **engine_arguments(policy, **settings))
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.usefixtures("registered")
def test_engine_arguments_refuse_bad_settings() -> None:
    with pytest.raises(ConfigError, match="tbt_ms"):
        engine_arguments("sarathi", tbt_ms=-1)
    with pytest.raises(ConfigError, match="not known"):
        engine_arguments("sarathi", colour="red")


@pytest.mark.usefixtures("registered")
def test_offline_arguments_build_our_scheduler(model: Path) -> None:
    """What ``LLM(..., **engine_arguments())`` does up to the engine: vLLM resolves the class by its name."""
    ours = config(model, **engine_arguments("sarathi", tbt_ms=44))

    factory = ours.scheduler_config.get_scheduler_cls()

    assert factory.func.__name__ == "build_scheduler"
    assert factory.keywords["settings"].tbt_ms == 44
    copied = pickle.loads(pickle.dumps(ours.scheduler_config))
    assert copied.scheduler_cls == ours.scheduler_config.scheduler_cls


@pytest.mark.usefixtures("registered")
def test_a_class_is_checked_when_generate_is_called_and_not_at_the_first_token(model: Path) -> None:
    """Once somebody waits for a token, a stream has answered HTTP 200."""
    ours, stock = config(model, **engine_arguments("sarathi")), config(model)
    config(model, **engine_arguments("sarathi"))  # a second time, nothing is wrapped twice

    def ask(built: Any, slo_class: object) -> Any:
        params = SamplingParams(extra_args={"slo_class": slo_class})
        return AsyncLLM.generate(SimpleNamespace(vllm_config=built), "a prompt", params, "r1", priority=1)

    for bad in ("gold", 5):
        with pytest.raises(requests.client_error(), match="slo_class"):
            ask(ours, bad)
        assert inspect.isasyncgen(ask(stock, bad))
    assert inspect.isasyncgen(ask(ours, "batch"))
    assert inspect.isasyncgenfunction(AsyncLLM.generate.sarathi_original)


def comparable(built: Any) -> str:
    return repr(built.scheduler_config)


@pytest.mark.usefixtures("registered")
def test_a_pooling_model_keeps_stock_scheduling(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    stock = config(model, runner="pooling")

    ours = config(model, runner="pooling", **engine_arguments("sarathi"))

    assert "a pooling model emits no tokens" in caplog.text
    assert ours.scheduler_config.scheduler_cls is None
    assert comparable(ours) == comparable(stock)


@pytest.mark.usefixtures("registered")
def test_an_encoder_decoder_model_keeps_stock_scheduling(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The property is patched after vLLM has made its own decisions: no such model can be built offline here."""
    stock = config(model)
    original = register.unsupported_model

    def patched(built: Any) -> str | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(vars(built.model_config), "is_encoder_decoder", True)  # a cached property
            return original(built)

    monkeypatch.setattr(register, "unsupported_model", patched)
    ours = config(model, **engine_arguments("sarathi"))

    assert "an encoder-decoder model is not prefilled in chunks" in caplog.text
    assert ours.scheduler_config.scheduler_cls is None
    assert comparable(ours) == comparable(stock)
