"""`python -m posixshm`, and where the `posixshm` script enters."""

from posixshm._command.main import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
