"""What the tasks of one run hand on to each other, and the JSON document that the run ends with."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stackhand.context import Stack
from stackhand.errors import FixFailed, Interrupted, StackError, StartFailed

if TYPE_CHECKING:
    from stackhand.model import Report
    from stackhand.services.start.record import StartReport

_outcomes: WeakKeyDictionary[Stack, RunOutcome] = WeakKeyDictionary()
_making = threading.Lock()


class RunOutcome:
    """The reports of one run so far, and its document.

    A start's document has the fixes of its post-task, and a pre-task that failed; and Invoke runs no post-task after a
    failure. So the document is set when the start begins, and written when the process ends.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._document: Callable[[], Any] | None = None
        self.start_report: StartReport | None = None
        self.fixes_report: Report | None = None
        self.services_to_fix: list[str] = []

    @classmethod
    def of(cls, stack: Stack) -> RunOutcome:
        """Return the outcome of the run that has this stack."""
        with _making:
            return _outcomes.setdefault(stack, cls(stack))

    def started(self, report: StartReport, *, fix: Sequence[str]) -> None:
        """Take the report of a start; the post-task fixes these services. Raises StartFailed."""
        self.start_report = report
        report.raise_unless_ok()
        self.services_to_fix = list(fix)

    def set_document(
        self,
        more: Callable[[], Mapping[str, Any]] = dict,
        report: Callable[[], StartReport] | None = None,
    ) -> None:
        """Have a start's document, with these further keys, written when the run ends, however it ends.

        It is of the report that `report` returns; without that, of the one that `started` gets next, or of all services
        that the run has touched if it ends before. Called again, it replaces the document that was set.
        """
        if self._document is None:
            atexit.register(self.write_document)
        self.start_report = None  # that of an earlier task
        chosen = report or self._latest_report
        self._document = lambda: {**start_document(chosen(), self.fixes_report), **more()}

    def write_document(self) -> None:
        """Write the document that was set, unless the run has written one."""
        if self._document is not None and not self._stack.console.document_written:
            self._stack.console.document(self._document())

    @property
    def document_pending(self) -> bool:
        """Whether the run ends with a document of its own, because a start has begun."""
        actions = self._stack.made("actions")
        return self._document is not None and actions is not None and bool(actions.starter.records)

    def fail(self, error: StackError, *, json: bool) -> None:
        """Report an error. In a run that reports in JSON it is the document as well, unless another one is pending."""
        # A start that failed or was interrupted has a document of its own.
        own = isinstance(error, (StartFailed, FixFailed, Interrupted)) and self.document_pending
        self._stack.console.fail(error, json=(json or self._stack.json) and not own)

    def _latest_report(self) -> StartReport:
        return self.start_report or self._stack.starter.report()


def start_document(report: StartReport, fixes: Report | None = None) -> dict[str, Any]:
    """Return the contract's JSON of a start, with the fixes that followed it."""
    after = fixes.to_json() if fixes else {"ok": True, "findings": [], "fixes": []}
    return {
        **report.to_json(),
        "ok": report.ok and after["ok"],
        "findings": after["findings"],
        "fixes": after["fixes"],
    }
