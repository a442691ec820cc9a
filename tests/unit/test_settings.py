"""Settings: what is wrong is told with its path and the nearest right name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from invoke.config import Config

from stackhand import settings
from stackhand.errors import InvalidSetting, StackError, UnknownSetting

DOCS = Path(__file__).parents[2] / "docs/settings.md"


def load(raw: dict[str, Any], **environ: str) -> settings.Settings:
    return settings.load(raw, environ)


# What has a structure of its own does not fit into a variable.
STRUCTURED = {"fixes.roles", "fixes.warm"}


def test_nothing_set_is_the_contract() -> None:
    start = load(settings.defaults()).start
    assert (start.retries, start.retry_delay, start.backoff, start.timeout) == (3, 5.0, 2.0, 120.0)
    assert load({}) == load(settings.defaults())
    assert load({}).worker.service == "worker"


@pytest.mark.parametrize(
    ("raw", "path", "says"),
    [
        ({"start": {"retries": "many"}}, "stackhand.start.retries", "int"),
        ({"start": {"retries": 1.5}}, "stackhand.start.retries", "int"),
        ({"start": {"retries": 0}}, "stackhand.start.retries", ">= 1"),
        ({"start": {"retries": -2}}, "stackhand.start.retries", ">= 1"),
        ({"start": {"retries": [3]}}, "stackhand.start.retries", "int"),
        ({"start": {"retries": True}}, "stackhand.start.retries", "int"),
        ({"start": {"retry_delay": -1}}, "stackhand.start.retry_delay", ">= 0"),
        ({"start": {"retry_delay": "soon"}}, "stackhand.start.retry_delay", "float"),
        ({"start": {"backoff": 0.5}}, "stackhand.start.backoff", ">= 1"),
        ({"start": {"timeout": 0}}, "stackhand.start.timeout", "> 0"),
        ({"start": {"timeout": {"a": 1}}}, "stackhand.start.timeout", "float"),
        ({"start": {"timeout": float("nan")}}, "stackhand.start.timeout", "nan"),
        ({"start": {"timeout": float("inf")}}, "stackhand.start.timeout", "inf"),
        ({"start": {"retry_delay": float("inf")}}, "stackhand.start.retry_delay", "inf"),
        ({"start": {"settle": -0.1}}, "stackhand.start.settle", ">= 0"),
        ({"start": {"log_lines": -1}}, "stackhand.start.log_lines", ">= 0"),
        ({"start": "fast"}, "stackhand.start", "section"),
        ({"start": [1, 2]}, "stackhand.start", "section"),
        ({"worker": {"service": 5}}, "stackhand.worker.service", "str"),
        ({"worker": {"service": ["a"]}}, "stackhand.worker.service", "str"),
    ],
)
def test_a_value_that_can_not_be(raw: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load(raw)
    assert caught.value.message.startswith(f"{path}: ")
    assert says in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("raw", ["text", ["a"], 5])
def test_the_section_itself_is_no_section(raw: Any) -> None:
    with pytest.raises(InvalidSetting, match=r"^stackhand: expected a section"):
        settings.load(raw, {})


@pytest.mark.parametrize(
    ("raw", "message", "hint"),
    [
        ({"start": {"retrys": 3}}, "unknown setting stackhand.start.retrys", "did you mean 'retries'?"),
        ({"start": {"retry-delay": 3}}, "unknown setting stackhand.start.retry-delay", "did you mean 'retry_delay'?"),
        ({"strat": {}}, "unknown setting stackhand.strat", "did you mean 'start'?"),
        ({"strat": None}, "unknown setting stackhand.strat", "did you mean 'start'?"),
        ({1: 2}, "unknown setting stackhand.1", "start"),
        ({"start": {"xyzzy": 1}}, "unknown setting stackhand.start.xyzzy", "settings in stackhand.start: backoff, "),
    ],
)
def test_an_unknown_key(raw: dict[Any, Any], message: str, hint: str) -> None:
    with pytest.raises(UnknownSetting) as caught:
        load(raw)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("raw", "value"),
    [("4", 4), (" 4", None), ("4.5", None), ("", None), ("many", None)],
)
def test_text_from_the_environment_becomes_a_number(raw: str, value: int | None) -> None:
    environ = {"INVOKE_STACKHAND_START_RETRIES": raw}
    if value is not None:
        assert settings.load({"start": {"retries": raw}}, environ).start.retries == value
        return
    with pytest.raises(InvalidSetting) as caught:
        settings.load({"start": {"retries": raw}}, environ)
    assert caught.value.message.startswith("stackhand.start.retries: ")
    assert "INVOKE_STACKHAND_START_RETRIES" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("INVOKE_STACKHAND_START_RETRYS", "INVOKE_STACKHAND_START_RETRIES"),
        ("INVOKE_STACKHAND_RETRIES", "INVOKE_STACKHAND_START_RETRIES"),
        ("INVOKE_STACKHAND_START_retries", "INVOKE_STACKHAND_START_RETRIES"),
        ("INVOKE_STACKHAND_STRAT_TIMEOUT", "INVOKE_STACKHAND_START_TIMEOUT"),
    ],
)
def test_a_misspelt_variable(name: str, meant: str) -> None:
    with pytest.raises(UnknownSetting) as caught:
        load({}, **{name: "1"})
    assert name in caught.value.message
    assert caught.value.hint == f"did you mean {meant!r}?"


def test_other_variables_are_none_of_our_business() -> None:
    assert load({}, INVOKE_RUN_ECHO="1", INVOKE_STACKHANDS="1", STACKHAND_X="1") == load({})


@pytest.mark.parametrize("key", settings.known_keys())
def test_every_setting_can_come_from_the_environment(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Invoke itself, which only takes variables for keys that it knows."""
    variable = settings.ENV_PREFIX + key.replace(".", "_").upper()
    monkeypatch.setenv(variable, "7")
    config = Config(defaults={"stackhand": settings.defaults()})
    config.load_shell_env()
    if key in STRUCTURED:
        with pytest.raises(InvalidSetting) as caught:
            settings.load(config.get("stackhand"), {variable: "7"})
        assert variable in (caught.value.hint or "")
        return
    found = msgspec.to_builtins(settings.load(config.get("stackhand"), {variable: "7"}))
    section, name = key.split(".")
    assert str(found[section][name]) in ("7", "7.0", "('7',)")


