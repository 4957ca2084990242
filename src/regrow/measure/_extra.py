"""What an extra brings, or a sentence that says how to get it."""

from __future__ import annotations

from importlib import import_module


def require(package: str, what: str) -> None:
    """Make sure that a package of the extra ``analysis`` is there.

    Raises:
        ModuleNotFoundError: It is not; the sentence says how to install it.
    """
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is not installed: pip install 'regrow[analysis]'",
            name=package,
        ) from error
