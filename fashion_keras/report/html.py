"""Fills the templates of pages with values."""

import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fashion_keras import __version__
from fashion_keras.artifacts import whole_file
from fashion_keras.cli import duration
from fashion_keras.figures import as_svg

TEMPLATES = Path(__file__).parent / "templates"
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "percent": lambda share: f"{100 * share:.1f} %",
    "number": lambda value: f"{value:.4g}" if isinstance(value, float) else str(value),
    "duration": duration,
    "svg": lambda chart: Markup(as_svg(chart)),  # noqa: S704 (Matplotlib escapes text)
}


def write_page(template: str, content: dict[str, Any], file: Path) -> None:
    """Write a page, whole or not at all; names in `content` are text, whatever they contain."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = _ENVIRONMENT.get_template(template).render(content, made=now, version=__version__)
    with whole_file(file) as unfinished:
        # Names of files may hold what UTF-8 cannot.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
