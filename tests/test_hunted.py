"""What a thread finds with gc.get_objects() while another makes it is whole, or is not found."""

import sys

from _processes import PATH


def test_a_thread_that_hunts_for_what_is_being_made(run_python, name):
    """A primitive without its memory, or a helper with a pointer into a stack, kills the process."""
    code = f"""
        import sys
        sys.setswitchinterval(1e-5)
        from children.hunter import hunted
        hunted({name!r}, {20 if hasattr(sys, "gettotalrefcount") else 60})
    """
    run_python(code, env=PATH)
