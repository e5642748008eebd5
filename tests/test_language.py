"""Words of the package: the glossary's banned words, and the form of docstrings.

The rules: standard terms instead of metaphors, American spelling, and
docstrings that can be read alone in an editor's tooltip.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hpsearch"

BANNED = {
    # metaphors, and the terms that they stand for
    r"keepers?": "checkpoint store",
    r"farewells?": "graceful shutdown",
    r"luggage": "environment, working directory",
    r"couriers?": "MLflow writer",
    r"gradebooks?": "score cache",
    r"examin(ees?|ations?)": "evaluated model, evaluation",
    r"yardsticks?": "baseline",
    r"lives": "attempts",
    # programs neither speak nor hear, losses do not pay
    r"tells?|told|telling": "report, state, distinguish",
    r"hears?|heard": "receive, read",
    r"says?|said|saying": "state, report, name",
    r"pays?|paid|paying": "cost, loss",
    r"nobody|somebody": "no client, another process",
    # archaic syntax
    r"anew": "again, from scratch",
    r"mends?|mended|mending": "correct, fix",
    r"heeds?|heeded": "handle",
    r"beneath|underneath": "in, below",
    r"beside": "in addition to, next to",
    r"upon|whilst|thereof|hitherto": "plain English",
    r"(go|goes|going|went|gone) on": "resume, continue",
    r"(begin|begins|began|begun) again": "restart from scratch, retry",
    r"at birth": "in __post_init__",
    r"by hand": "manually",
    r"had notice": "preemption notice",
    r"(make|makes|made|no|without|enough) room": "space, capacity",
    # British spelling
    r"\w*(grey|colour|neighbour|behaviour|optimis|normalis|initialis|vectoris|recognis)\w*": "US",
    r"licen[c]es?|licenced|cent(re|red|res)|learnt|spelt|afterwards|towards": "US",
}
"""Regular expressions of banned words, and what to write instead."""

PERSISTED = {
    "yardstick": "kind of a run in event logs",
    "Optimiser": "class in stored search spaces",
    "optimiser": "field of stored configurations, and key of checkpoints",
    "denoiser_optimiser": "parameter of stored studies",
    "licence": "field of the header of stored patch stores",
}
"""Names in stored files, which stay readable."""

STORED_KEYS = {*PERSISTED, "told", "anew", "hpsearch.beneath", "--yardsticks"}
"""Strings that are keys in stored files; ``told`` is one in checkpoints of traced benchmarks."""
OF_OTHERS = {"tell": "method of files and of Optuna's studies"}
"""Names of other packages."""

BAD_STARTS = re.compile(
    r"(What|Who|Whom|Whose|Where|Whether|Why|How|When|Which|That|From|Between|Of|It|They|Them|"
    r"Nothing|None|Never|Always|Yes|No|Not|Nobody|Everything|All of them|As of)\b(?!-)"
)
"""Beginnings of docstrings that need the name in front of them to be understood."""
MIN_WORDS = 3


class Text(NamedTuple):
    """Piece of text of a file."""

    line: int
    content: str


def files() -> list[Path]:
    """Modules and templates of the finished folders, and other finished texts."""
    found = [path for path in sorted((*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.j2")))]
    scripts = [*sorted(ROOT.glob("benchmarks/*.py")), *sorted(ROOT.glob("search_spaces/*.py"))]
    texts = [ROOT / "README.md"]
    return [*found, *scripts, *texts]


def modules() -> list[Path]:
    """Finished modules that are not empty."""
    return [path for path in files() if path.suffix == ".py" and path.read_text().strip()]


def prose(path: Path) -> Iterator[Text]:
    """Docstrings, messages and comments of a module, or the paragraphs of another text."""
    content = path.read_text()
    if path.suffix != ".py":
        yield from (Text(number, line) for number, line in enumerate(content.split("\n"), 1))
        return
    for node in ast.walk(ast.parse(content)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (node.value not in STORED_KEYS)
        ):
            yield Text(node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)


def names(path: Path) -> Iterator[Text]:
    """Words of the identifiers of a module, split at underscores and capitals."""
    if path.suffix != ".py":
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME and token.string not in {*PERSISTED, *OF_OTHERS}:
            yield Text(token.start[0], re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", token.string))


def banned(text: str) -> list[str]:
    """Banned words of a text outside code in backquotes; persisted names are allowed."""
    plain = re.sub(r"`[^`]*`", "", text)
    plain = re.sub(rf"\b({'|'.join(PERSISTED)})\b(?==)", "", plain)
    pattern = "|".join(f"(?:{word})" for word in BANNED)
    return [match[0] for match in re.finditer(rf"(?i)\b(?:{pattern})\b", plain)]


def docstrings(path: Path) -> Iterator[Text]:
    """Docstrings of a module, its classes, functions and attributes."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as content)):
                yield Text(node.lineno, content)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_occurs(path):
    found = [
        f"{path.relative_to(ROOT)}:{text.line}: {word}"
        for texts in (prose(path), names(path))
        for text in texts
        for word in banned(text.content)
    ]
    assert found == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_can_be_read_alone(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a module has a docstring"
    found = [
        f"{path.relative_to(ROOT)}:{text.line}: {text.content.splitlines()[0]}"
        for text in docstrings(path)
        if BAD_STARTS.match(text.content) or len(text.content.split()) < MIN_WORDS
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What an excess pays.", ["pays"]),
        ("the ledger told us, and it goes on", ["told", "goes on"]),
        ("a grey patch in the center", ["grey"]),
        ("Search(optimiser=SGD())", []),
        ("the field `optimiser` is read", []),
        ("a yard stick, a path, an essay", []),
    ],
)
def test_banned_words_are_found(text, words):
    assert banned(text) == words


@pytest.mark.parametrize("text", ["Whether it does.", "Of all members.", "Nothing, if so."])
def test_answers_are_found(text):
    assert BAD_STARTS.match(text)
