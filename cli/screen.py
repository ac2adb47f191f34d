"""What goes on the screen: tables that read well in a terminal and in a file, and short lines of progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from ..reports import FILE_WIDTH

if TYPE_CHECKING:
    from rich.console import Console

    from ..reports.page import Page


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or FILE_WIDTH wide where there is none."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else FILE_WIDTH, highlight=False)


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table of plain text; the columns headed by a name in `right` hold numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        justify: Literal["right", "left"] = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in (*right, headings[0]), overflow="fold")  # to be copied
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    screen = console()
    screen.print(Text(title, "bold"))
    screen.print(table)


def show_page(screen: Console, page: Page, files: str = "") -> None:
    """Print the page of a comparison; `files` says what was written where."""
    from ..reports.protocol import put_beside
    from ..reports.table import put

    put(screen, page.tables)
    screen.print(page.explained, style="dim", markup=False)
    for told, style in ((files, ""), (page.missing, "red")):
        if told:
            screen.print(told, style=style, markup=False, soft_wrap=True)
    if page.said:
        screen.print(page.said, style="bold", markup=False, soft_wrap=not screen.is_terminal)  # one line in a file
    put_beside(screen, page.beside)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal's stderr that something takes its time."""
    with console(stderr=True).status(f"{what} ..."):
        yield
