"""Pages from templates: `templates/*.j2`, with their style and script inlined, so that a page is one file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from pipelines.core.manifest import write_atomically

REPORT = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(folder: Path, template: str, content: dict[str, Any]) -> Path:
    """Fill a template and write it as `report.html` into a folder; the path."""
    text = _environment().get_template(template).render(**content)
    write_atomically(folder / REPORT, text.encode())
    return folder / REPORT


@cache
def _environment() -> jinja2.Environment:
    """What is missing is an error, and what is shown is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
