"""A plugin of pytest that selects the tests that start threads."""

import inspect
import re
import sys

STARTS = re.compile(r"threading\.Thread\b|ThreadPoolExecutor\b|asyncio\.to_thread\b")
known = {}  # of each function and class: does it?


def starts_threads(value):
    """Does its source start a thread, or that of a function or class of the tests that it uses?"""
    value = inspect.unwrap(value)
    module = sys.modules.get(value.__module__)
    if value not in known:
        known[value] = False
        if "/tests/" in (getattr(module, "__file__", "") or ""):
            source = inspect.getsource(value)
            used = [getattr(module, word, None) for word in set(re.findall(r"\w+", source))]
            used = [each for each in used if inspect.isfunction(each) or inspect.isclass(each)]
            known[value] = bool(STARTS.search(source)) or any(map(starts_threads, used))
    return known[value]


def pytest_collection_modifyitems(config, items):
    found, others = [], []
    for item in items:
        fixtures = [each[-1].func for each in item._fixtureinfo.name2fixturedefs.values()]
        parts = filter(inspect.isfunction, [item.function, *fixtures])
        starts = item.path.stem == "test_threads" or any(map(starts_threads, parts))
        (found if starts else others).append(item)
    items[:] = found
    config.hook.pytest_deselected(items=others)
    assert len(found) > 50
