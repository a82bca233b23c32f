"""Pictures of many clients, through the network together.

A network takes 16 pictures in little more than a third of the time that it takes for them one by
one. `Batcher` keeps what arrives while a batch is under way, and makes the next batch of it: nobody
waits for a batch to fill. One thread computes, as a batch already uses all cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np


class Busy(Exception):
    """More pictures wait than the server is willing to hold."""


@dataclass(eq=False)
class _Waiting:
    image: np.ndarray
    answer: asyncio.Future[Any]


class Batcher:
    """Answers of `classify`, (B, H, W, 3) to a list of B, for single pictures (H, W, 3).

    Use it within `async with`. `most` pictures may wait; `batch_size` are classified at once.
    """

    def __init__(self, classify: Callable[[np.ndarray], list[Any]], batch_size: int, most: int):
        self.classify, self.batch_size = classify, batch_size
        self.waiting: asyncio.Queue[_Waiting] = asyncio.Queue(most)

    async def __aenter__(self) -> Batcher:
        self.thread = ThreadPoolExecutor(1, "minitl-network")
        self.task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.task.cancel()
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def ask(self, image: np.ndarray) -> Any:
        """The answer for one picture. Raises Busy at once when too many wait already."""
        each = _Waiting(image, asyncio.get_running_loop().create_future())
        try:
            self.waiting.put_nowait(each)
        except asyncio.QueueFull:
            raise Busy from None
        return await each.answer

    async def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of another function, on the thread that computes."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)

    async def _work(self) -> None:
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < self.batch_size and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            batch = [each for each in batch if not each.answer.done()]  # whose client stayed
            if not batch:
                continue
            try:
                answers = await self.alone(self.classify, np.stack([each.image for each in batch]))
            except Exception as error:
                for each in batch:
                    if not each.answer.done():
                        each.answer.set_exception(error)
                continue
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
