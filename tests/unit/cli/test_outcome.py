"""The document of a run: one, whatever happens, and what a start hands on to its fixes."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from stackhand.cli.outcome import RunOutcome, start_document
from stackhand.context import Stack
from stackhand.errors import ConfigError, FixFailed, Interrupted, StackError, StartFailed
from stackhand.model import Action, Finding, Outcome, Report
from stackhand.output.console import Console
from stackhand.output.redact import Redactor
from stackhand.services.start.record import Failure, Record, StartReport


def started(**states: Any) -> StartReport:
    records = [
        Record(name, state, failure=Failure("ready", "exited", "it exited") if state == "failed" else None)
        for name, state in states.items()
    ]
    return StartReport("shop", 1.0, tuple(records))


def finding(status: Any) -> Finding:
    return Finding("services.ready", "web", "services", status, "it is so")


FIXED = Report((finding("ok"),), (Outcome(Action("web", "start", "it was down"), "services.ready", True),))


def stack(*, json: bool = False, records: bool = True) -> Stack:
    made = Stack({}, environ={}, json=json, console=Console(Redactor(), stdout=io.StringIO(), stderr=io.StringIO()))
    report = started(web="failed")
    if records:
        starter = SimpleNamespace(records={"web": report.services[0]}, report=lambda: report)
        made.__dict__["actions"] = SimpleNamespace(starter=starter)
    return made


def documents(made: Stack) -> list[Any]:
    return [json.loads(line) for line in made.console.stdout.getvalue().splitlines()]  # type: ignore[attr-defined]


class TestStartDocument:
    def test_without_fixes(self) -> None:
        document = start_document(started(web="healthy"))
        assert document["ok"] is True
        assert (document["findings"], document["fixes"]) == ([], [])

    def test_findings_and_what_was_done_about_them(self) -> None:
        document = start_document(started(web="healthy"), FIXED)
        assert document["ok"] is True
        assert [each["status"] for each in document["findings"]] == ["ok"]
        assert [(each["finding"], each["ok"]) for each in document["fixes"]] == [("services.ready", True)]

    @pytest.mark.parametrize(
        ("report", "fixes", "ok"),
        [
            (started(web="healthy"), Report((finding("warn"),)), True),
            (started(web="healthy"), Report((finding("fail"),)), False),
            (started(web="failed"), Report((finding("ok"),)), False),
        ],
    )
    def test_ok_is_for_both(self, report: StartReport, fixes: Report, ok: bool) -> None:
        assert start_document(report, fixes)["ok"] is ok


class TestTheRun:
    def test_all_tasks_of_a_run_share_it(self) -> None:
        one, other = stack(), stack()
        assert RunOutcome.of(one) is RunOutcome.of(one)
        assert RunOutcome.of(one) is not RunOutcome.of(other)

    def test_a_start_names_what_the_fixes_are_for(self) -> None:
        outcome = RunOutcome.of(stack())
        outcome.started(started(web="healthy"), fix=["web"])
        assert outcome.services_to_fix == ["web"]

    def test_after_a_failed_start_nothing_is_fixed(self) -> None:
        outcome = RunOutcome.of(stack())
        with pytest.raises(StartFailed, match="1 of 2 services failed: db: it exited"):
            outcome.started(started(web="healthy", db="failed"), fix=["web"])
        assert outcome.services_to_fix == []
        assert outcome.start_report is not None

    def test_the_document_is_written_once(self) -> None:
        run = stack()
        outcome = RunOutcome.of(run)
        outcome.set_document()
        outcome.set_document(lambda: {"changed": ["web"]})
        outcome.start_report, outcome.fixes_report = started(web="healthy"), FIXED
        outcome.write_document()
        outcome.write_document()
        (document,) = documents(run)
        assert document["changed"] == ["web"]
        assert document["fixes"]

    def test_it_is_of_the_report_that_was_chosen_last(self) -> None:
        run = stack()
        outcome = RunOutcome.of(run)
        outcome.set_document()
        outcome.started(started(db="healthy"), fix=())
        outcome.set_document(report=run.starter.report)
        outcome.write_document()
        (document,) = documents(run)
        assert [each["name"] for each in document["services"]] == ["web"]
        assert document["ok"] is False

    def test_of_a_second_start_that_came_to_no_report_all_services_are_told(self) -> None:
        run = stack()
        outcome = RunOutcome.of(run)
        outcome.set_document()
        outcome.started(started(db="healthy"), fix=())
        outcome.set_document()
        outcome.write_document()
        (document,) = documents(run)
        assert [each["name"] for each in document["services"]] == ["web"]

    def test_without_one_that_was_set_nothing_is_written(self) -> None:
        run = stack()
        RunOutcome.of(run).write_document()
        assert documents(run) == []


class TestErrors:
    @pytest.mark.parametrize("error", [StartFailed("x"), FixFailed("x"), Interrupted("x")])
    def test_a_start_that_has_begun_tells_of_its_failure_itself(self, error: StackError) -> None:
        run = stack(json=True)
        outcome = RunOutcome.of(run)
        outcome.set_document()
        outcome.fail(error, json=True)
        assert documents(run) == []
        outcome.write_document()
        (document,) = documents(run)
        assert [each["state"] for each in document["services"]] == ["failed"]

    @pytest.mark.parametrize(
        ("error", "records"), [(ConfigError("x"), True), (StartFailed("x"), False), (Interrupted("x"), False)]
    )
    def test_any_other_error_is_the_document(self, error: StackError, records: bool) -> None:
        run = stack(records=records)
        outcome = RunOutcome.of(run)
        outcome.set_document()
        outcome.fail(error, json=True)
        outcome.write_document()
        (document,) = documents(run)
        assert document["error"]["message"] == "x"

    @pytest.mark.parametrize(
        ("run_json", "task_json", "number"), [(True, False, 1), (False, True, 1), (False, False, 0)]
    )
    def test_the_run_or_the_task_reports_in_json(self, run_json: bool, task_json: bool, number: int) -> None:
        run = stack(json=run_json)
        RunOutcome.of(run).fail(ConfigError("x"), json=task_json)
        assert len(documents(run)) == number
        assert run.console.stderr.getvalue() == "error: x\n"  # type: ignore[attr-defined]
