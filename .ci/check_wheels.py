"""Check what two wheels hold: the one built with a C++ compiler, and the one built without.

Usage: check_wheels.py NATIVE_WHEEL PURE_WHEEL
"""

import re
import sys
from pathlib import Path
from zipfile import ZipFile


def package_files(wheel: Path) -> set[str]:
    """Files of the package in a wheel; its extension is listed as `_native`, whatever its ABI."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("regrow/")]
    extension = re.compile(r"regrow/_native\..+\.(so|pyd)")
    return {extension.sub("regrow/_native", name) for name in names}


def source_files(root: Path) -> set[str]:
    """Files of the package in the checkout."""
    return {
        path.relative_to(root).as_posix()
        for path in (root / "regrow").rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so"}
    }


def main() -> None:
    """Compare both wheels with the sources."""
    native, pure = map(Path, sys.argv[1:])
    sources = source_files(Path(__file__).parents[1] / "src")
    for wheel, expected in ((native, sources | {"regrow/_native"}), (pure, sources)):
        found = package_files(wheel)
        if found != expected:
            sys.exit(
                f"{wheel.name} must hold what src/regrow does: "
                f"missing {sorted(expected - found)}, surplus {sorted(found - expected)}"
            )
        print(f"{wheel.name}: {len(found)} files of the package")
    if not pure.name.endswith("-none-any.whl"):
        sys.exit(f"the wheel built without a compiler must be pure Python, got {pure.name}")


if __name__ == "__main__":
    main()
