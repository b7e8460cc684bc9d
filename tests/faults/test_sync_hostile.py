"""Primitives whose words another process overwrites: no crash, and no wait past its timeout."""

import pytest
from _processes import PATH
from children.hostile_victim import KINDS

from posixshm import Semaphore, SharedMemory, sem_unlink

WRITE = "from children import hostile_writer; hostile_writer.main()"
USE = "from children import hostile_victim; hostile_victim.main()"
CORRUPT = "from children import hostile_victim; hostile_victim.corrupt_semaphore()"


def attack(victim, writer):
    """Let the victim use the words that the writer overwrites; both must exit with 0."""
    writer.hear("ready")
    victim.say("go")
    victim.finish()
    writer.finish()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_words_that_change_continuously(kind, seed, name, start_python):
    _, words, _ = KINDS[kind]
    with SharedMemory.create(name, 8192, delete=True):
        victim = start_python(USE, name, kind, env=PATH)
        victim.hear("ready")
        writer = start_python(WRITE, name, *words, seed, env=PATH)
        attack(victim, writer)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_named_semaphore_whose_file_changes_continuously(seed, name, start_python):
    Semaphore(name, create=True)
    try:
        victim = start_python(USE, name, "named Semaphore", env=PATH)
        victim.hear("ready")
        attack(victim, start_python(WRITE, f"sem.{name}", 0, 32, seed, env=PATH))
    finally:
        sem_unlink(name)


@pytest.mark.parametrize("where", ["placed", "named"])
def test_a_semaphore_with_any_words_does_not_end_the_process(where, name, run_python):
    run_python(CORRUPT, name, where, env=PATH)
