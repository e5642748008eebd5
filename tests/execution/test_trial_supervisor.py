"""The supervisor in every order of Tune's hooks: one event log and one study."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle, permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import NopPruner
from ray.air.constants import TRAINING_ITERATION
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.utils import flatten_dict

from hpsearch.config import TrialConfig
from hpsearch.execution.freeze_thaw_searcher import FreezeThawSearcher
from hpsearch.execution.hang_detector import ReportTimeouts
from hpsearch.execution.optuna_searcher import OUTCOME_ATTR, OptunaSearcher
from hpsearch.execution.placement import ResourceAllocator
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.execution.trial_supervisor import TrialSupervisor
from hpsearch.execution.tune_callbacks import (
    EventLogCallback,
    HangDetector,
    PruningScheduler,
    ResourceAwareSearcher,
    SearchStopper,
)
from hpsearch.execution.worker_messages import (
    DiskFull,
    Failed,
    Reported,
    Restarted,
    WorkerMessage,
    decode_config,
    encode_config,
    from_dict,
)
from hpsearch.search.pruners import PrunerWithHistory, SuccessiveHalving
from hpsearch.search.requests import SearchRequests, append_request
from hpsearch.search.resources import MEMORY_SHARE_METRIC, Node, Resources
from hpsearch.search.space_file import load_search
from hpsearch.search.stopping import Limits, UsageTracker
from hpsearch.search.study import open_study
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import runs_from

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.samplers import Fixed
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=4,
                sampler=Fixed(points=[{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}, {"lr": 0.4}]),
                baseline=TrialConfig(patches=100))
"""
HOOKS = ("scheduler", "searcher", "callback")
ORDERS = list(permutations(HOOKS))
TUNE_ORDER = ORDERS[0]
"""The order of Ray 2.60."""
DIED = "ray.exceptions.RayActorError: The actor died unexpectedly"
PREEMPTED = "ray::f\nhpsearch.execution.shutdown.TrialInterrupted: saved, and left"


def request(tune: "Tune", action: Any, **fields: Any) -> None:
    append_request(tune.supervisor.event_log, action, **fields)
    tune.supervisor.poll_requests()


def test_requests_of_users_are_followed(tmp_path: Path) -> None:
    tune = Tune(tmp_path, cycle([TUNE_ORDER]))
    supervisor = tune.supervisor
    supervisor.requests = SearchRequests(supervisor.event_log)
    good = tune.start()
    request(tune, "concurrency", count=1)
    assert tune.searcher.suggest("a second") is None, "one at a time"
    request(tune, "concurrency", count=4)
    request(tune, "pause")
    assert tune.searcher.suggest("a third") is None
    request(tune, "continue")
    bad = tune.start()
    request(tune, "stop-trial", trial=bad.config["id"])
    assert not tune.report(good, Reported(10, 0.5))
    assert tune.report(bad, Reported(10, 0.9)), "although it is the better one"
    tune.complete(bad)
    assert tune.report(good, Reported(100, 0.7, "completed"))
    tune.complete(good)
    ends = [e for e in tune.books()[0] if e["event"] == "trial_finished"]
    assert [(e["status"], e["reason"]) for e in ends] == [
        ("pruned", "stopped on request"), ("completed", ""),
    ]  # fmt: skip
    request(tune, "pause")
    assert tune.searcher.suggest("a fourth") is None
    append_request(supervisor.event_log, "stop")
    # while nothing runs, Tune calls the searcher alone
    assert tune.searcher.suggest("a fourth") == ResourceAwareSearcher.FINISHED
    assert not tune.searcher.exhausted, "trials are left, so the search has not ended"
    tune.detector.on_step_begin(0, [])


