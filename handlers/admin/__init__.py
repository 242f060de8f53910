"""The desk: the pages on which staff see every session of the house, and act."""

from handlers.admin import accounts, emergency, ends, live, log, overview, session, sessions

__all__ = ["accounts", "emergency", "ends", "live", "log", "overview", "session", "sessions"]
