"""Hostile words in the notes, the card, the report and the files of descriptors."""

from pathlib import Path

import numpy as np
import pytest

from hpsearch.data.arrow_header import StoreMeta
from hpsearch.reporting.leaderboard import leaderboard
from hpsearch.reporting.mlflow_notes import trial_description
from hpsearch.reporting.text_tables import TextTable, to_markdown
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.model_artifact import truncate_description
from hpsearch.tracking.model_card import dataset_section
from hpsearch.untrusted import markdown_text, printable

HOSTILE = "<img src=x onerror=alert(1)>![](http://x/y)[a](javascript:b)|c`d\n# e\x1b[2J"


def is_inert(text: str) -> None:
    for live in ("<img", "![](", "[a](", "\n# e", "\x1b"):
        assert live not in text.replace("\\[", "").replace("\\]", "").replace("\\!", "")


def test_markdown_shows_words_as_they_are() -> None:
    is_inert(markdown_text(HOSTILE))
    is_inert(to_markdown(TextTable(("a",), ((HOSTILE,),))))
    assert markdown_text("lr 0.1 · L2Net") == "lr 0.1 · L2Net"
    assert printable("a\x1b[31m\nb") == "a [31m b"


def test_a_note_and_a_card_hold_no_html_of_others(searched: SearchContext) -> None:
    searched.event_log.append("trial_finished", trial="000", status="failed", reason=HOSTILE)
    (row,) = leaderboard(searched.runs, direction="maximize")
    is_inert(trial_description(row, of=1, metric="val/mAP", picture=None))
    is_inert(dataset_section(StoreMeta(source=HOSTILE, license=HOSTILE), "f", {"test": [HOSTILE]}))
    assert "<iframe" not in truncate_description("<iframe src=//x>")


@pytest.mark.parametrize("first", "=+-@")
def test_no_file_of_descriptors_can_begin_a_formula(first: str, tmp_path: Path) -> None:
    from hpsearch.data.arrow_header import check_sequence_name
    from hpsearch.evaluation.descriptor_io import write_descriptors

    write_descriptors(tmp_path, {"v_a": np.zeros((1, 16, 2))})
    cells = (tmp_path / "v_a" / "ref.csv").read_text().split(",")
    assert [float(cell) for cell in cells] == [0, 0]
    with pytest.raises(ValueError, match="sequence"):
        check_sequence_name(f"{first}cmd")