@pytest.mark.parametrize("order", ORDERS)
def test_a_trial_that_costs_too_much_ends_at_its_first_report(
    tmp_path: Path, order: Sequence[str]
) -> None:
    limits = 'constraints=("parameters < 100", "val/mAP > 0.6"),'
    tune = Tune(tmp_path, cycle([order]), space=SPACE.replace("trials=4,", f"trials=4, {limits}"))
    small, large = tune.start(), tune.start()
    assert not tune.report(small, Reported(10, 0.5, metrics=metrics(50, 0.5))), "may still improve"
    assert tune.report(large, Reported(10, 0.9, metrics=metrics(150, 0.9)))
    tune.complete(large)
    assert tune.report(small, Reported(100, 0.55, "completed", metrics=metrics(50, 0.55)))
    tune.complete(small)
    events, trials = tune.books()
    assert [(e["status"], e["reason"]) for e in events if e["event"] == "trial_finished"] == [
        ("infeasible", "parameters is 150, and the limit is parameters < 100"),
        ("infeasible", "val/mAP is 0.55, and the limit is val/mAP > 0.6"),
    ]
    assert [state for state, *_ in trials] == ["COMPLETE", "COMPLETE"]
    assert trials[1][-1]["parameters < 100"] == pytest.approx(0.5)


def metrics(parameters: float, score: float) -> dict[str, float]:
    return {"cost/parameters": float(parameters), "val/mAP": score}


PAUSING = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import FreezeThaw
from hpsearch.search.samplers import GP
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=4, sampler=GP(),
                pruner=FreezeThaw(), baseline=TrialConfig(patches=100))
