"""A build that gives the same image as before, under another id, changes nothing.

In the containerd image store the id of an image is that of all that belongs to it, also of attestations, which say when
and how it was built. So a build with attestations gives another id each time, and Compose would renew all containers:
the image of before gets its name back. That store deletes an image when its last name goes to another one, so it has a
second name for as long as the build takes (tried with Docker 28).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import split_image_name
from stackhand.errors import StackError

_TAG = "stackhand-before-build"


@contextmanager
def keep_equal_images(engine: Engine, names: Collection[str]) -> Iterator[None]:
    """While the body builds these images, keep those that are here; those that come out the same are back after it."""
    kept: dict[str, str] = {}
    for name in names:
        before = engine.image(name)
        # Elsewhere the id is that of the content: it stays the same by itself.
        if before and before.in_containerd and "@" not in name:
            kept[name] = f"{split_image_name(name)[0]}:{_TAG}"
            engine.tag(before.id, kept[name])
    try:
        yield
    finally:
        for name, second in kept.items():
            with suppress(StackError):
                before, now = engine.image(second), engine.image(name)
                if before and now and before.id != now.id and before.content == now.content:
                    engine.tag(second, name)
                engine.untag(second)
