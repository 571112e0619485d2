"""Compiles rtml/kernel/_merge.c while a wheel, or an editable install, is made.

Without a C compiler all works, more slowly: the feature server says so when it starts.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension  # type: ignore[import-untyped]


class CompileKernel(BuildHookInterface[Any]):
    """Builds the extension beside its source, and has the wheel carry it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; `version` is `standard` or `editable`."""
        del version
        kernel = Extension(
            "rtml.kernel._merge",
            ["rtml/kernel/_merge.c"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
            optional=True,
        )
        command = Distribution({"ext_modules": [kernel]}).get_command_obj("build_ext")
        command.inplace = True
        command.ensure_finalized()
        command.run()
        build_data["artifacts"].append("rtml/kernel/_merge.*.so")
        build_data["infer_tag"], build_data["pure_python"] = True, False
