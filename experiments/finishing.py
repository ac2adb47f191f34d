"""What is left to do with a group once it has left the model's device, beside the work on the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

Item = TypeVar("Item")

AHEAD: Final = 2
"""How many groups may wait for being finished: more would only take memory."""


@contextmanager
def finishing(finish: Callable[[Item], None], beside: bool) -> Iterator[Callable[[Item], None]]:
    """Gives what takes one item after the other, and has `finish` deal with them in that order; all are done when the `with`
    block ends. With `beside` a thread does it while the caller goes on, at most AHEAD items behind; otherwise the caller does.

    What `finish` raises is raised where the next item is given, or at the end, and no later item is finished. Where the block
    ends by an error or an interrupt, the item that is in work is finished and the others are dropped.
    """
    if not beside:
        yield finish
        return
    pending: deque[Future[None]] = deque()
    thread = ThreadPoolExecutor(1, "finishing")

    def after(former: Future[None] | None, item: Item) -> None:
        if former is not None:
            former.result()  # nothing is written after what could be written by half
        finish(item)

    def give(item: Item) -> None:
        while pending and (len(pending) == AHEAD or pending[0].done()):
            pending.popleft().result()
        former = pending[-1] if pending else None
        pending.append(thread.submit(after, former, item))

    try:
        yield give
        while pending:
            pending.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
