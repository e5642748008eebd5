import pytest

from hpsearch.reporting.leaderboard import leaderboard, summarize
from hpsearch.reporting.text_tables import (
    TERMINAL_WIDTH,
    TextTable,
    baseline_table,
    format_duration,
    format_patches,
    format_percent,
    leaderboard_table,
    summary_lines,
    to_markdown,
    to_text,
)
from hpsearch.tracking.run_state import Run


def test_the_leaderboard_as_a_terminal_shows_it(mixed: list[Run]):
    table = leaderboard_table(leaderboard(mixed, direction="maximize"))
    assert to_text(table).splitlines() == [
        "#  trial  ended        objective  seen  settings",
        "1    000  completed       0.7000  1.0k  batch hard · S×K 32×4 · adam 1e-3",
        "2    001  completed       0.6000  1.0k  batch hard · S×K 32×4 · adam 2e-3",
        "3    006  interrupted     0.3000   500  batch hard · S×K 32×4 · adam 1e-3",
        "4    002  pruned          0.4500   500  batch hard · S×K 64×4 · adam 1e-3",
        "5    007  running              –     0  batch hard · S×K 32×4 · adam 1e-3",
        "6    005  failed          0.9900   500  batch hard, α 0.2 · S×K 32×4 · adam 1e-3",
        "7    004  diverged        0.0000   250  batch hard · S×K 32×4 · adam 1",
        "8    003  collapsed       0.0000   600  batch hard · S×K 32×4 · adam 0.1",
    ]


def test_scores_of_a_collapsed_trial_are_not_shown(mixed: list[Run]):
    table = leaderboard_table(leaderboard(mixed, direction="maximize"), tasks=True)
    assert table.header[4:7] == ("verification", "matching", "retrieval")
    assert table.rows[0][4:7] == ("0.600", "0.100", "1.000")
    assert table.rows[-1][2:7] == ("collapsed", "0.0000", "–", "–", "–")
    assert max(map(len, to_text(table).splitlines())) <= TERMINAL_WIDTH


def test_long_settings_wrap_within_the_width():
    words = " · ".join(["soft batch hard, distance squared", "S×K 64×4", "adam 1e-3"] * 3)
    table = TextTable(("#", "settings"), (("1", words), ("10", "short")), frozenset({"settings"}))
    lines = to_text(table, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line.startswith("    ") for line in lines[2:-1])
    assert " ".join(" · ".join(line[4:] for line in lines[1:-1]).split()) == words
    endless = TextTable(("#", "s"), (("1", "x" * 200),), frozenset({"s"}))
    assert max(map(len, to_text(endless, width=50).splitlines())) <= 50


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_number_is_broken_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("matching", "easy", "hard", "tough", "mean", "illum.", "viewp.", "95 % interval")
    numbers = ("0.1234", "0.2345", "0.3456", "0.4567", "0.5678", "0.6789", "0.012 … 0.345")
    table = TextTable(names, (("winner", *numbers), ("other", *numbers)), frozenset({"matching"}))
    lines = to_text(table).splitlines()
    assert max(map(len, lines)) <= max(width, len("matching  0.012 … 0.345"))
    for number in numbers:
        assert sum(number in line for line in lines) == 2
    assert all(line.startswith(("matching", "winner", "other")) for line in lines if line)


def test_a_rate_in_the_settings_is_not_broken_at_its_minus(monkeypatch: pytest.MonkeyPatch):
    words = "batch hard · stages of the learning rate 1e-3 2e-3 3e-3 4e-3 5e-3 6e-3 7e-3"
    table = TextTable(("#", "settings"), (("1", words),), frozenset({"settings"}))
    for width in range(16, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        found = to_text(table).split()
        assert [word for word in found if word.endswith("e-3")] == [f"{n}e-3" for n in range(1, 8)]


def test_numbers_are_right_aligned_and_text_left():
    table = baseline_table({"winner": (0.8, 0.4, 0.6, 0.6), "pixels 16×16": (0.5, 0.2, 0.3, 1 / 3)})
    assert to_text(table).splitlines() == [
        "              verification  matching  retrieval  mean mAP",
        "winner               0.800     0.400      0.600     0.600",
        "pixels 16×16         0.500     0.200      0.300     0.333",
    ]
    assert to_markdown(table).splitlines() == [
        "|  | verification | matching | retrieval | mean mAP |",
        "| :-- | --: | --: | --: | --: |",
        "| winner | 0.800 | 0.400 | 0.600 | 0.600 |",
        "| pixels 16×16 | 0.500 | 0.200 | 0.300 | 0.333 |",
    ]
    assert to_markdown(TextTable(("a|b",), ())) == "| a\\|b |\n| --: |"


def test_the_sums_in_sentences(mixed: list[Run]):
    assert summary_lines(summarize(mixed, budget=1000)) == [
        "8 trials: 2 completed, 1 running, 1 interrupted, 1 pruned, 1 failed, 1 diverged, "
        "1 collapsed",
        "4,360 of 8,010 patches trained: 54 % of the budget of all trials, last batches included",
        "Pruning saved 6 % of the compute, stopping collapsed and diverged trials 14 %",
        "500 patches were lost to failed trials",
        "20 s from the first trial to the last, 44 s summed over trials",
    ]
    assert summary_lines(summarize([], budget=1))[0] == "0 trials: none started"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, "0 %"), (0.001, "under 1 %"), (0.384, "38 %"), (1.0, "100 %")]
)
def test_percent(share: float, expected: str):
    assert format_percent(share) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 s"),
        (59.6, "1 min 0 s"),
        (312.0, "5 min 12 s"),
        (3600.0, "1 h 0 min"),
        (9000.0, "2 h 30 min"),
    ],
)
def test_duration(seconds: float, expected: str):
    assert format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        *[(0, "0"), (999, "999"), (1000, "1.0k"), (9_949, "9.9k"), (9_950, "10k")],
        *[(33_400, "33k"), (999_499, "999k"), (999_500, "1.0M"), (12_000_000, "12.0M")],
    ],
)
def test_patches(count: int, expected: str):
    assert format_patches(count) == expected
