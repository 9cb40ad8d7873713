"""What the documents say of flags, variables, messages and files is what the code says."""

import argparse
import ast
import re
import runpy
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Dict, Iterator, List, Set, Tuple

import pytest

import baryon.worker.data
from baryon.launcher.parsers import flag_parser
from baryon.ps import wire
from baryon.scheduler.control import messages
from tests.test_repository import ROOT, sources

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]
GUIDE = [
    *("run", "ssh", "clusters", "slurm", "sge", "mpi", "kubernetes", "yarn", "hosts", "copying"),
    *("stores", "data", "collectives", "checkpoints", "compression", "failures", "reference"),
    *("native", "index"),
]
MAX_LINES = 200
MESSAGES = "you see"  # the head of a table's column that quotes messages

# Words of a quoted message that stand for others: a number, a name, an address.
_EXAMPLE = re.compile(r".*[0-9/@<>]|\(?(h|NAME|LAMB|zsh|train\.py|running|localhost)\)?[:;,]?$")
_HOLE = "\0"


@lru_cache(maxsize=None)
def strings() -> str:
    """All literal text of the sources, each piece between two line breaks. A piece ends where an
    f-string fills something in."""
    found: Set[str] = set()
    for path in [*sources(), ROOT / "baryon" / "entry.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else _HOLE for v in node.values]
                found.update("".join(map(str, parts)).split(_HOLE))
            elif isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                value = node.value
                found.add(value if isinstance(value, str) else value.decode("latin-1"))
    pieces = sorted({" ".join(text.split()) for text in found} - {""})
    return "\n".join(["", *pieces, ""])


def is_said(words: List[str]) -> bool:
    """Whether a string of the code has these words, or one ends and another goes on with them."""
    text = strings()
    if " ".join(words) in text:
        return True
    halves = ((" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words)))
    return any(f"{head}\n" in text and f"\n{tail}" in text for head, tail in halves)


def fixed_words(message: str) -> Iterator[List[str]]:
    """The runs of a message's words that the code must have as they are."""
    for part in message.split("..."):
        run: List[str] = []
        for word in part.split():
            if _EXAMPLE.match(word):
                yield run
                run = []
            elif word not in ("s:", "s;", "s,"):  # seconds, and what separates them from the rest
                run.append(word)
        yield run


def cells(row: str) -> List[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def tables(text: str) -> Iterator[List[List[str]]]:
    """The tables of a page, as lists of rows; the head is the first one."""
    for block in re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE):
        rows = [cells(line) for line in block.splitlines()]
        yield [row for row in rows if not set("".join(row)) <= set("-: ")]


def quoted(text: str) -> Iterator[str]:
    """The messages that a page quotes: in columns for them, and in blocks of output."""
    for head, *rows in tables(text):
        if MESSAGES in head:
            for row in rows:
                yield from re.findall(r"`([^`]+)`", row[head.index(MESSAGES)])
    yield from re.findall(r"^ {4}(?:baryon|launch\.py): (.*)", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_messages_are_those_of_the_code(page: Path) -> None:
    wrong = [
        f"{message!r}: {' '.join(words)!r}"
        for message in quoted(page.read_text(encoding="utf-8"))
        for words in fixed_words(message)
        if len(words) > 1 and not is_said(words)
    ]
    assert not wrong


def test_a_message_that_the_code_does_not_say_is_found() -> None:
    assert is_said(["has", "been", "silent", "for"])
    assert not is_said(["has", "been", "silenced", "for"])
    text = "| event | you see |\n|---|---|\n| a | `worker 1 (h) fell over`, `x` |\n"
    assert list(quoted(text)) == ["worker 1 (h) fell over", "x"]
    assert list(fixed_words("lost server 0 (tcp://x) for 20 s: what now")) == [
        *(["lost", "server"], [], ["for"], ["what", "now"])
    ]


# -- flags and variables ------------------------------------------------------------------------


def flags() -> Dict[str, argparse.Action]:
    found = {}
    for is_doctor in (False, True):
        for action in flag_parser(is_doctor)._actions:
            found.update(dict.fromkeys(action.option_strings, action))
    return found


def reference_rows() -> Iterator[List[str]]:
    for head, *rows in tables((DOCS / "reference.md").read_text(encoding="utf-8")):
        if head[0] == "flag":
            yield from rows


def test_the_reference_has_all_flags_and_no_others() -> None:
    shown = [
        word.split()[0].split("[")[0]
        for row in reference_rows()
        for word in re.findall(r"`(-[^`]+)`", row[0])
    ]
    assert sorted(shown) == sorted(flags())


def test_the_reference_has_the_defaults() -> None:
    for row in reference_rows():
        action = flags()[re.findall(r"`(-[^` \[]+)", row[0])[0]]
        has_number = isinstance(action.default, (int, float)) and action.default
        if has_number and len(row) == 3:
            assert row[2] == f"{action.default:g}", row[0]


def test_commands_use_flags_that_exist() -> None:
    for page in PAGES:
        for line in re.findall(r"^ {4}launch\.py (.*)", page.read_text("utf-8"), re.MULTILINE):
            ours = re.split(r" [\w./'-]+\.(?:py|sh)\b", line.split(" #")[0])[0]
            ours = re.sub(r"'[^']*'", "", ours)
            for flag in re.findall(r"(?<!\S)(--?[a-zA-Z][\w-]*)", ours):
                assert flag in flags(), f"{page.name}: {line}"


def test_the_reference_has_the_variables_of_a_task() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    (table,) = (rows for head, *rows in tables(text) if head[0] == "variable")
    shown = {name for row in table for name in re.findall(r"`(\w+)`", row[0])}
    code = "".join(path.read_text(encoding="utf-8") for path in sources())
    for name in shown:
        assert f'"{name}"' in code or f"{name}=" in code, name
    assert set(re.findall(r'"(DMLC_(?:ROLE|NUM_\w+|WORKER_ID))":', code)) <= shown


# -- pages --------------------------------------------------------------------------------------


def anchors(page: Path) -> Set[str]:
    """Of the headings of a page, as GitHub and Python-Markdown make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


def links(page: Path) -> Iterator[Tuple[Path, str]]:
    """The (file, anchor) that a page links to here."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"\w+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name if name else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"
        if page.parent == DOCS:  # the site has no other files
            assert target.resolve().parent == DOCS, target


def test_pages_of_the_guide_are_short_and_listed() -> None:
    listed = {target.name for target, _ in links(DOCS / "index.md")}
    for name in ("clusters.md", "protocol.md"):
        listed |= {target.name for target, _ in links(DOCS / name)} | {"index.md"}
    for name in GUIDE:
        assert f"{name}.md" in listed
        lines = (DOCS / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= MAX_LINES, name
    assert {path.name for path in DOCS.glob("*.md")} <= listed


def test_names_in_files_exist() -> None:
    """`ps/wire.py VERSION`: the file has that name."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for file, name in re.findall(r"`([a-z][\w/]*/\w+\.py) ([\w.]+)`", text):
            code = (ROOT / file).read_text(encoding="utf-8")
            for part in name.split("."):
                assert re.search(rf"\b{part}\b", code), f"{page.name}: {file} {name}"


@pytest.mark.parametrize(
    "page, module", [("protocol-data.md", wire), ("protocol-control.md", messages)]
)
def test_the_protocol_has_the_fields_of_messages(page: str, module: ModuleType) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    (rows,) = (rows for head, *rows in tables(text) if head[0] == "message")
    shown = {}
    for row in rows:
        fields = row[2].replace("*where*", "store, bucket, first, count")
        fields = re.sub(r"\([^)]*\)|\[.*?\]+|\{[^}]*\}", "", fields)
        shown[row[0]] = [one.split()[0] for one in fields.split(",") if one.strip()]
    for name, kind in vars(module).items():
        is_message = isinstance(kind, type) and issubclass(kind, wire.Message)
        if is_message and kind.__struct_config__.tag and kind.__module__ == module.__name__:
            assert shown.pop(name) == (list(kind.__struct_fields__) or ["none"]), name
    assert not shown


def test_the_protocol_s_example_is_made_of_its_messages() -> None:
    text = (DOCS / "protocol-plan.md").read_text(encoding="utf-8")
    shown = re.findall(r"^.* (?:->|<-).*? (\w+)\(.*?\) +((?:[0-9a-f]{2} ?)+)", text, re.MULTILINE)
    assert len(shown) == 12
    for name, octets in shown:
        codec = messages.CONTROL if name in ("Gone", "Exited", "Left") else wire.DATA
        message = codec.decode(bytes.fromhex(octets))
        assert type(message).__name__ == name
        if name == "Hello":
            assert message.version == wire.VERSION


def test_files_that_are_called_pure_are() -> None:
    """They open no socket, start no thread or process, and do not look at the clock."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    (rows,) = (rows for head, *rows in tables(text) if "pure parts" in head)
    pure = [ROOT / name for row in rows for name in re.findall(r"`([^`]+\.py)`", row[2])]
    assert len(pure) > 10
    loops = {"asyncio", "select", "socket", "subprocess", "threading", "time", "zmq"}
    for path in pure:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & loops, path


# -- the site -----------------------------------------------------------------------------------


def test_the_api_page_has_all_public_names() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in (*baryon.worker.__all__, *baryon.worker.data.__all__):
        assert re.search(rf"auto\w+:: baryon\.worker\.[\w.]*\b{name}\b", page), name


def test_the_menu_has_all_pages() -> None:
    settings = runpy.run_path(str(DOCS / "conf.py"))
    listed = " ".join(settings["MENU"].values()).split()
    assert sorted([*listed, "index"]) == sorted(path.stem for path in DOCS.glob("*.md"))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    argv = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "ShardSampler" in (tmp_path / "api.html").read_text(encoding="utf-8")