"""


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_paused_trial_has_not_ended_and_frees_its_worker(
    tmp_path: Path, order: Sequence[str]
) -> None:
    tune = Tune(tmp_path, cycle([order]), nodes=[{"CPU": 1}])
    tune.space.write_text(PAUSING)
    supervisor = tune.supervisor
    supervisor.searcher = FreezeThawSearcher(tune.folder, space=tune.space, trials=2)
    supervisor.pruner = PrunerWithHistory(NopPruner(), direction="maximize", name="supervised")
    supervisor.requests = SearchRequests(supervisor.event_log)
    first = tune.start()
    request(tune, "pause")
    assert not tune.report(first, Reported(10, 0.5)), "its worker would have nothing to do"
    request(tune, "continue")
    assert tune.report(first, Reported(20, 0.6))
    tune.complete(first)
    second = tune.start()
    assert second.config["id"] == "001"
    assert tune.report(second, Reported(10, 0.1)), "no other may begin, and the first is better"
    tune.complete(second)
    again = tune.start()
    assert again.config["id"] == "000"
    assert not tune.report(again, Reported(20, 0.6)), "a repeated report decides nothing"
    request(tune, "stop-trial", trial="001")
    assert tune.report(again, Reported(100, 0.8, "completed"))
    tune.complete(again)
    assert tune.searcher.suggest("another") == ResourceAwareSearcher.FINISHED
    events, trials = tune.books()
    others = [event for event in events if event["event"] not in ("request", "report")]
    assert [f"{event['event']} {event['trial']}" for event in others] == [
        "start 000", "trial_paused 000", "start 001", "trial_paused 001", "start 000",
        "trial_finished 001", "trial_finished 000",
    ]  # fmt: skip
    assert [trial[0] for trial in trials] == ["COMPLETE", "RUNNING"]
    runs = runs_from(supervisor.event_log.events())
    assert [(run.status, run.pauses, run.retries, run.reason) for run in runs] == [
        ("completed", 1, 0, ""), ("pruned", 0, 0, "stopped on request"),
    ]  # fmt: skip


class Tune:
    """As Ray Tune calls the hooks about a trial, but in any order.

    Args:
        order: the hooks to call, for one event after the other.
    """

    def __init__(
        self,
        home: Path,
        order: Iterator[Sequence[str]],
        nodes: list[Node] | None = None,
        space: str = SPACE,
    ) -> None:
        self.folder = home / "supervised"
        self.folder.mkdir(parents=True)
        self.space = self.folder / "space.py"
        self.space.write_text(space)
        self.order, self.ids, self.seconds = order, map("attempt-{}".format, count()), 0.0
        nodes = nodes or [{"CPU": 4}]
        allocator = ResourceAllocator(Resources(), nodes)
        self.supervisor = TrialSupervisor(
            event_log=EventLog(self.folder / "ledger.jsonl"),
            searcher=OptunaSearcher(self.folder, space=self.space, trials=4),
            allocator=allocator,
            retry_policy=RetryPolicy(),
            pruner=PrunerWithHistory(
                SuccessiveHalving((10.0,), 2.0), direction="maximize", name="supervised"
            ),
            timeouts=ReportTimeouts(report_timeout=60),
            shutdown=GracefulShutdown(
                notify_workers=lambda: None, has_running_trials=lambda: allocator.has_running
            ),
        )
        self.searcher = ResourceAwareSearcher(self.supervisor)
        self.scheduler = PruningScheduler(self.supervisor)
        self.callback = EventLogCallback(self.supervisor)
        self.detector = HangDetector(self.supervisor, clock=lambda: self.seconds)
        usage = UsageTracker(Limits(), self.supervisor.event_log)
        self.stopper = SearchStopper(usage, self.supervisor)

    def add(self) -> Any:
        """The next trial; Tune asks the searcher, and then shows it to the scheduler."""
        trial_id = next(self.ids)
        config = self.searcher.suggest(trial_id)
        assert isinstance(config, dict)
        trial = SimpleNamespace(
            trial_id=trial_id, config=config, error_file=None, last_result={}, iteration=0,
            temporary_state=SimpleNamespace(ray_actor=object()),
        )  # fmt: skip
        self.scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        return trial

    def start(self) -> Any:
        trial = self.add()
        for _ in range(2):  # the second time changes nothing
            self.callback.on_trial_start(0, [trial], trial)
        return trial

    def report(self, trial: Any, message: WorkerMessage) -> bool:
        """A result of the worker; whether the scheduler stops the trial."""
        trial.iteration += 1
        result = {TRAINING_ITERATION: trial.iteration, "config": trial.config, **message.to_dict()}
        flat, decision = flatten_dict(result), []
        self._call(
            scheduler=lambda: decision.append(self.scheduler.on_trial_result(None, trial, flat)),
            searcher=lambda: self.searcher.on_trial_result(trial.trial_id, flat),
            callback=lambda: self.callback.on_trial_result(0, [trial], trial, result),
        )
        trial.last_result = result
        assert len(set(decision)) == 1, "one decision, however often it is asked for"
        return decision[0] == PruningScheduler.STOP

    def complete(self, trial: Any) -> None:
        flat = flatten_dict(trial.last_result)
        self._call(
            scheduler=lambda: self.scheduler.on_trial_complete(None, trial, flat),
            searcher=lambda: self.searcher.on_trial_complete(trial.trial_id, result=flat),
            callback=lambda: self.callback.on_trial_complete(0, [trial], trial),
        )

    def fail(self, trial: Any, error: str) -> None:
        """The worker has raised or died; Tune writes the error before it calls any hook."""
        path = self.folder / f"{trial.trial_id}.error"
        path.write_text(error)
        trial.error_file = str(path)
        self._call(
            scheduler=lambda: self.scheduler.on_trial_error(None, trial),  # type: ignore[arg-type]
            searcher=lambda: self.searcher.on_trial_complete(trial.trial_id, error=True),
            callback=lambda: self.callback.on_trial_error(0, [trial], trial),
        )

    def _call(self, **hooks: Callable[[], object]) -> None:
        for name in next(self.order):
            hooks[name]()

    def books(self) -> tuple[list[dict], list[tuple]]:
        """Event log without its times, and what the study holds of each trial."""
        events = self.supervisor.event_log.events()
        study = open_study(self.folder, search=load_search(self.space))
        return [{k: v for k, v in event.items() if k != "time"} for event in events], [
            (t.state.name, t.values, t.intermediate_values, t.user_attrs, t.constraints)
            for t in study.trials
        ]


def completes(tune: Tune) -> None:
    trial = tune.start()
    assert not tune.report(trial, Reported(10, 0.5, metrics={"train/seconds": 3.0}))
    assert tune.report(trial, Reported(100, 0.7, "completed"))
    tune.complete(trial)


def is_pruned(tune: Tune) -> None:
    good, bad = tune.start(), tune.start()
    assert not tune.report(good, Reported(10, 0.5))
    assert tune.report(bad, Reported(10, 0.2))
    tune.complete(bad)


def collapses(tune: Tune) -> None:
    trial = tune.start()
    assert tune.report(trial, Reported(20, 0.0, "collapsed", collapsed=True, reason="one point"))
    tune.complete(trial)


def ends_without_a_report(tune: Tune) -> None:
    tune.complete(tune.start())


def dies_and_is_retried(tune: Tune) -> None:
    trial = tune.start()
    assert not tune.report(trial, Reported(10, 0.5))
    tune.fail(trial, DIED)
    again = tune.start()
    assert again.config["id"] == trial.config["id"]
    assert again.trial_id != trial.trial_id
    assert not tune.report(again, Restarted("its checkpoint was damaged"))
    assert not tune.report(again, Reported(10, 0.5))
    assert tune.report(again, Reported(100, 0.6, "completed"))
    tune.complete(again)


def dies_again_and_again(tune: Tune) -> None:
    for _ in range(6):
        tune.fail(tune.start(), DIED)


def raises(tune: Tune) -> None:
    trial = tune.start()
    assert not tune.report(trial, Failed("ValueError: no (x.py:3)"))
    tune.fail(trial, "ray::f\nTraceback\nValueError: no")


def finds_no_gpu_memory(tune: Tune) -> None:
    """After the first, two share a GPU; one finds too little memory, and is retried alone."""
    first = tune.start()
    assert not tune.report(first, Reported(10, 0.5, metrics={MEMORY_SHARE_METRIC: 0.4}))
    assert tune.report(first, Reported(100, 0.6, "completed"))
    tune.complete(first)
    other, greedy = tune.start(), tune.start()
    assert [decode_config(one.config)["place"]["gpus"] for one in (other, greedy)] == [0.5, 0.5]
    assert not tune.report(greedy, Failed("out of GPU memory", out_of_memory=True))
    tune.fail(greedy, "ray::f\nOutOfMemoryError")
    assert tune.report(other, Reported(100, 0.6, "completed"))
    tune.complete(other)
    assert decode_config(tune.start().config)["place"]["gpus"] == 1


def finds_no_memory_on_its_machine(tune: Tune) -> None:
    tune.start()
    tune.fail(tune.start(), "Task was killed due to the node running low on memory.")
    assert tune.searcher.suggest("third") is None, "as many as run now"


def leaves_at_the_end_of_the_session(tune: Tune) -> None:
    trial = tune.start()
    assert not tune.report(trial, Reported(10, 0.5))
    tune.supervisor.shutdown.should_exit(True)
    tune.fail(trial, PREEMPTED)


def fails_before_its_start(tune: Tune) -> None:
    tune.fail(tune.add(), DIED)


def fails_before_the_start_of_its_second_attempt(tune: Tune) -> None:
    tune.fail(tune.start(), DIED)
    tune.fail(tune.add(), DIED)


def hangs(tune: Tune) -> None:
    killed = tune.start()
    assert not tune.report(killed, Reported(10, 0.5))
    for _ in range(7):
        tune.seconds += 10
        tune.detector.on_step_begin(0, [killed])
    tune.fail(killed, DIED)


SCENARIOS = [
    completes, is_pruned, collapses, ends_without_a_report, dies_and_is_retried,
    dies_again_and_again, raises, finds_no_gpu_memory, finds_no_memory_on_its_machine,
    leaves_at_the_end_of_the_session, fails_before_its_start,
    fails_before_the_start_of_its_second_attempt, hangs,
]  # fmt: skip
ONE = ["start", "report", "report", "trial_finished completed"]
ENDINGS: dict[str, tuple[list[str], list[str]]] = {
    "completes": (ONE, ["COMPLETE completed"]),
    "is_pruned": (
        ["start", "start", "report", "report", "trial_finished pruned"],
        ["RUNNING None", "PRUNED pruned"],
    ),
    "collapses": (["start", "report", "trial_finished collapsed"], ["COMPLETE collapsed"]),
    "ends_without_a_report": (["start", "trial_finished failed"], ["FAIL failed"]),
    "dies_and_is_retried": (
        [
            "start",
            "report",
            "worker_failed",
            "start",
            "restarted_from_scratch",
            "report",
            "report",
            "trial_finished completed",
        ],
        ["COMPLETE completed"],
    ),
    "dies_again_and_again": (
        ["start", "worker_failed"] * 5 + ["start", "trial_finished failed"],
        ["FAIL failed"],
    ),
    "raises": (["start", "trial_finished failed"], ["FAIL failed"]),
    "finds_no_gpu_memory": (
        [*ONE, "start", "start", "worker_failed", "report", "trial_finished completed", "start"],
        ["COMPLETE completed", "COMPLETE completed", "RUNNING None"],
    ),
    "finds_no_memory_on_its_machine": (["start", "start", "worker_failed"], ["RUNNING None"] * 2),
    "leaves_at_the_end_of_the_session": (
        ["start", "report", "trial_finished interrupted"],
        ["RUNNING None"],
    ),
    "fails_before_its_start": (["start", "worker_failed"], ["RUNNING None"]),
    "fails_before_the_start_of_its_second_attempt": (
        ["start", "worker_failed", "worker_failed"],
        ["RUNNING None"],
    ),
    "hangs": (["start", "report", "trial_finished failed"], ["FAIL failed"]),
}
"""Events with the status at an end, and states of the study with the outcome, by scenario."""


@pytest.fixture(autouse=True)
def kills(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Workers that were killed; there are none here."""
    killed = list[object]()
    monkeypatch.setattr("ray.kill", killed.append)
    return killed


