"""What does it cost to attach to an object by its name, and to close it?"""

from __future__ import annotations

from collections.abc import Iterator

from .cycles import attaching, cycle_case
from .harness import Case, Settings, c_batch, pinned
from .peers import floor, posixshm, scratch_names, stdlib_tracking

SIZE = 64 << 10


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as names, pinned(settings.cpu):
        name = names()
        raw = c_batch(floor().raw_attach, name, SIZE)
        with posixshm.SharedMemory.create(name, SIZE), stdlib_tracking(name):
            yield cycle_case("attach and close", attaching(), raw, 1.05, name, SIZE)
