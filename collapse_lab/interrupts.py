"""SIGINT and SIGTERM, noted while a step or a file is being finished and obeyed at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While the context is open, SIGINT and SIGTERM are noted instead of raised; ``check`` raises what was noted.

    Inside ``at_once`` they raise ``KeyboardInterrupt`` wherever the program is. What was noted and never checked is raised
    when the context ends, unless another exception ends it. Signals reach the main thread alone, so in other threads
    this does nothing. Contexts may be nested: the inner one hears.
    """

    def __init__(self) -> None:
        self.noted = False
        self._raising = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` where a signal was noted."""
        if self.noted:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals interrupt what runs inside, for work that is done again or not at all."""
        self._raising = True
        try:
            # After the switch, so that no signal falls between the two.
            self.check()
            yield
        finally:
            self._raising = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        if self._raising:
            raise KeyboardInterrupt