def run(scenario: Callable[[Tune], None], home: Path, order: Iterator[Sequence[str]]) -> Tune:
    nodes: list[Node] | None = None
    if scenario is finds_no_gpu_memory:
        nodes = [{"CPU": 4, "GPU": 1}]
    tune = Tune(home, order, nodes)
    scenario(tune)
    return tune


def always(order: tuple[str, ...]) -> Iterator[Sequence[str]]:
    while True:
        yield order


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_order_of_hooks_writes_the_same(
    scenario: Callable[[Tune], None], tmp_path: Path
) -> None:
    found = [run(scenario, tmp_path / "-".join(order), always(order)).books() for order in ORDERS]
    events, trials = found[0]
    assert all(books == found[0] for books in found[1:])
    words = [f"{e['event']} {e['status']}" if "status" in e else e["event"] for e in events]
    states = [f"{state} {attributes.get(OUTCOME_ATTR)}" for state, _, _, attributes, _ in trials]
    assert (words, states) == ENDINGS[scenario.__name__]


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_an_order_that_changes_from_event_to_event_writes_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    def drawn() -> Iterator[Sequence[str]]:
        while True:
            # a hook that is called twice changes nothing either
            yield data.draw(st.permutations([*HOOKS, data.draw(st.sampled_from(HOOKS))]))

    home = tmp_path_factory.mktemp("orders")
    expected = run(dies_and_is_retried, home / "as-ray", always(TUNE_ORDER))
    found = Tune(home / "drawn", drawn())
    dies_and_is_retried(found)
    assert found.books() == expected.books()


