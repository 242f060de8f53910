"""The language and the appearance that a person wishes for, kept by the browser."""

from __future__ import annotations

from handlers.languages import LOCALES
from handlers.pages import HOME, THEMES, PageHandler, local_address

YEAR_SECONDS = 365 * 24 * 3600


class PreferencesHandler(PageHandler):
    """Keeps what was wished for in cookies; what is no choice changes nothing."""

    is_open = True

    def get(self) -> None:
        """Where a browser comes back to that was asked to post again."""
        self.redirect_to(HOME)

    def post(self) -> None:
        language, theme = self.field("language"), self.field("theme")
        if language in LOCALES:
            self.keep_cookie("language", language, YEAR_SECONDS)
        if theme in THEMES:
            self.keep_cookie("theme", theme, YEAR_SECONDS)
        self.redirect_to(local_address(self.field("next")))
