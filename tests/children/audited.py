"""A process with an audit hook that records the events of posixshm or refuses one. Run by
test_audit."""

import sys

events = []
refused = None  # the event that the hook refuses


class Refused(Exception):
    """The exception of the hook."""


def _hook(event, args):
    if event.startswith("posixshm."):
        events.append((event.removeprefix("posixshm."), *args))
        if event == refused:
            raise Refused(event)


sys.addaudithook(_hook)


def heard():
    """The events since the previous call."""
    result = events[:]
    events.clear()
    return result


class refusing:
    """A block in which the hook refuses the event; the block must end with that exception."""

    def __init__(self, event):
        self.event = f"posixshm.{event}"

    def __enter__(self):
        global refused
        refused = self.event

    def __exit__(self, kind, error, traceback):
        global refused
        refused = None
        assert kind is Refused, f"the block ended with {error!r}"
        return True
