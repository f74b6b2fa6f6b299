"""The command line: parses, calls, and turns every bad input into one line and exit code 2."""

from __future__ import annotations

import sys

import click

from collapse_lab import __version__
from collapse_lab.errors import InputError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="collapse-lab")
def commands() -> None:
    """Tells whether a self-supervised run is collapsing, how, where and why."""


def main() -> None:
    """Run the command line; exit code 2 and one line on standard error for input that cannot be used."""
    try:
        sys.exit(commands.main(standalone_mode=False))
    except click.Abort:
        sys.exit(130)
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"collapse-lab: {' '.join(message.split())}", err=True)
        sys.exit(2)
