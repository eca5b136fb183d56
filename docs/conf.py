"""Sphinx settings of the site; `scripts/docs` builds it. Nothing is loaded from elsewhere, at build or by readers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pytest-atomtrace"
author = "The pytest-atomtrace developers"
copyright = author  # noqa: A001  # Sphinx's name for it

extensions = ["myst_parser"]
root_doc = "README"
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

# The slugs that GitHub makes, so that links to sections work in both places.
myst_heading_anchors = 3
# Options are typed with two hyphens; a dash in their place cannot be copied.
smartquotes = False
myst_enable_extensions: list[str] = []

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False
# Console output is no language, and shell transcripts hold more than a lexer of shells knows.
highlight_language = "text"


def _contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    """The index's lists are the site's navigation; on GitHub a toctree would be shown as code."""
    if docname != root_doc:
        return
    for title, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", source[0], re.MULTILINE):
        pages = "\n".join(re.findall(r"\]\(([\w-]+)\.md\)", body))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _contents)
