"""Build the extension module; all other settings are in pyproject.toml.

POSIXSHM_SANITIZE=address,undefined (or thread) builds it with -fsanitize. POSIXSHM_WERROR=1 adds
warnings about conversions and makes every warning an error. POSIXSHM_FLOOR=1 builds the extension
of the benchmarks instead.
"""

import platform
import sys

# Check now: pip spends minutes on the requirements of the extras before it checks requires-python.
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
    "-MMD",  # writes a .d file with the sources of each object
]
link_args = []
options = {}

if os.environ.get("POSIXSHM_WERROR") == "1":
    compile_args += ["-Wconversion", "-Werror"]

sanitizers = os.environ.get("POSIXSHM_SANITIZE")
if sanitizers:
    flag = f"-fsanitize={sanitizers}"
    compile_args += [flag, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
    # The interpreter's -fwrapv would turn off the checks of signed overflow.
    compile_args.append("-fno-wrapv")
    link_args.append(flag)
    # A separate folder, because the objects of a release build would seem up to date.
    options["build"] = {"build_base": "build/" + sanitizers.replace(",", "-")}

# The benchmarks compare the library with an extension that has the same compiler and flags.
floor = os.environ.get("POSIXSHM_FLOOR") == "1"
folder = "benchmarks/floor" if floor else "csrc"

# From each line, the first flag that the compiler accepts with Python's flags is used:
# fortification needs optimisation, level 3 a newer compiler, -fcf-protection an x86.
HARDENING = [
    [["-fstack-protector-strong"]],
    [["-fcf-protection=full"]],
    [["-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={level}"] for level in (3, 2)],
]
# The tables of function addresses are resolved at load time and then read-only.
HARDENED_LINK = ["-Wl,-z,relro,-z,now"]


class incremental_build_ext(build_ext):
    """Compile in parallel, and only sources that are newer than their object."""

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
        if not sanitizers and not floor:
            self.write_commands(sources, **options)

        def compile_if_changed(source, made):
            if changed_since(made):
                self.compile_one([source], output_dir, **options)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_if_changed, sources, objects))
        return objects

    def write_commands(self, sources, macros, include_dirs, extra_postargs, **_):
        """Write compile_commands.json for clangd: see .clangd."""
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
    """Is a source of this object newer than the object, or missing?"""
    try:
        made = Path(made)
        sources = made.with_suffix(".d").read_text().replace("\\\n", " ").split()[1:]
        return any(os.stat(source).st_mtime > made.stat().st_mtime for source in sources)
    except FileNotFoundError:
        return True


# PyPI shows the README without the repository, so relative links become absolute.
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
            "floor" if floor else "posixshm._core",
            sources=sorted(glob(f"{folder}/**/*.c", recursive=True)),
            depends=sorted(glob(f"{folder}/**/*.h", recursive=True)),
            include_dirs=[folder],
            # File offsets must have the same size in all files, also if long has 32 bits.
            define_macros=[("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            # Before glibc 2.34 these libraries have shm_open and the mutexes.
            libraries=["rt", "pthread"],
        )
    ],
    options=options,
    cmdclass={"build_ext": incremental_build_ext},
)
