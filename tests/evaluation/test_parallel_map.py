import threading

import numpy as np
import pytest
import torch

from hpsearch.evaluation import evaluate
from hpsearch.evaluation.distances import parallel_map

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_items_keep_their_order_and_each_has_one_thread(two_threads):
    meeting = threading.Barrier(2, timeout=120)

    def work(item):
        meeting.wait()  # two items are worked on at the same time
        return item, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert parallel_map(work, range(6), device=CPU) == [(i, 1, True) for i in range(6)]
    assert parallel_map(work, range(2), device=CPU) == [(i, 1, False) for i in range(2)]


def test_the_number_of_threads_is_as_before_even_after_an_error(two_threads):
    def work(item):
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        parallel_map(work, range(3), device=CPU)
    assert torch.get_num_threads() == 2


def test_scores_do_not_depend_on_threads(golden, golden_scores, two_threads):
    descriptors, tasks, _ = golden
    found = evaluate(descriptors, tasks)
    for part in ("verified", "matched", "retrieved"):
        for name, values in vars(getattr(golden_scores, part)).items():
            np.testing.assert_array_equal(getattr(getattr(found, part), name), values)
