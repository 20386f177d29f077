"""Recipes: the training, evaluation and detection of each model, on the sets of users.

A recipe has the parts that differ between models. :mod:`cvops.recipes.run` trains each of them,
:mod:`cvops.recipes.evaluation` evaluates them, :mod:`cvops.recipes.detection` reads images, detects
and writes the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvops.models import saved
from cvops.recipes.detectors import FasterRecipe, MaskRecipe, SSDRecipe
from cvops.recipes.recipe import Recipe
from cvops.recipes.segmenters import FCNRecipe

#: The recipes by the name of the model.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (SSDRecipe(), FasterRecipe(), MaskRecipe(), FCNRecipe())
}


def load(path: str | Path) -> tuple[Recipe, Any]:
    """Return the network of a file of parameters, on the CPU, and its recipe.

    Raises:
        FileNotFoundError: ``path`` or its JSON file is missing.
        ValueError: one of the two is not a file of ``save`` of a network that has a recipe.
    """
    about = saved.describe(path)
    names = {recipe.saved_name: recipe for recipe in RECIPES.values() if recipe.name != "mask"}
    recipe = names.get(about.get("model", ""))
    if recipe is None:
        raise ValueError(
            f"{Path(path).with_suffix('.json')}: expected one of the models {list(names)}, "
            f"got {about.get('model')!r}"
        )
    net = recipe.load(path)
    return (RECIPES["mask"] if getattr(net, "mask", False) else recipe), net
