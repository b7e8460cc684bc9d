"""The extension module; everything else stands in pyproject.toml.

POSIXSHM_SANITIZE=address,undefined (or thread) builds it for -fsanitize,
POSIXSHM_WERROR=1 makes every warning an error, and those of conversions as well.
"""

import platform
import sys

# At once: for a Python that is too old, pip spends minutes on the requirements of the extras
# before it compares requires-python.
if (
    sys.version_info < (3, 11)
    or sys.implementation.name != "cpython"
    or not sys.platform.startswith("linux")
):
    sys.exit(
        "posixshm needs Linux and CPython 3.11 or newer; this is "
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}."
    )

import json
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

compile_args = [
    "-std=c11",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-MMD",  # beside each object, a .d file names the sources that it was made from
]
link_args = []
options = {}

if os.environ.get("POSIXSHM_WERROR") == "1":
    compile_args += ["-Wconversion", "-Werror"]

sanitizers = os.environ.get("POSIXSHM_SANITIZE")
if sanitizers:
    flag = f"-fsanitize={sanitizers}"
    compile_args += [flag, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
    # The interpreter's own -fwrapv would turn off the checks of signed overflow.
    compile_args.append("-fno-wrapv")
    link_args.append(flag)
    # Apart from the release build, or its objects would be taken for current.
    options["build"] = {"build_base": "build/" + sanitizers.replace(",", "-")}

# Of each line the first one that the compiler takes together with Python's own flags: fortifying
# takes optimisation, its level 3 newer compilers, -fcf-protection an x86.
HARDENING = [
    [["-fstack-protector-strong"]],
    [["-fcf-protection=full"]],
    [["-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={level}"] for level in (3, 2)],
]
# The tables by which functions are called are complete at the start, and read-only from then on.
HARDENED_LINK = ["-Wl,-z,relro,-z,now"]


class incremental_build_ext(build_ext):
    """Compiles in parallel, and only what changed since the object was made."""

    def build_extensions(self):
        if not sanitizers:
            for extension in self.extensions:
                for choices in HARDENING:
                    extension.extra_compile_args += self.first_taken(choices)
                extension.extra_link_args += HARDENED_LINK
        self.compile_one = self.compiler.compile
        self.compiler.compile = self.compile_changed
        super().build_extensions()

    def compile_changed(self, sources, output_dir, depends, **options):
        objects = self.compiler.object_filenames(sources, output_dir=output_dir)
        command = repr((self.compiler.compiler_so, options))
        last_command = Path(output_dir, "command")
        if self.force or not last_command.exists() or last_command.read_text() != command:
            for made in objects:
                Path(made).unlink(missing_ok=True)
            last_command.parent.mkdir(parents=True, exist_ok=True)
            last_command.write_text(command)
        if not sanitizers:
            self.write_commands(sources, **options)

        def compile_if_changed(source, made):
            if changed_since(made):
                self.compile_one([source], output_dir, **options)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_if_changed, sources, objects))
        return objects

    def write_commands(self, sources, macros, include_dirs, extra_postargs, **_):
        """For clangd: see .clangd."""
        command = [*self.compiler.compiler_so, *(f"-D{name}={value}" for name, value in macros)]
        command += [f"-I{folder}" for folder in [*include_dirs, *self.compiler.include_dirs]]
        command += extra_postargs
        entries = [
            {"directory": os.getcwd(), "file": source, "arguments": [*command, "-c", source]}
            for source in sources
        ]
        Path("build").mkdir(exist_ok=True)
        Path("build/compile_commands.json").write_text(json.dumps(entries, indent=1))

    def first_taken(self, choices):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write("#include <stdio.h>\nextern int probe;\nint probe = 1;\n")
            for flags in choices:
                command = [*self.compiler.compiler_so, *flags, "-Werror", "-c", source]
                command += ["-o", os.path.join(folder, "probe.o")]
                if subprocess.run(command, capture_output=True).returncode == 0:
                    return flags
        return []


def changed_since(made):
    """Is a source that this object was made from newer than the object, or missing?"""
    try:
        made = Path(made)
        sources = made.with_suffix(".d").read_text().replace("\\\n", " ").split()[1:]
        return any(os.stat(source).st_mtime > made.stat().st_mtime for source in sources)
    except FileNotFoundError:
        return True


# PyPI shows the README without the repository, so the relative links become absolute.
REPOSITORY = "https://github.com/posixshm/posixshm"
with open("README.md", encoding="utf-8") as file:
    readme = re.sub(
        r"(!?)(\[[^]]*\]\()(?![a-z]+:|#)",
        lambda link: f"{link[1]}{link[2]}{REPOSITORY}/{'raw' if link[1] else 'blob'}/main/",
        file.read(),
    )

setup(
    long_description=readme,
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "posixshm._core",
            sources=sorted(glob("csrc/**/*.c", recursive=True)),
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc"],
            # The file offsets of both rooms must agree, also where long has 32 bits.
            define_macros=[("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            # Before glibc 2.34 shm_open and the mutexes are in these.
            libraries=["rt", "pthread"],
        )
    ],
    options=options,
    cmdclass={"build_ext": incremental_build_ext},
)
