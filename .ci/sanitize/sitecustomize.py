"""In every process of `.ci/sanitize/run`, the kernels are those of the build that checks itself."""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location


class CheckedKernels(MetaPathFinder):
    """Finds `regrow._native` where the environment says, before an installed one is found."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The place of the extension; None for any other module."""
        if name != "regrow._native":
            return None
        return spec_from_file_location(name, os.environ["REGROW_CHECKED_KERNELS"])


sys.meta_path.insert(0, CheckedKernels())
