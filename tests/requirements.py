"""The packages that a test module needs."""

import importlib.util

import pytest


def skip_without(*packages):
    """Skip the calling module if a package is missing.

    ``pytest.importorskip`` would import MXNet without the patches of cvops.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here", allow_module_level=True)
