import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hpsearch.config import Clean
from hpsearch.reporting.html_tables import MAX_REPORT_ROWS
from hpsearch.reporting.leaderboard import TaskScores, leaderboard, summarize
from hpsearch.reporting.search_figures import PlottedObjective, SearchFigures, search_pictures
from hpsearch.reporting.search_report import (
    NextCommand,
    SearchReport,
    render_report,
    varying_columns,
)
from hpsearch.reporting.text_tables import group_configurations
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]
VOID = {"meta", "img", "wbr", "br", "hr", "link", "input", "source"}
EVIL = "<script>alert('x')</script> & \"quotes\""


class Checker(HTMLParser):
    """Reads a page strictly: every element is closed in turn, and addresses are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.sets: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"repeated attribute in {tag}"
        given = dict(attrs)
        self.addresses += [v for n in ("src", "href", "data", "action") if (v := given.get(n))]
        self.sets += [v for v in (given.get("srcset"),) if v]
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def page(runs: list[Run], **more) -> SearchReport:
    return SearchReport(
        name=more.pop("name", "first"),
        lead=more.pop("lead", "What was searched."),
        totals=summarize(runs, budget=1000),
        rows=leaderboard(runs, direction="maximize"),
        **more,
    )


def draw(runs: list[Run], *more: PlottedObjective, front: Sequence[Run] = ()) -> SearchFigures:
    objectives = [PlottedObjective("val/mAP", "maximize"), *more]
    return search_pictures(runs, objectives=objectives, budget=1000, report_every=500, front=front)


@pytest.fixture(scope="module")
def full(mixed: list[Run]) -> str:
    pictures = draw(mixed)
    scores = {"winner": TaskScores(0.8, 0.4, 0.6, 0.6), "pixels": TaskScores(0.5, 0.2, 0.3, 0.333)}
    commands = [NextCommand("hpsearch ui", "Browse every run")]
    return render_report(
        page(
            mixed,
            baselines=scores,
            figures=pictures.figures,
            omitted=pictures.omitted,
            commands=commands,
        )
    )


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(full: str):
    seen = read(full)
    assert seen.addresses, "figures are in the page"
    inside = "data:image/svg+xml;base64,"
    assert all(address.startswith(inside) for address in [*seen.addresses, *seen.sets])
    assert not re.search(r"@import|url\(|<link|https?://", full)
    assert all(len(alt) > 20 for alt in seen.alts)
    assert len(seen.alts) == 5
    assert len(seen.sets) == 5, "each figure is also there for a narrow page"
    assert seen.tags.count("h1") == 1


def test_a_browser_runs_the_page_s_own_script_and_no_other(full: str):
    (script,) = re.findall(r"<script>(.*?)</script>", full, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', full)
    assert policy.startswith("default-src 'none';")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_page_says_what_was_found(full: str):
    words = " ".join(" ".join(read(full).text).split())
    for expected in (
        "2 completed, 1 running, 1 interrupted, 1 pruned, 1 failed, 1 diverged, 1 collapsed",
        "6 % by pruning, 14 % by stopping collapse",
        "trial 000",
        "batch hard · S×K 32×4 · adam 1e-3 · denoised",
        "pixels 0.500 0.200 0.300 0.333",
        "hpsearch ui",
    ):
        assert expected in words


def test_words_of_the_user_are_escaped(make_run: MakeRun):
    failed = replace(make_run(0, "failed", {10: 0.1}), reason=EVIL)
    html = render_report(
        page(
            [failed, make_run(1, "completed", {10: 0.2})],
            name=EVIL,
            lead=EVIL,
            verdict=EVIL,
            baselines={EVIL: TaskScores(0.1, 0.1, 0.1, 0.1)},
            commands=[NextCommand(EVIL, EVIL)],
        )
    )
    seen = read(html)
    assert seen.tags.count("script") == 1, "the page's own"
    # title, heading, lead, verdict, yardstick, reason, command and what it does
    assert "".join(seen.text).count(EVIL) == 8


@pytest.mark.parametrize("ending", [None, ("running", {}), ("collapsed", {10: None})])
def test_a_search_that_has_found_nothing_yet(make_run: MakeRun, ending: tuple | None):
    runs = [] if ending is None else [make_run(0, *ending)]
    pictures = draw(runs)
    assert [figure.name for figure in pictures.figures] in ([], ["compute"])
    html = render_report(page(runs, figures=pictures.figures, omitted=pictures.omitted))
    words = " ".join(read(html).text)
    assert "no completed trial yet" in words
    assert "Best trial" not in words


def test_trials_that_restarted_from_scratch_are_named(make_run: MakeRun):
    runs = [make_run(n, "completed", {10: 0.5}) for n in range(3)]
    runs[1] = replace(runs[1], restarted_attempts=(1,))
    words = " ".join(read(render_report(page(runs))).text)
    assert "of a damaged checkpoint: 001." in words
    assert "Restarted" not in render_report(page(runs[:1]))


def test_a_long_leaderboard_folds(make_run: MakeRun):
    runs = [make_run(n, "completed", {10: 0.5}) for n in range(MAX_REPORT_ROWS + 4)]
    html = render_report(page(runs))
    assert f"Show all {MAX_REPORT_ROWS + 4} trials" in html
    assert html.count('<td data-key="0.5">0.5000</td>') == MAX_REPORT_ROWS + 4


def test_scores_that_no_trial_has_are_no_columns(make_run: MakeRun):
    run = make_run(0, "completed", {10: 0.5})
    assert "retrie\u00adval" in render_report(page([run]))
    reports = tuple({**report, "metrics": {"val/fpr95": 0.5}} for report in run.reports)
    assert "retrie\u00adval" not in render_report(page([replace(run, reports=reports)]))


def test_a_caption_holds_for_either_direction(make_run: MakeRun):
    runs = [make_run(n, status, {10: 0.5}) for n, status in enumerate(("completed", "pruned"))]
    captions = " ".join(figure.caption for figure in draw(runs).figures)
    assert "Pruned trials are worse partly" in captions


def test_columns_are_settings_with_more_than_one_value(make_run: MakeRun):
    runs = [make_run(n, rate=10.0**-n, groups=16 + 16 * (n % 2)) for n in range(1, 4)]
    rows = leaderboard(runs, direction="maximize")
    assert varying_columns(rows) == ["sampler.groups", "optimizer.lr"]
    clean = replace(runs[0], config=runs[0].config.model_copy(update={"input": Clean()}))
    rows = leaderboard([clean, *runs], direction="maximize")
    assert varying_columns(rows) == ["sampler.groups", "optimizer.lr", "input"]


def test_means_over_seeds_stand_on_the_page_where_there_are_any(make_run: MakeRun):
    def seeded(number: int, value: float) -> Run:
        run = make_run(number, curve={1000: value})
        return replace(run, config=run.config.model_copy(update={"seed": number}))

    runs = [seeded(0, 0.6), seeded(1, 0.8)]
    text = " ".join(
        read(
            render_report(
                page(runs, configurations=group_configurations(runs, direction="maximize"))
            )
        ).text
    )
    assert "Configurations over seeds" in text
    assert "0.7000 0.1414 needs 3 seeds 2 2 completed" in text
    assert "over seeds" not in render_report(page(runs[:1]))


def test_every_figure_is_on_the_page_or_named_with_the_reason_why_it_is_not(
    make_run: MakeRun, mixed: list[Run]
):
    plain = [make_run(n, "completed", {500: 0.5, 1000: 0.1 * n}) for n in range(3)]
    for runs in (mixed, plain, [], [make_run(0, "running")]):
        drawn = draw(runs, PlottedObjective("val/matching", "maximize"), front=plain[:1])
        # curves and history of both objectives, best trial, front, importance, map, compute
        assert len(drawn.figures) + len(drawn.omitted) == 9
        html = render_report(page(runs, figures=drawn.figures, omitted=drawn.omitted))
        words = " ".join(" ".join(read(html).text).split())
        assert all(sentence in words for sentence in drawn.omitted)


def test_a_figure_with_nothing_to_say_is_left_out(make_run: MakeRun):
    plain = [make_run(n, "completed", {500: 0.5, 1000: 0.1 * n}) for n in range(4)]
    drawn = draw(plain)
    assert [f.name for f in drawn.figures] == ["learning-curves", "best-trial", "trial-by-trial"]
    assert drawn.omitted == [
        "Importance of settings: too few configurations to distinguish an effect from "
        "chance: 1 of at least 10.",
        "Where trials collapsed: none did.",
        "Compute: nothing was saved, lost or trained again.",
    ]
    collapsed = make_run(4, "collapsed", {100: None})
    assert (
        "Where trials collapsed: all trials have one batch size."
        in draw([*plain, collapsed]).omitted
    )
    other = make_run(4, "collapsed", {100: None}, groups=64)
    assert "collapse-map" in [figure.name for figure in draw([*plain, other]).figures]


def test_each_objective_has_its_curves_and_history(make_run: MakeRun):
    def tried(number: int, value: float, matching: float) -> Run:
        run = make_run(number, "completed", {500: 0.1, 1000: value})
        metrics = {**run.last, "val/matching": matching}
        return replace(run, reports=(run.reports[0], {**run.reports[1], "metrics": metrics}))

    runs = [tried(0, 0.8, 0.2), tried(1, 0.6, 0.4)]
    drawn = draw(runs, PlottedObjective("val/matching", "maximize"), front=runs)
    names = [figure.name for figure in drawn.figures]
    assert names == [
        *("learning-curves", "learning-curves-val-matching", "best-trial"),
        *("trial-by-trial", "trial-by-trial-val-matching", "pareto-front"),
    ]
    (axes,) = drawn.figures[4].figure.axes
    assert axes.get_ylabel() == "val/matching"
    assert [np.asarray(line.get_ydata()).item() for line in axes.lines[:2]] == [0.2, 0.4]
    assert "000, 001" in drawn.figures[5].caption


@pytest.mark.parametrize(("loss", "explained"), [(1.3, True), (0.9, False)])
def test_a_loss_above_the_collapse_value_is_explained(
    make_run: MakeRun, loss: float, explained: bool
):
    run = make_run(0, "completed", {500: 0.5, 1000: 0.6}, metrics={"train/loss": loss})
    caption = next(f.caption for f in draw([run]).figures if f.name == "best-trial")
    assert ("ends above it, at 1.3" in caption) == explained
    assert ("not a collapse" in caption) == explained


def test_the_heading_names_the_trial_whose_test_scores_are_shown(make_run: MakeRun):
    """In a promotion, that is the training with the median objective, and not the best one."""
    runs = [make_run(n, curve={1000: value}) for n, value in enumerate((0.6, 0.9, 0.3))]
    runs = [replace(run, config=run.config.model_copy(update={"seed": run.number})) for run in runs]
    scores = {"winner, trial 000": TaskScores(0.8, 0.4, 0.6, 0.6)}
    html = render_report(page(runs, baselines=scores, evaluated="000"))
    words = " ".join(" ".join(read(html).text).split())
    assert "Winner: trial 000" in words
    assert "Trial 001 leads the leaderboard, but was not evaluated on test" in words
    assert 'class="first"' not in html.split("<h2>Leaderboard</h2>")[1]
    before = render_report(page(runs))
    assert "<h2>Best trial</h2>" in before
    same = render_report(page(runs, baselines=scores, evaluated="001"))
    assert "leads the leaderboard" not in same
