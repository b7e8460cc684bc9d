"""gc.get_objects() in one thread never returns an object that another thread has not completed."""

import sys

from _processes import PATH


def test_the_collector_finds_complete_objects_only(run_python, name):
    """An incomplete object, or a helper that points to a stack, would crash the process."""
    code = f"""
        import sys
        sys.setswitchinterval(1e-5)
        from children.hunter import hunted
        hunted({name!r}, {20 if hasattr(sys, "gettotalrefcount") else 60})
    """
    run_python(code, env=PATH)
