"""GraphExecutor: Invoke's executor, with independent pre-tasks side by side.

Named in `invoke.yaml`: `tasks: {executor_class: stackhand.graph.GraphExecutor}`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from invoke.config import Config
from invoke.exceptions import AmbiguousEnvVar, Exit, UncastableEnvVar
from invoke.executor import Executor
from invoke.tasks import Call, Task

from stackhand.errors import DependencyCycle, InvalidSetting
from stackhand.graph import schedule
from stackhand.graph.signals import interrupt_on_termination
from stackhand.graph.streams import LabelledOutput
from stackhand.output.console import Console, reports_json
from stackhand.output.redact import Redactor

RUN_CONFIG = "_run_config"
"""The attribute by which a task's own clone of the configuration names the run's configuration."""


class GraphExecutor(Executor):
    """Runs pre-tasks as the graph that they are.

    Tasks named on the command line run in the order typed. Before each, all that it needs runs, side by side
    where one does not need the other: the order within one `pre` list means nothing here, so a task that must
    come after another names it in its own `pre`. On a failure the branches that do not need it are finished,
    dependants are skipped by name, and the run fails. The same call runs once, as with Invoke.
    """

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Run the tasks and all that they need. Returns each task's return value, as Invoke's executor does."""
        interrupt_on_termination()
        self._load(self.config, None)  # the run's own configuration, which its clones begin with
        calls = self.normalize(tasks)
        results: dict[Any, Any] = {}
        finished: list[Call] = []
        for direct in calls:
            self._run_graph(direct, calls, finished, results)
        return results

    def _run_graph(self, direct: Call, named: Sequence[Call], finished: list[Call], results: dict[Any, Any]) -> None:
        nodes: list[Call] = []
        needs: list[list[int]] = []
        self._add(direct, nodes, needs, [])
        again = not self.config.tasks.dedupe
        graph = {index: needs[index] for index, call in enumerate(nodes) if again or call not in finished}
        with LabelledOutput(sys.stdout, sys.stderr) as apart:

            def work(index: int) -> None:
                call = nodes[index]
                config = self._config_for(call, apart.stream_for(call.task))
                with apart.thread(call.task):
                    value = call.task(call.make_context(config), *call.args, **call.kwargs)
                if call.autoprint and call in named:
                    print(value)  # noqa: T201  what Invoke's own executor does
                results[call.task] = value

            try:
                outcome = schedule.run(graph, work)
            except KeyboardInterrupt as interrupt:
                raise self._interrupted(nodes) or interrupt from None
            except DependencyCycle as error:
                circle = " → ".join(_name(nodes[int(index)]) for index in error.cycle)
                raise Exit(f"error: tasks need each other in a circle: {circle}", code=2) from error
        finished.extend(nodes[index] for index in outcome.done)
        if outcome.failed:
            self._fail(outcome, nodes)

    def _interrupted(self, nodes: Sequence[Call]) -> Exit | None:
        """Have one of the tasks that know how end what the run has under way; it does so for all of them."""
        for call in nodes:
            end = getattr(call.task, "interrupted", None)
            if end:
                ended: Exit = end(call.make_context(self.config), call.kwargs)
                return ended
        return None

    def _add(self, call: Any, nodes: list[Call], needs: list[list[int]], path: list[Call]) -> list[int]:
        """Add a call, all that it needs and its post-tasks. Returns what must be done for it to count as done."""
        if isinstance(call, Task):
            call = Call(call)
        if call in nodes and self.config.tasks.dedupe:
            index = nodes.index(call)
            return [index] if call in path else [index, *_after(index, nodes, needs)]
        index = len(nodes)
        nodes.append(call)
        needs.append([])
        inner = [*path, call]
        for need in call.pre:
            needs[index].extend(self._add(need, nodes, needs, inner))
        last = [index]
        for follower in call.post:
            start = len(nodes)
            ended = self._add(follower, nodes, needs, inner)
            # The post-task and whatever it brings along come after the call and after the post-task before.
            for added in range(start, len(nodes)):
                needs[added].extend(need for need in last if need != added)
            last = ended
        return last

    def _config_for(self, call: Call, stream: Any) -> Config:
        """Return a configuration of the call's own: Invoke changes it for every call, and threads share nothing."""
        config: Config = self.config.clone()
        object.__setattr__(config, RUN_CONFIG, self.config)
        self._load(config, call.called_as)
        if stream is not None:
            config.run.out_stream = stream
            config.run.err_stream = stream
            config.run.in_stream = False
        return config

    def _load(self, config: Config, called_as: str | None) -> None:
        ours = self.collection.configuration(called_as)
        try:
            _check_sections(ours, config)
            config.load_collection(ours)
            config.load_shell_env()
        except InvalidSetting as error:
            raise _told(error) from error
        except (UncastableEnvVar, AmbiguousEnvVar, ValueError) as error:
            raise _told(InvalidSetting(f"{_variable(error)}: {error}")) from error

    def _fail(self, outcome: schedule.Result[int], nodes: Sequence[Call]) -> None:
        posts = [Call(item) if isinstance(item, Task) else item for call in nodes for item in call.post]
        for index, cause in outcome.skipped.items():
            if nodes[index] in posts:
                continue  # that post-tasks do not run after a failure goes without saying
            reason = f"skipped {_name(nodes[index])}: {_name(nodes[cause])} failed"
            Console(Redactor()).note(reason)
        first, *others = outcome.failed.values()
        for error in others:
            told = error.message if isinstance(error, Exit) else f"error: {error}"
            if told:
                Console(Redactor()).note(told)
        raise first


def _after(index: int, nodes: Sequence[Call], needs: Sequence[Sequence[int]]) -> list[int]:
    followers = nodes[index].post
    wanted = [Call(item) if isinstance(item, Task) else item for item in followers]
    return [other for other, call in enumerate(nodes) if call in wanted and index in needs[other]]


def _name(call: Call) -> str:
    return call.called_as or call.task.name


def _check_sections(ours: Mapping[str, Any], config: Any, path: str = "") -> None:
    """Raise Exit where the configuration has a plain value for what is a section; Invoke's own word is a traceback."""
    for key, value in ours.items():
        given = config.get(key) if isinstance(value, dict) else None
        if isinstance(given, (str, int, float, list)):
            raise InvalidSetting(f"{path}{key}: expected a section, got {given!r}")
        if given is not None:
            _check_sections(value, given, f"{path}{key}.")


def _told(error: InvalidSetting) -> Exit:
    """Tell an error that comes before any task; in JSON, too, where the run reports so."""
    Console(Redactor()).fail(error, json=reports_json())
    return Exit(code=error.exit_code)


def _variable(error: Exception) -> str:
    """Return which environment variable Invoke could not take. Its message has the name, or only the value."""
    mine = {name: value for name, value in os.environ.items() if name.startswith("INVOKE_")}
    named = [name for name in mine if name in str(error)]
    guilty = named or [name for name, value in mine.items() if repr(value) in str(error)]
    return ", ".join(guilty or sorted(mine))
