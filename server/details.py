"""Texts about failures that come from outside and are shown to people."""

MAX_DETAIL_LENGTH = 300


def clean_detail(text: str) -> str:
    """Return text that is printable, on one line and at most 300 characters long."""
    flat = "".join(letter if letter.isprintable() else " " for letter in text[: MAX_DETAIL_LENGTH + 1])
    return flat if len(flat) <= MAX_DETAIL_LENGTH else flat[: MAX_DETAIL_LENGTH - 1] + "…"
