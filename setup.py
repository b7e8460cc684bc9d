"""The extension module; everything else stands in pyproject.toml.

POSIXSHM_SANITIZE=address,undefined (or thread) builds it for -fsanitize,
POSIXSHM_WERROR=1 makes every warning an error, and those of conversions as well.
"""

import os
from glob import glob

from setuptools import Extension, setup

compile_args = [
    "-std=c11",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
]
link_args = []
options = {}

if os.environ.get("POSIXSHM_WERROR") == "1":
    compile_args += ["-Wconversion", "-Werror"]

if sanitizers := os.environ.get("POSIXSHM_SANITIZE"):
    flag = f"-fsanitize={sanitizers}"
    compile_args += [flag, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
    # The interpreter's own -fwrapv would turn off the checks of signed overflow.
    compile_args.append("-fno-wrapv")
    link_args.append(flag)
    # Apart from the release build, or its objects would be taken for current.
    options["build"] = {"build_base": "build/" + sanitizers.replace(",", "-")}

setup(
    ext_modules=[
        Extension(
            "posixshm._core",
            sources=sorted(glob("csrc/posix/*.c") + glob("csrc/core/*.c")),
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc"],
            # The file offsets of both rooms must agree, also where long has 32 bits.
            define_macros=[("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64")],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            # Before glibc 2.34 shm_open, the semaphores and dlsym are in these.
            libraries=["rt", "pthread", "dl"],
        )
    ],
    options=options,
)
