"""What fits on a cluster and who runs where; against Ray's own packing where there is one."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.execution.placement import ResourceAllocator
from hpsearch.search.resources import (
    MAX_TRIALS_PER_GPU,
    MEMORY_SAFETY_MARGIN,
    Node,
    ResourceAllocation,
    Resources,
    candidate_placements,
)

LAPTOP: list[Node] = [{"CPU": 4}]
GPUS: list[Node] = [{"CPU": 16, "GPU": 2}]
MIXED: list[Node] = [{"CPU": 2}, {"CPU": 8, "GPU": 2}, {"CPU": 8, "TPU": 4}]


def kinds(asked: Resources, nodes: list[Node]) -> list[str]:
    return [allocation.kind for allocation in candidate_placements(asked, nodes)]


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (Resources(), LAPTOP, ["cpu"]),
        (Resources(), GPUS, ["gpu"]),
        (Resources(), MIXED, ["gpu", "tpu"]),
        (Resources(device="cpu"), MIXED, ["cpu"]),
        (Resources(device="cuda"), MIXED, ["gpu"]),
        (Resources(device="xla"), MIXED, ["tpu"]),
        (Resources(gpus=0.5), MIXED, ["gpu"]),
        (Resources(gpus=0, tpus=0), MIXED, ["cpu"]),
        (Resources(gpus=1, tpus=2), MIXED, ["gpu", "tpu"]),
    ],
)
def test_kinds_are_found_from_the_cluster_unless_set(
    asked: Resources, nodes: list[Node], expected: list[str]
) -> None:
    assert kinds(asked, nodes) == expected


@pytest.mark.parametrize(
    ("asked", "nodes", "capacity"),
    [
        (Resources(), LAPTOP, 4),
        (Resources(cpus=0.5), LAPTOP, 8),
        (Resources(cpus=3), LAPTOP, 1),
        (Resources(gpus=1), GPUS, 2),
        (Resources(gpus=0.25), GPUS, 8),
        (Resources(gpus=0.4), GPUS, 4),  # two on each, a fifth of each is left over
        (Resources(gpus=0.1), GPUS, 16),  # CPUs are the limit
        (Resources(gpus=2), GPUS, 1),
        (Resources(gpus=1, tpus=2), MIXED, 4),
        (Resources(cpus=5), [{"CPU": 4}, {"CPU": 6}], 1),  # not across nodes
    ],
)
def test_capacity_is_counted_node_by_node(
    asked: Resources, nodes: list[Node], capacity: int
) -> None:
    allocator = ResourceAllocator(asked, nodes)
    taken = [allocator.acquire(str(i)) for i in range(capacity + 3)]
    assert (
        sum(allocation is not None for allocation in taken)
        == capacity
        == allocator.available_slots()
    )


def test_both_kinds_are_used_and_the_one_that_is_free_is_given() -> None:
    allocator = ResourceAllocator(Resources(gpus=1, tpus=4), MIXED)
    first = [allocator.acquire(str(i)) for i in range(4)]
    assert [allocation and allocation.kind for allocation in first] == ["gpu", "gpu", "tpu", None]
    allocator.release("2")
    allocator.release("2")
    allocation = allocator.acquire("5")
    assert allocation is not None
    assert allocation.ray_bundle() == {"CPU": 1, "TPU": 4}


def test_trials_share_a_gpu_as_soon_as_their_memory_is_known() -> None:
    allocator = ResourceAllocator(Resources(), GPUS)
    whole = [allocator.acquire(str(i)) for i in range(3)]
    assert [allocation and allocation.gpus for allocation in whole] == [1, 1, None]
    allocator.record_memory(0.2)  # a quarter with its margin
    allocator.release("0")
    shared = [allocator.acquire(f"later {i}") for i in range(5)]
    assert [allocation and allocation.gpus for allocation in shared] == [0.25] * 4 + [None]
    allocator.record_memory(0.35)  # a larger one: two on each from now on
    allocator.record_memory(0.01)
    for i in range(4):
        allocator.release(f"later {i}")
    assert [bool(allocator.acquire(f"last {i}")) for i in range(3)] == [True, True, False]


def test_however_small_only_so_many_share_a_gpu() -> None:
    allocator = ResourceAllocator(Resources(), [{"CPU": 64, "GPU": 1}])
    allocator.record_memory(0.001)
    taken = [allocator.acquire(str(i)) for i in range(MAX_TRIALS_PER_GPU + 1)]
    assert sum(allocation is not None for allocation in taken) == MAX_TRIALS_PER_GPU


@pytest.mark.parametrize(
    ("asked", "at_once", "words"),
    [
        (Resources(cpus=8), None, " 8 CPUs.* 4 CPUs;"),
        (Resources(gpus=0.5), None, " 1 CPU and 0.5 GPU,"),
        (Resources(device="cuda"), None, " 1 CPU and 1 GPU,"),
        (Resources(tpus=4), None, "4 TPUs"),
        (Resources(), 5, "5 trials at once do not fit: each asks for 1 CPU, .* room for 4"),
    ],
)
def test_what_can_never_run_is_refused(asked: Resources, at_once: int | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ResourceAllocator(asked, LAPTOP, at_once)


def test_nodes_that_join_are_used_and_nodes_that_left_are_waited_for() -> None:
    allocator = ResourceAllocator(Resources(), LAPTOP)
    allocator.update_nodes([*LAPTOP, {"CPU": 8, "GPU": 2}])
    assert [getattr(allocator.acquire(str(i)), "kind", None) for i in range(3)] == [
        "gpu",
        "gpu",
        None,
    ]
    allocator = ResourceAllocator(Resources(gpus=1), GPUS)
    allocator.update_nodes(LAPTOP)
    assert allocator.acquire("0") is None
    allocator.update_nodes(GPUS)
    assert allocator.acquire("0") is not None


def test_at_most_so_many_at_once() -> None:
    allocator = ResourceAllocator(Resources(), LAPTOP, 2)
    assert [bool(allocator.acquire(str(i))) for i in range(3)] == [True, True, False]


def fits_somewhere(running: list[ResourceAllocation], nodes: list[Node]) -> bool:
    """Whether all have room at once, each on one node and each share on one GPU; by trying.

    Largest first into the fullest device that has room, as Ray does.
    """
    cpus = [node.get("CPU", 0.0) for node in nodes]
    gpus = [[1.0] * int(node.get("GPU", 0)) for node in nodes]
    for allocation in sorted(running, key=lambda allocation: -allocation.gpus):
        for node in range(len(nodes)):
            free = [gpu for gpu in gpus[node] if gpu >= allocation.gpus - 1e-9]
            if cpus[node] >= allocation.cpus - 1e-9 and free:
                gpu = gpus[node].index(min(free))
                gpus[node][gpu] -= allocation.gpus
                cpus[node] -= allocation.cpus
                break
        else:
            return False
    return True


@given(
    gpus=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    steps=st.lists(
        st.one_of(st.just("take"), st.integers(0, 20), st.floats(0.001, 1.0)), max_size=60
    ),
)
@settings(max_examples=150, deadline=None)
def test_trials_that_share_gpus_never_hold_more_than_there_is(
    gpus: list[int], steps: list[str | int | float]
) -> None:
    """Trials come, end, and say in any order how much memory they hold."""
    nodes: list[Node] = [{"CPU": 64.0, "GPU": float(count)} for count in gpus]
    allocator, running, most = (
        ResourceAllocator(Resources(), nodes),
        dict[str, ResourceAllocation](),
        0.0,
    )
    for number, step in enumerate(steps):
        if step == "take":
            allocation = allocator.acquire(str(number))
            if allocation is not None:
                running[str(number)] = allocation
                assert allocation.gpus <= 1
                assert allocation.gpus >= min(1.0, most)
        elif isinstance(step, int) and running:
            ended = list(running)[step % len(running)]
            allocator.release(ended)
            del running[ended]
        elif isinstance(step, float):
            allocator.record_memory(step)
            most = max(most, step)
        assert sum(allocation.gpus for allocation in running.values()) <= sum(gpus) + 1e-9
        assert fits_somewhere(list(running.values()), nodes)


@given(share=st.floats(0.001, 1.0), count=st.integers(1, 4))
def test_gpus_are_filled_as_far_as_memory_allows(share: float, count: int) -> None:
    allocator = ResourceAllocator(Resources(), [{"CPU": 64.0, "GPU": float(count)}])
    allocator.record_memory(share)
    taken = [allocation for i in range(60) if (allocation := allocator.acquire(str(i)))]
    each = len(taken) // count
    assert len(taken) == each * count
    assert each == MAX_TRIALS_PER_GPU or (each + 1) * MEMORY_SAFETY_MARGIN * share > 1, (
        "one more would not fit"
    )
    assert each == 1 or each * MEMORY_SAFETY_MARGIN * share <= 1 + 1e-9


@given(share=st.floats(0.05, 0.999), count=st.integers(1, 3))
def test_a_share_that_is_asked_for_leaves_its_rest_unused(share: float, count: int) -> None:
    allocator = ResourceAllocator(Resources(gpus=share), [{"CPU": 64.0, "GPU": float(count)}])
    held = defaultdict(float)
    taken = [allocation for i in range(80) if (allocation := allocator.acquire(str(i)))]
    for number, allocation in enumerate(taken):
        held[number % count] += allocation.gpus
    assert all(total <= 1 + 1e-6 for total in held.values())
    assert all(total + share > 1 for total in held.values())
