"""An image that is built again and comes out the same."""

from __future__ import annotations

import pytest

from stackhand.engine.api.containers import Image
from stackhand.services.start.equal_images import keep_equal_images

OLD = Image("old", content="same", in_containerd=True)


class Store:
    """Containerd's image store: an image is gone when it has no name left."""

    def __init__(self, **images: Image) -> None:
        self.images = images

    def image(self, name: str) -> Image | None:
        return self.images.get(name)

    def tag(self, image: str, name: str) -> None:
        found = self.images.get(image) or next(each for each in self.images.values() if each.id == image)
        self.images[name] = found

    def untag(self, name: str) -> None:
        del self.images[name]


@pytest.mark.parametrize(
    ("before", "built", "after"),
    [
        (OLD, Image("new", content="same", in_containerd=True), "old"),
        (OLD, Image("new", content="other", in_containerd=True), "new"),
        (OLD, None, "old"),  # the build failed
        (Image("old", content="same"), Image("new", content="same"), "new"),  # another store
    ],
)
def test_the_same_content_keeps_its_image(before: Image, built: Image | None, after: str) -> None:
    store = Store(app=before)
    with keep_equal_images(store, ["app", "first"]):  # type: ignore[arg-type]
        if built:
            store.images["app"] = built
    assert {name: image.id for name, image in store.images.items()} == {"app": after}


def test_an_interrupted_build_leaves_no_second_name() -> None:
    store = Store(app=OLD)
    with pytest.raises(KeyboardInterrupt), keep_equal_images(store, ["app"]):  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert list(store.images) == ["app"]
