"""What the post-startup fixes cost where nothing is wrong: `services.fixes` on the healthy reference stack.

It counts only when nothing was changed: no fix in the document, every container the same as before.
"""

from __future__ import annotations

import json

from common import Bound, InvalidRunError, Options, Report, main, measure, say
from reference import reference

FIXES, PLAIN = "services.fixes", "services.status"


def compare(options: Options) -> Report:
    """Run the fixes on a stack that needs none."""
    report = Report("post-startup fixes, healthy reference stack")
    with reference(options) as stack:
        before = stack.identities()
        for _ in range(options.runs):
            for task in (FIXES, PLAIN):
                done = measure([*options.stackhand, task, "--json"], stack.folder, stack.env)
                document = json.loads(done.stdout)
                if done.code or document.get("fixes"):
                    raise InvalidRunError(f"{task} ended with {done.code} and found {document}")
                say(f"  {task}: {done.seconds:.2f} s")
                report.add(task, done.seconds)
        if stack.identities() != before:
            raise InvalidRunError("a container is not the one that it was before")
    report.bounds = [Bound("seconds of services.fixes", report.median(FIXES), 3.0)]
    return report


if __name__ == "__main__":
    main(compare, runs=5)
