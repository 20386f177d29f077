"""Finds the job of an op by name, for the scripts that time or count several ops."""

from __future__ import annotations

import importlib
from typing import Any

from tools.jobs import Job


def find_job(op: str, *arguments: Any) -> Job:
    """Return the job that the op's benchmark makes from these arguments."""
    forward = op.removesuffix("_backward")
    module = importlib.import_module(f"bench_{forward}")
    return (module.job if op == forward else module.backward_job)(*arguments)
