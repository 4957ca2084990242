"""The base import contract: light, lazy, flat, and complete without any extra."""

import json
import subprocess
import sys

import pytest

import regrow

# What an extra brings, by the name it is imported under.
EXTRAS = (
    "accelerate",
    "hypothesis",
    "lightning",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pyarrow",
    "pytorch_lightning",
    "scipy",
    "sklearn",
    "sparselab",
    "tensorboard",
    "transformers",
)

# What is nothing without its extra says so when it is imported.
WHOLE = ("regrow.estimators", "regrow.selection")

# Recipes import what their experiments need; `regrow reproduce` says which extra is missing.
RECIPES = ("regrow.reproduce.recipes.", "regrow.reproduce.selectors")


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `code`."""
    show = "import json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    return set(json.loads(run_python(f"{code}\n{show}")))


def test_import_loads_no_dependency() -> None:
    loaded = modules_after("import regrow; dir(regrow); regrow.__version__")
    assert not loaded & {"torch", "numpy", "matplotlib", "jsonargparse", "tqdm", *EXTRAS}


def test_public_names_load_neither_plots_nor_extras() -> None:
    loaded = modules_after("from regrow import *")
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "jsonargparse", *EXTRAS}


def test_every_module_imports_without_the_extras() -> None:
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({(*EXTRAS, "triton")!r}))  # None makes an import fail
import regrow
for module in pkgutil.walk_packages(regrow.__path__, "regrow."):
    name = module.name
    skipped = name.startswith({(*RECIPES, *WHOLE)!r}) or name.endswith(("__main__", "_native"))
    if not skipped:
        importlib.import_module(module.name)
        print(module.name)
"""
    assert "regrow.topology" in run_python(code).split()


@pytest.mark.parametrize("name", WHOLE)
def test_what_needs_an_extra_says_which(name: str) -> None:
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
try:
    importlib.import_module({name!r})
except ImportError as error:
    print(error)
"""
    extra = name.rpartition(".")[2]
    assert f"pip install 'regrow[{extra}]'" in run_python(code)


@pytest.mark.parametrize("name", regrow.__all__)
def test_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(regrow, name) is not None
    assert name in dir(regrow)


def test_public_names_are_the_lazy_ones() -> None:
    assert set(regrow.__all__) == {*regrow._ROOMS, "__version__"}


@pytest.mark.parametrize("name", regrow._ROOMS_OF_EXTRAS)
def test_public_name_of_an_extra_resolves_and_is_listed(name: str) -> None:
    assert getattr(regrow, name).__name__ == name
    assert name in dir(regrow)
    assert name not in regrow.__all__


def test_public_name_of_an_extra_says_which_it_needs() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import regrow
try:
    regrow.SparseRBM
except ImportError as error:
    print(error)
"""
    assert "pip install 'regrow[estimators]'" in run_python(code)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'regrow' has no attribute 'Mask'"):
        regrow.Mask  # noqa: B018