def test_reasons_are_those_of_the_first_cause(tmp_path: Path, kills: list[object]) -> None:
    for scenario, reason in (
        (raises, "ValueError: no (x.py:3)"),
        (dies_again_and_again, "death 6 without getting further: its worker process died"),
        (hangs, "it hung: no report for 70 s"),
        (ends_without_a_report, "no report came"),
    ):
        tune = run(scenario, tmp_path / scenario.__name__, always(TUNE_ORDER))
        events, trials = tune.books()
        assert events[-1]["reason"].startswith(reason)
        assert trials[0][3]["reason"] == events[-1]["reason"]
    assert len(kills) == 1, "of the worker that hung"


def test_a_report_after_a_trial_was_given_up_changes_nothing(tmp_path: Path) -> None:
    tune = Tune(tmp_path, always(TUNE_ORDER))
    trial = tune.start()
    tune.supervisor.give_up(trial.trial_id, 70.0)
    assert not tune.report(trial, Reported(10, 0.5))  # it lay in the queue
    tune.fail(trial, DIED)
    assert tune.books()[0][-1]["reason"].startswith("it hung")


def test_a_full_disk_stops_the_search(tmp_path: Path) -> None:
    tune = Tune(tmp_path, always(TUNE_ORDER))
    trial = tune.start()
    assert not tune.stopper.stop_all()
    tune.report(trial, DiskFull("the disk that holds /data is full"))
    assert tune.stopper.stop_all()
    assert tune.supervisor.full_disk == "the disk that holds /data is full"


