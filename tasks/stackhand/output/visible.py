"""Shows control characters instead of sending them, so that no text from elsewhere drives the terminal."""

from __future__ import annotations

import re

# Control characters but tab and line feed (C0, DEL, C1), and what reorders or hides text: line separators, zero-width
# characters, bidirectional controls (https://www.unicode.org/reports/tr9/), tags, and halves of surrogate pairs.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return `text` with its control characters as Python writes them; line feeds and tabs stay.

    >>> visible("red \\x1b[31m, \\u202eback")
    'red \\\\x1b[31m, \\\\u202eback'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
