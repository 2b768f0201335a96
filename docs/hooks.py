"""What MkDocs does with links that lead out of the folder of the pages."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
_PDOC = re.compile(r"\[([^\]]+)\]\((python/[^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files of the repository are no pages: their paths are said. pdoc's pages come after MkDocs has looked."""
    said = _OUTSIDE.sub(r"\1 (`\2`)", markdown)
    return _PDOC.sub(r'<a href="\2">\1</a>', said)
