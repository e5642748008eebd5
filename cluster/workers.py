"""Asks the autoscaler of a Ray cluster for workers, and waits until they are there.

A search takes the workers that it finds when it begins. From this repository, as a job::

    ray job submit --working-dir cluster -- python workers.py GPU 8
    ray job submit --working-dir cluster -- python workers.py GPU 0

Asked for none, those that are idle for long enough are taken away.
"""

import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

PAUSE = 5
"""Seconds between two looks."""


def ask(kind: str, amount: int) -> None:
    """Ask for as much of CPU, GPU or TPU, and return when the cluster has it."""
    ray.init(address="auto", log_to_driver=False)
    request_resources(bundles=[{kind: 1}] * amount)
    while ray.cluster_resources().get(kind, 0) < amount:
        time.sleep(PAUSE)


if __name__ == "__main__":
    ask(sys.argv[1], int(sys.argv[2]))
