import os
import signal
import time

import pytest

from hpsearch.data.process_pool import imap_ordered
from hpsearch.errors import UserError


def slow_square(n):
    time.sleep(0.2 if n == 0 else 0)
    return n * n


def die_at_three(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def refuse_two(n):
    if n == 2:
        raise UserError("two is bad; take three")
    return n


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(imap_ordered(slow_square, range(20), workers=workers)) == [n * n for n in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_arrives_as_it_is(workers):
    with pytest.raises(UserError, match="two is bad; take three"):
        list(imap_ordered(refuse_two, range(9), workers=workers))


def test_a_killed_worker_ends_the_work_instead_of_waiting_for_ever():
    with pytest.raises(UserError, match="killed"):
        list(imap_ordered(die_at_three, range(9), workers=2))


def test_jobs_are_taken_only_a_little_ahead_of_the_reader():
    taken = []

    def jobs():
        for n in range(1000):
            taken.append(n)
            yield n

    results = imap_ordered(slow_square, jobs(), workers=2)
    next(results)
    assert len(taken) < 10
    results.close()


def test_processes_multiply_on_one_core_each_unless_the_user_has_set_a_number(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    names = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"]
    assert list(imap_ordered(os.getenv, names, workers=2)) == ["1", "3"]
    assert "OPENBLAS_NUM_THREADS" not in os.environ
