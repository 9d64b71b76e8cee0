"""Tables and figures for people: as text for the terminal, as Markdown, and as one self-contained HTML page."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment

from infra.report import printable
from infra.templates import page_templates


class PageTable(NamedTuple):
    """A table with a heading."""

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Of as many cells as the head."""


def as_text(tables: Sequence[PageTable]) -> str:
    """Tables below each other in columns of one width."""
    parts = [
        "\n".join(filter(None, [table.title, table.caption, *aligned([table.head, *table.rows])])) for table in tables
    ]
    return printable("\n\n".join(parts))


def as_markdown(tables: Sequence[PageTable]) -> str:
    """The same as a Markdown page."""
    parts = []
    for table in tables:
        rows = [table.head, ["---"] * len(table.head), *table.rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        parts.append("\n".join([f"## {table.title}", "", *([table.caption, ""] if table.caption else []), *lines]))
    return printable("\n\n".join(parts)) + "\n"


def as_html(title: str, lines: Sequence[str], tables: Sequence[PageTable], figures: Sequence[bytes] = ()) -> str:
    """One self-contained page: no script, nothing loaded from elsewhere; figures are SVG of our own drawing."""
    drawn = [figure.decode()[figure.decode().index("<svg") :] for figure in figures]
    page = _template().get_template("tables_page.html.jinja")
    return page.render(title=title, lines=lines, tables=tables, figures=drawn)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns of one width."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@cache
def _template() -> Environment:
    return page_templates(printable=printable)
