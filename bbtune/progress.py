"""What a run shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn

from bbtune.loop import Cost, Generation, Limits

_PLAIN_EVERY_S = 5.0


class Show(Protocol):
    """A view of a run, entered while it lasts."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def event(self, event: Generation) -> None: ...
    def runs(self, done: int, total: int) -> None: ...
    def say(self, text: str) -> None: ...


def make_show(console: Console, limits: Limits) -> Show:
    """The view that fits the console."""
    return Live(console, limits) if console.is_terminal else Plain(console, limits)


class Plain:
    """One line every few seconds."""

    def __init__(self, console: Console, limits: Limits) -> None:
        self._console = console
        self._limits = limits
        self._pace = Pace(limits)
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to take down."""

    def event(self, event: Generation) -> None:
        """Print the event, unless one was printed just now."""
        self._pace.take(event.cost)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN_EVERY_S
            self.say(f"{describe(event)}  {self._pace.describe()}")

    def runs(self, done: int, total: int) -> None:
        """Nothing: every run that ends has a line."""

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class Live:
    """A progress bar of the budget."""

    def __init__(self, console: Console, limits: Limits) -> None:
        self._pace = Pace(limits)
        columns: list[str | ProgressColumn] = [
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
        ]
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def event(self, event: Generation) -> None:
        """Move the bar."""
        self._pace.take(event.cost)
        text = f"{describe(event)}  {self._pace.describe()}"
        self._progress.update(self._task, completed=self._pace.share, description=text)

    def runs(self, done: int, total: int) -> None:
        """Move the bar of a study."""
        self._progress.update(self._task, completed=done / total, description=f"{done} of {total} runs")

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)


class Pace:
    """Share of the budget that is used, speed, and time left, in this session (replayed events cost no time)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._first: tuple[float, float, int] | None = None
        self.share = 0.0
        self._rate = 0.0
        self._left_s: float | None = None

    def take(self, cost: Cost) -> None:
        """Update from the cost so far."""
        now = time.monotonic()
        limits = self._limits
        used = [
            cost.evaluations / limits.evaluations if limits.evaluations else 0.0,
            cost.examples / limits.examples if limits.examples else 0.0,
            cost.layer_forwards / limits.layer_forwards if limits.layer_forwards else 0.0,
            cost.seconds / limits.seconds if limits.seconds else 0.0,
        ]
        self.share = min(1.0, max(used))
        if self._first is None or (now - self._first[0] < 0.05 and cost.evaluations > self._first[2]):
            self._first = (now, self.share, cost.evaluations)
            return
        seconds = now - self._first[0]
        self._rate = (cost.evaluations - self._first[2]) / max(seconds, 1e-9)
        gained = self.share - self._first[1]
        self._left_s = seconds * (1 - self.share) / gained if gained > 0 else None

    def describe(self) -> str:
        """Such as ``12.3 evaluations/s, 1:05 left``."""
        if self._left_s is None:
            return ""
        minutes, seconds = divmod(round(self._left_s), 60)
        return f"{self._rate:.1f} evaluations/s, {minutes}:{seconds:02d} left"


def describe(event: Generation) -> str:
    """One generation in a line."""
    where = f"layer {event.layers[0]}" if len(event.layers) == 1 else "all layers" if event.layers else "words"
    if event.number == 0:
        where = "start"
    loss = "no loss yet" if event.number == 0 else "losses of parts"  # which cannot be compared
    if event.best_loss is not None:
        loss = f"best loss {event.best_loss:.4f}"
    return (
        f"generation {event.number} ({where})  {loss}  dev {event.dev_metric:.3f}  {event.cost.evaluations} evaluations"
    )
