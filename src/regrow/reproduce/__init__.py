"""Published systems, each reproduced by one command.

`regrow reproduce NAME` runs the recipe ``recipes/NAME.py`` and writes what the paper claims, what
was run, what came out, and whether the claim held.
"""

from regrow.reproduce.systems import System, recipe_of, systems

__all__ = ["System", "recipe_of", "systems"]
