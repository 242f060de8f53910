"""Texts for people: marked where they are written, translated where they are shown."""

from __future__ import annotations


def N_(text: str) -> str:  # noqa: N802 - gettext's name for it
    """`text`, marked for the catalogues."""
    return text


def NN_(one: str, many: str) -> tuple[str, str]:  # noqa: N802
    """A text that counts, marked for the catalogues."""
    return one, many
