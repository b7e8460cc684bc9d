"""`python -m posixshm`, and where the `posixshm` script enters."""

import signal
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # Nothing has been created yet, so Ctrl-C may end the process without a traceback.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from posixshm._command.main import main as run
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
    return run(argv)


if __name__ == "__main__":
    raise SystemExit(main())