def test_an_end_that_could_not_be_written_is_written_by_the_next_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = Tune(tmp_path, always(TUNE_ORDER))
    trial = tune.start()
    tune.report(trial, Reported(100, 0.7, "completed"))
    with monkeypatch.context() as full:
        full.setattr(EventLog, "append", _no_space)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                tune.complete(trial)
    tune.fail(trial, "the hook raised")  # as Tune then does
    assert [event["event"] for event in tune.books()[0]] == ["start", "report", "trial_finished"]
    assert tune.books()[0][-1]["status"] == "completed"


def _no_space(log: EventLog, event: str, **fields: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "message",
    [
        Reported(10, 0.1, "collapsed", True, "why", {"val/mAP": 0.1}),
        Restarted("why"),
        Failed("why", out_of_memory=True),
        DiskFull("where"),
    ],
    ids=lambda message: message.tag,
)
def test_a_message_arrives_as_it_was_sent_nested_or_flattened(message: WorkerMessage) -> None:
    result = {TRAINING_ITERATION: 1, "config": {"id": "000"}, **message.to_dict()}
    assert from_dict(result) == from_dict(flatten_dict(result)) == message
    assert from_dict({TRAINING_ITERATION: 1, "done": True}) is from_dict(None) is None


@given(st.lists(st.sampled_from(["add", "start", "end"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_first_trial_that_waits_runs_next_without_a_look_at_all(steps: list[str]) -> None:
    """As by Tune's own scheduler, which looks at all trials of the search."""
    supervisor: Any = SimpleNamespace(register=lambda *unused: None)
    ours, theirs, trials = PruningScheduler(supervisor), FIFOScheduler(), list[Any]()
    for number, step in enumerate(steps):
        if step == "add":
            name = f"{number}"
            trials.append(SimpleNamespace(trial_id=name, config={}, status=TuneTrial.PENDING))
            ours.on_trial_add(None, trials[-1])
        for trial in trials:
            if step == "start" and trial.status == TuneTrial.PENDING:
                trial.status = TuneTrial.RUNNING
                break
            if step == "end" and trial.status != TuneTrial.TERMINATED:
                trial.status = TuneTrial.TERMINATED
                break
        tune: Any = SimpleNamespace(get_trials=lambda: trials)
        assert ours.choose_trial_to_run(None) is theirs.choose_trial_to_run(tune)


def test_tune_finds_nothing_to_flatten_in_the_configuration_of_a_trial() -> None:
    config = {
        "id": "007",
        "number": 7,
        "trial": TrialConfig().model_dump(mode="json"),
        "place": {"kind": "cpu", "cpus": 1.0},
        "drawn": "{}",
    }
    sent = encode_config(config)
    assert decode_config(sent) == config
    assert flatten_dict({"config": sent}).keys() == {f"config/{name}" for name in config}
    numbers = [value for value in sent.values() if isinstance(value, (int, float))]
    assert numbers == [7], "Tune keeps statistics of each number"


def test_a_message_is_decoded_once_for_all_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    result = Reported(10, 0.123456, metrics={"val/mAP": 0.5}).to_dict()
    first = from_dict(result)
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("decoded again"))
    assert from_dict(flatten_dict({**result, "config": {}})) is first
