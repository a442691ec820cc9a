"""Runs all comparisons one after another: `python bench`, `bench/run`.

With names, only those: `python bench start_seven list_tasks`. Exit code 1 when a bound is not met or a
comparison could not be made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPARISONS = (
    "list_tasks",
    "start_seven",
    "start_fast_probes",
    "start_reference",
    "start_large",
    "start_many",
    "fixes_healthy",
    "fixes_workers",
    "restart_reference",
    "perms_fix",
)


def main() -> int:
    """Run the comparisons and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(COMPARISONS)}")
    parser.add_argument("--runs", help="runs of each side (default: each comparison's own)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--stackhand", help="command line up to the task, for example `inv`")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(COMPARISONS))
    if unknown:
        parser.error(f"no comparison is named {', '.join(unknown)}; there are {', '.join(COMPARISONS)}")
    words = [f"--{name}={value}" for name in ("runs", "stackhand") if (value := getattr(chosen, name))]
    worst, documents = 0, {}
    pipe = subprocess.PIPE if chosen.json else None
    for name in chosen.names or COMPARISONS:
        print(f"== {name}", file=sys.stderr, flush=True)
        argv = [sys.executable, str(HERE / f"{name}.py"), *words, *(["--json"] if chosen.json else [])]
        try:
            done = subprocess.run(argv, stdout=pipe, text=True, check=False)
        except KeyboardInterrupt:  # the comparison has got it as well, and has cleaned up
            return 130
        if done.returncode == 130:
            return 130
        worst = max(worst, min(done.returncode, 1))
        if chosen.json:
            documents[name] = json.loads(done.stdout or '{"ok": false}')
        else:
            print(flush=True)
    if chosen.json:
        print(json.dumps(documents, indent=2, ensure_ascii=False))
    return worst


if __name__ == "__main__":
    sys.exit(main())
