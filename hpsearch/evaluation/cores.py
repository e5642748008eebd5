"""Work on all cores without threads inside threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_cores(
    work: Callable[[Item], Result], items: Sequence[Item], *, device: torch.device
) -> list[Result]:
    """``work`` on every item, in order, in as many threads as torch may use on a CPU.

    Each item is worked on by one thread: operations small enough for a core's cache would spend
    longer waiting for the other core, as torch's own threads do, than they last. Meanwhile torch
    is told to use one thread, which holds for the whole process and is undone at the end.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1 or device.type != "cpu":
        return [work(item) for item in items]

    inference = torch.is_inference_mode_enabled()

    def alone(item: Item) -> Result:
        with torch.inference_mode(inference):  # a thread begins with the mode off
            return work(item)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(before)
