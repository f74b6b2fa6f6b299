"""What long work looks like on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from collapse_lab.workers import News

SILENCE = 30.0  # seconds between two plain lines of one run
WAITING = 0.03  # share of the time from which waiting for data is worth a word


class Display:
    """Shows the news of a study's runs; on a terminal a bar a run with rate, loss, std ratio and time left."""

    def __init__(self, runs: int) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._spoken: dict[str, float] = {}
        self._left = runs

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, news: News) -> None:
        """Take in one piece of news."""
        if news.progress is not None:
            p = news.progress
            values = f"{p.images_per_second:6.0f} img/s  loss {p.loss:7.4f}  std ratio {p.std_ratio:5.3f}"
            if p.waiting > WAITING:
                values += f"  waiting for data {100 * p.waiting:.0f} %"
            if p.alert is not None:
                self._console.print(f"{news.run}: {p.alert}", highlight=False, soft_wrap=True)
            self._bars.update(self._tasks[news.run], completed=p.step, total=p.steps, values=values)
            if not self._console.is_terminal and time.monotonic() - self._spoken[news.run] > SILENCE:
                self._spoken[news.run] = time.monotonic()
                self._console.print(f"{news.run}: step {p.step} of {p.steps},{values}", highlight=False, soft_wrap=True)
        elif news.job is not None:
            self._console.print(f"{news.run}: job {news.job} {news.state}", highlight=False, soft_wrap=True)
        elif news.state == "started":
            self._started[news.run] = self._spoken[news.run] = time.monotonic()
            self._tasks[news.run] = self._bars.add_task(news.run, total=None, values="")
        else:
            self._finish(news)

    def _finish(self, news: News) -> None:
        self._left -= 1
        seconds = f" in {time.monotonic() - self._started[news.run]:.0f} s" if news.run in self._started else ""
        if news.run in self._tasks:
            self._bars.remove_task(self._tasks[news.run])
        self._console.print(f"{news.run}: {news.state}{seconds}, {self._left} to go", highlight=False, soft_wrap=True)
