"""What does it cost to create an object, close it and unlink it, by its size?"""

from __future__ import annotations

from collections.abc import Iterator

from .cycles import anonymous, creating, cycle_case
from .harness import Case, Settings, c_batch, pinned
from .peers import floor, scratch_names, size_text

SIZES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)


def cases(settings: Settings) -> Iterator[Case]:
    native, small = floor(), SIZES[0]
    with scratch_names() as names, pinned(settings.cpu):
        for size in SIZES[:2] if settings.quick else SIZES:
            name, title = names(), f"create, close and unlink {size_text(size)}"
            goal = 1.1 if size == small else None
            raw = c_batch(native.raw_create, name, size)
            yield cycle_case(title, creating(), raw, goal, name, size, chart="create", x=size)
        title = f"create and close {size_text(small)} without a name"
        raw = c_batch(native.raw_anonymous, "floor", small)
        yield cycle_case(title, anonymous(), raw, 1.1, "", small)
