"""The examples of the README and of the guides that need more than numpy; they are marked py."""

import pytest
from _documents import PAGES, ROOT, blocks

EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in (ROOT / "README.md", *PAGES)
    if not page.name.startswith("api-")  # these pages show signatures
    for number, code in enumerate(
        code for language, code in blocks(page.read_text()) if language == "py"
    )
]


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, run_python, tmp_path):
    script = tmp_path / "example.py"  # a file, because spawn imports the main module again
    script.write_text(example)
    run_python("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", script)
