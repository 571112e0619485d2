"""Compiles rtml/kernel/_merge.c while a wheel, or an editable install, is made.

Where that fails all works, more slowly: the feature server says so when it starts.
"""

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension  # type: ignore[import-untyped]

FOLDER = "rtml/kernel"


class CompileKernel(BuildHookInterface[Any]):
    """Builds the extension beside its source, and has the wheel carry it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; `version` is `standard` or `editable`. What an earlier build left is not taken for this one's."""
        del version
        built = Path(self.root, FOLDER, f"_merge{sysconfig.get_config_var('EXT_SUFFIX')}")
        built.unlink(missing_ok=True)
        kernel = Extension(
            "rtml.kernel._merge",
            [f"{FOLDER}/_merge.c"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
            optional=True,
        )
        command = Distribution({"ext_modules": [kernel]}).get_command_obj("build_ext")
        command.inplace = True
        command.ensure_finalized()
        command.run()
        if built.exists():
            build_data["artifacts"].append(f"{FOLDER}/{built.name}")
            build_data["infer_tag"], build_data["pure_python"] = True, False
