"""How do create and unlink scale with the number of processes, each with its own names?"""

from __future__ import annotations

from collections.abc import Iterator

from .cycles import creating
from .harness import Case, Kind, Settings
from .peers import PREFIX, floor, scratch_names
from .processes import Count, race_case, repeated

SIZE = 4 << 10


def counts() -> dict[str, tuple[Count, Kind]]:
    # `number` is that of the process.
    found = {
        who: (repeated(f"name = f'{PREFIX}{{number}}'\n{statement}", size=SIZE, **names), kind)
        for who, (kind, statement, names) in creating().items()
    }
    raw = repeated(f"create(f'{PREFIX}{{number}}', size, 1)", create=floor().raw_create, size=SIZE)
    return found | {"raw C": (raw, "raw C"), "floor, once more": (found["floor"][0], "control")}


def cases(settings: Settings) -> Iterator[Case]:
    for processes in (1, 2) if settings.quick else (1, 2, 4, 8):
        title = "create, close and unlink 4 KiB"
        with scratch_names(), race_case(title, counts(), processes, settings, "processes") as case:
            yield case
