"""Exit codes and suggestions."""

from __future__ import annotations

import inspect

import pytest

from stackhand import errors

CODES = {
    "StackError": 1,
    "StartFailed": 1,
    "StopFailed": 1,
    "NotReady": 1,
    "VolumeInUse": 1,
    "NetworkInUse": 1,
    "NetworkOutdated": 1,
    "ResetFailed": 1,
    "FixFailed": 1,
    "PermissionsWrong": 1,
    "JournalFailed": 1,
    "LockHeld": 1,
    "CommandFailed": 1,
    "InstallFailed": 1,
    "ForeignContainers": 1,
    "ConfigError": 2,
    "BadArgument": 2,
    "UnknownTask": 2,
    "UnknownFlag": 2,
    "UnknownSetting": 2,
    "InvalidSetting": 2,
    "NoComposeFile": 2,
    "InvalidComposeFile": 2,
    "MissingFile": 2,
    "UnknownKind": 2,
    "BrokenKind": 2,
    "UnknownStep": 2,
    "UnknownUser": 2,
    "UnknownRun": 2,
    "UnknownVolume": 2,
    "DependencyCycle": 2,
    "UnknownService": 2,
    "PrerequisiteMissing": 3,
    "DockerMissing": 3,
    "EngineUnreachable": 3,
    "SocketPermission": 3,
    "ComposeMissing": 3,
    "JournalRefused": 3,
    "VolumeUnreachable": 3,
    "StateFolderUnwritable": 3,
    "ApprovalNeeded": 4,
    "OtherFolder": 4,
    "Interrupted": 130,
}
ALL = {name: each for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)}


@pytest.mark.parametrize("name", ALL)
def test_every_error_has_the_contracts_exit_code(name: str) -> None:
    assert name in CODES, f"add {name} to this test's table"
    assert vars(errors)[name].exit_code == CODES[name]


def test_the_table_is_of_today() -> None:
    assert set(CODES) == set(ALL)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("postgre", "did you mean 'postgres'?"),
        ("Postgres", "did you mean 'postgres'?"),
        ("redi", "did you mean 'redis'?"),
        ("nothing-like-it", "services: api, postgres, redis"),
    ],
)
def test_an_unknown_service_suggests_the_nearest(name: str, hint: str) -> None:
    error = errors.UnknownService(name, ["redis", "postgres", "api"])
    assert error.message == f"unknown service {name!r}"
    assert error.hint == hint


def test_an_unknown_service_of_none() -> None:
    assert errors.UnknownService("db", []).hint == "there are no services"


@pytest.mark.parametrize(
    ("stderr", "detail"),
    [
        ("one\ntwo\n\n", "two"),
        ("", "exit code 5"),
        ("  \n", "exit code 5"),
    ],
)
def test_a_failed_command_says_its_last_word(stderr: str, detail: str) -> None:
    error = errors.CommandFailed(["docker", "compose", "up", "-d", "--secret=x"], 5, stderr)
    assert error.message == f"`docker compose up -d` failed: {detail}"
    assert (error.returncode, error.stderr) == (5, stderr)