def test_a_list_from_the_environment_is_split_at_commas() -> None:
    found = settings.load({}, {"INVOKE_STACKHAND_FIXES_STEPS": "seed, db.check"})
    assert found.fixes.steps == ("seed", "db.check")


def test_no_two_settings_share_a_variable() -> None:
    names = [key.replace(".", "_") for key in settings.known_keys()]
    assert len(set(names)) == len(names)


def test_an_error_does_not_name_the_python_type() -> None:
    with pytest.raises(StackError) as caught:
        load({"start": {"retries": None, "timeout": "x"}})
    assert "msgspec" not in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("key", settings.known_keys())
def test_every_setting_is_documented_with_its_default(key: str) -> None:
    assert DOCS.exists(), "docs/settings.md is missing"
    section, name = key.split(".")
    default = msgspec.json.decode(msgspec.json.encode(settings.Settings()))[section][name]
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if f"{section}.{name}" in line]
    assert lines, f"docs/settings.md does not mention {key}"
    assert any(shown in line for line in lines), f"docs/settings.md does not say that {key} is {shown} by default"


def test_a_section_within_a_section_comes_through_invoke(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("stackhand: {fixes: {warm: {api: [/healthz]}}}\n")
    config = Config(defaults={"stackhand": settings.defaults()}, project_location=str(tmp_path))
    config.load_project()
    assert settings.load(config.get("stackhand"), {}).fixes.warm == {"api": ("/healthz",)}
