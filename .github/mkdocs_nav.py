"""The navigation of the site: the sections and pages of the index, in its order."""

import re
from pathlib import Path


def on_config(config):
    index = (Path(config.docs_dir) / "README.md").read_text()
    config.nav = [{"posixshm": "README.md"}]
    for line in index.splitlines():
        if line.startswith("## "):
            config.nav.append({line.removeprefix("## "): []})
        elif match := re.match(r"- \[(.+?)\]\((docs/[\w-]+\.md)\)", line):
            title, page = match.groups()
            next(iter(config.nav[-1].values())).append({title: page})
    return config
