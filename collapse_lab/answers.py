"""What a command says: its answer on standard output, all else on standard error."""

from __future__ import annotations

import json
from typing import Any

import click

# Imported when something is printed, as help comes without pandas.


def answer(document: Any, cells: list[dict[str, str]], as_json: bool, caption: str = "") -> None:
    """Print a document as JSON, or its rows as a table with a caption."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from collapse_lab.tables import terminal

    console = Console()
    # A pipe has no width of its own; a table cut to 80 columns would lose its numbers.
    console = console if console.is_terminal else Console(width=200)
    console.print(terminal(cells))
    if caption:
        console.print(caption, highlight=False)


def print_study(summary: dict[str, Any]) -> None:
    """Print the tables of one study, what failed in it, and what its columns are."""
    from collapse_lab import study_tables

    click.echo(f"\n{summary['study']}: {summary['question']}")
    for cells in study_tables.as_tables(summary):
        answer(summary, cells, as_json=False)
    for line in (*study_tables.failures(summary), study_tables.caption(summary)):
        click.echo(line)


def tell(text: str) -> None:
    """Say something that is no part of the answer."""
    click.echo(text, err=True)
