"""Functions that run code in isolated sub-interpreters, whose code knows `name`, sys.argv[1]."""

import sys
import textwrap

name = sys.argv[1]

# The low-level module has another name in each version.
try:
    import _interpreters  # 3.13

    def create():
        return _interpreters.create("isolated")

    def run(interpreter, code):
        problem = _interpreters.exec(interpreter, code)
        if problem is not None:
            raise AssertionError(getattr(problem, "errdisplay", None) or problem.formatted)

    destroy = _interpreters.destroy
except ImportError:
    import _xxsubinterpreters  # 3.12: with its own GIL; 3.11: without

    def create():
        return _xxsubinterpreters.create(isolated=True)

    def run(interpreter, code):
        _xxsubinterpreters.run_string(interpreter, code)

    destroy = _xxsubinterpreters.destroy


def run_in_new(*codes):
    interpreter = create()
    try:
        for code in codes:
            run(interpreter, f"name = {name!r}\n" + textwrap.dedent(code))
    finally:
        destroy(interpreter)


# An own GIL, and nothing but modules that can live with it.
if sys.version_info >= (3, 13):
    interpreter = create()
    config = _interpreters.get_config(interpreter)
    destroy(interpreter)
    assert config.gil == "own" and config.check_multi_interp_extensions, config
