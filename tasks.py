"""What `inv` loads: stackhand's own tasks.

A checkout, a submodule or a copy works without an install: the package lives in `tasks/` beside this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "tasks"))

from stackhand import ns

__all__ = ["ns"]
