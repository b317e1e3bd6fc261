"""How Sphinx builds the documentation: ``nox -s docs``."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
import re
from typing import Any
from typing import Optional

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import sqla_smartpool
from sqla_smartpool.settings import Settings

project = "sqla_smartpool"
author = "the sqla_smartpool authors"
project_copyright = author
release = version = sqla_smartpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
_BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not (_BENCHMARKS / "report" / "README.md").is_file():
    # python -m benchmarks.report has not been called yet
    exclude_patterns.append("performance-report.md")
# a reference that leads nowhere is an error, but for those to other projects
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sqla_smartpool)[\w.]*"),
]
default_role = "any"
# error texts are searched for as they are
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
# of a program's output, which nobody should see in colours of a language
highlight_language = "none"

html_theme = "furo"
html_title = "sqla_smartpool"
html_copy_source = False
html_show_sourcelink = False

#: arguments for SQLAlchemy's and the pool's own use
_PRIVATE = re.compile(r"_\w+")


def _signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: Optional[str],
    returned: Optional[str],
) -> Optional[tuple[str, Optional[str]]]:
    """Show arguments with their defaults, and none of what is only read."""
    if what != "class":
        return None
    if not issubclass(obj, sqla_smartpool.SmartPool):
        given = name.rpartition(".")[2] in ("PoolCollector", "SmartPoolPlugin")
        return None if given else ("", None)
    defaults = {
        item.name: item.default for item in dataclasses.fields(Settings)
    }
    shown = []
    for parameter in inspect.signature(obj).parameters.values():
        default = defaults.get(parameter.name, parameter.default)
        if parameter.name == "recycle":
            default = Settings().recycle
        if default is parameter.empty:
            shown.append(parameter.name)
        elif not _PRIVATE.match(parameter.name):
            shown.append(f"{parameter.name}={default!r}")
    return f"({', '.join(shown)})", None


def _without_long_values(app: Sphinx, doctree: nodes.document) -> None:
    """Defaults that are objects say nothing."""
    for node in list(doctree.findall(addnodes.desc_annotation)):
        if re.match(r"\s*=.{30}", node.astext()):
            node.parent.remove(node)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _without_long_values)
