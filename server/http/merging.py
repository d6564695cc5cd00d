"""Merge patches: RFC 7396, section 2."""

from collections.abc import Mapping
from typing import Any


def merge(current: Any, patch: Any) -> Any:
    """Return `current` with `patch` merged in: objects member by member, null takes away, all else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(current) if isinstance(current, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
