"""The reference stack, one changed service: `services.restart` against `docker compose up -d --build --wait`.

The stack runs and is healthy. Then the code of the api changes, by one line, and each side in turn takes that up. The
api has an image and a build context of its own here, so that it is one service that changes. Afterwards
`services.restart` is called with nothing changed.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors
from common import Bound, InvalidRunError, Options, Project, Report, main, measure, say
from reference import reference

COMPOSE, STACKHAND = "docker compose up -d --build --wait", "services.restart"
IDLE = "services.restart, nothing changed"
_CHANGED = "api"


def compare(options: Options) -> Report:
    """Change the api and restart it with both sides in turns."""
    report = Report("reference stack, the code of one service changed")
    with reference(options, _with_images_of_its_own) as stack:
        try:
            # Builds are remembered from here on; to Compose its own are known.
            _restart(stack, options)
            _take_turns(stack, options, report)
        finally:
            stack.remove()
            _remove_images(stack)
    report.bounds = [
        Bound("time / compose's time", report.median(STACKHAND) / report.median(COMPOSE), 0.5),
        Bound("nothing changed", report.median(IDLE), 2.0, " s"),
    ]
    report.notes.append(f"in every run of services.restart all other services than {_CHANGED} kept id and StartedAt")
    return report


def _take_turns(stack: Project, options: Options, report: Report) -> None:
    for turn in range(options.runs):
        _change(stack, 2 * turn)
        done = measure(COMPOSE.split(), stack.folder, stack.env)
        if done.code:
            raise InvalidRunError(f"`{COMPOSE}` failed: {done.stderr.strip()[-500:]}")
        say(f"  {COMPOSE}: {done.seconds:.2f} s")
        _require(stack, 2 * turn)
        report.add(COMPOSE, done.seconds)
        # What Compose has built is news to stackhand, once.
        _restart(stack, options)

        before = _change(stack, 2 * turn + 1)
        seconds, document = _restart(stack, options)
        if [each["service"] for each in document["changed"]] != [_CHANGED]:
            raise InvalidRunError(f"services.restart took {document['changed']} for changed")
        _require(stack, 2 * turn + 1, before)
        report.add(STACKHAND, seconds)

        before = stack.identities()
        seconds, document = _restart(stack, options)
        if document["changed"] or stack.identities() != before:
            raise InvalidRunError(f"services.restart had something to do: {document['changed']}")
        report.add(IDLE, seconds)


def _with_images_of_its_own(stack: Project) -> None:
    """Name the images after the project, since they will be changed; the api gets one from a copy of the code."""
    compose = stack.folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("image: ai-workflow-", f"image: {stack.name}-"))
    shutil.copytree(stack.folder / "app", stack.folder / _CHANGED)
    own = {"services": {_CHANGED: {"image": f"{stack.name}-{_CHANGED}", "build": f"./{_CHANGED}"}}}
    (stack.folder / "compose.bench.json").write_text(json.dumps(own))
    stack.env["COMPOSE_FILE"] = "compose.yaml:compose.bench.json"


def _remove_images(stack: Project) -> None:
    for image in stack.client.images(filters={"reference": f"{stack.name}-*"}):
        with suppress(docker.errors.APIError):
            stack.client.remove_image(image["Id"], force=True)


def _code(stack: Project) -> Path:
    return stack.folder / _CHANGED / "aiworkflow" / "api.py"


def _change(stack: Project, number: int) -> dict[str, tuple[str, str]]:
    """Change the api's code; return which containers there are, and since when they run."""
    with _code(stack).open("a") as file:
        file.write(f"\nCHANGE = {number}\n")
    return stack.identities()


def _restart(stack: Project, options: Options) -> tuple[float, dict[str, Any]]:
    argv = [*options.stackhand, "services.restart", "--json"]
    done = measure(argv, stack.folder, stack.env)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise InvalidRunError(f"services.restart printed no JSON: {done.stderr.strip()[-500:]}") from None
    if done.code or not document["ok"]:
        raise InvalidRunError(f"services.restart ended with {done.code}: {done.stderr.strip()[-500:]}")
    say(f"  services.restart: {done.seconds:.2f} s")
    return done.seconds, document


def _require(stack: Project, number: int, before: dict[str, tuple[str, str]] | None = None) -> None:
    """Raise InvalidRunError where the api does not run its new code, or another container is not as it was `before`.

    Compose starts one-shots again at every `up`, and recreates the caddy with them; that is its way, and part of its
    time.
    """
    stack.require_ready()
    asked = stack.compose("exec", "-T", _CHANGED, "python3", "-c", "import aiworkflow.api as a; print(a.CHANGE)")
    if asked.strip() != str(number):
        raise InvalidRunError(f"{_CHANGED} runs change {asked.strip()!r} where {number} is the newest")
    touched = [name for name, now in stack.identities().items() if before and now != before[name] and name != _CHANGED]
    if touched:
        raise InvalidRunError(f"{', '.join(sorted(touched))} were restarted, and had not changed")


if __name__ == "__main__":
    main(compare, runs=3)
