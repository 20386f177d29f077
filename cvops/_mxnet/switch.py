"""The state of ``install()``: whether our operators have MXNet's names."""

from __future__ import annotations

#: True after install(); the number of open installed().
_wanted, _open = False, 0


def is_installed() -> bool:
    """Report if our operators have MXNet's names now."""
    return _wanted or _open > 0


def change(wanted: bool | None = None, opened: int = 0) -> None:
    """Store a call of install() or uninstall(), or the beginning (1) or end (-1) of installed()."""
    global _wanted, _open
    _wanted = _wanted if wanted is None else wanted
    _open += opened
