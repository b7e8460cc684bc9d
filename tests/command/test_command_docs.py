"""`posixshm docs`: topics, entries and sections, on a pipe and on a terminal."""

import re

import pytest
from _command import bad, good, on_terminal
from _documents import PAGES

import posixshm


def test_without_a_topic_it_lists_each_page_on_a_line():
    lines = good("docs").splitlines()
    for page in PAGES:
        title = re.search("^# (.+)$", page.read_text(), re.MULTILINE)[1].replace("`", "")
        assert [line for line in lines if line.split(None, 1) == [page.stem, title]], page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_shown_as_plain_text(page):
    text = good("docs", page.stem)
    assert text.splitlines()[1].strip("=") == ""
    outside = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    for mark in ("```", "](", "<!--", "|---"):
        assert mark not in outside
    assert not re.search(r"\*\*[A-Z].*?\*\*", outside)
    # A longer line is allowed only for a word that is longer than a line.
    for line in outside.splitlines():
        assert len(line) <= 80 or len(line.split()) <= 2, line


@pytest.mark.parametrize(
    "topic",
    ["SharedMemory.resize", "posixshm.SharedMemory.resize()", "sharedmemory.resize", "resize"],
)
def test_an_entry_is_found_by_its_name(topic):
    text = good("docs", topic)
    assert text.startswith("SharedMemory.resize\n")
    assert "    SharedMemory.resize(size: SupportsIndex" in text
    assert "SharedMemory.refresh" not in text.partition("\n\n")[0]
    assert "BufferError" in text


def test_every_public_name_is_a_topic():
    for name in ("Holders", "holders", "MADV_COLD", "array.open", "RLock.acquire", "Event.close"):
        assert name.rpartition(".")[2] in good("docs", name).partition("\n\n")[0], name
    # One process for all names is faster.
    from posixshm._command.pages import find

    for name in posixshm.__all__:
        if name != "__version__":
            assert name in find(name)


def test_a_class_is_shown_with_its_members():
    text = good("docs", "Barrier")
    assert "Barrier.wait(timeout" in text and "Barrier.abort()" in text
    assert "Semaphore(" not in text


def test_words_of_a_title_lead_to_a_page_or_a_section():
    assert good("docs", "restart") == good("docs", "restarting")
    assert good("docs", "memory", "order") == good("docs", "memory-order")
    assert good("docs", "FileExistsError", "at", "start").startswith("FileExistsError at start\n")


def test_an_unknown_topic_names_similar_ones():
    code, message = bad("docs", "SharedMemory.resise")
    assert code == 2 and "'SharedMemory.resise' is not a topic" in message
    assert "SharedMemory.resize" in message
    code, message = bad("docs", "xyzzy")
    assert code == 2 and "'posixshm docs' lists all" in message


def test_an_unknown_topic_names_the_sections_that_mention_it():
    code, message = bad("docs", "O_TMPFILE")
    assert code == 2
    assert "SharedMemory.unlinked" in message.partition("mentioned in: ")[2]


def test_a_topic_with_several_meanings_names_them():
    code, message = bad("docs", "close")
    assert code == 2
    for name in ("SharedMemory.close", "Lock.close"):
        assert name in message


def test_a_terminal_gets_a_pager(tmp_path):
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "the pager has it:"\nexec cat\n')
    pager.chmod(0o755)
    env = {"PAGER": str(pager), "MANPAGER": ""}
    with on_terminal("docs", "Barrier.abort", env=env) as terminal:
        assert terminal.finish() == 0
    assert "the pager has it:" in terminal.output
    assert "Barrier.abort() -> None" in terminal.output
