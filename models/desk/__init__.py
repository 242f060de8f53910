"""What staff see: every session, account and event, by page, with exact counts.

Whether the principal may see them is part of each statement.
"""

from models.desk.accounts import get_account, list_accounts
from models.desk.events import NoLongerStaff, list_events, stream_events
from models.desk.searches import MOST_ACCOUNTS, TooWide
from models.desk.sessions import count_sessions, list_choices, list_session_ids, list_sessions

__all__ = [
    "MOST_ACCOUNTS",
    "NoLongerStaff",
    "TooWide",
    "count_sessions",
    "get_account",
    "list_accounts",
    "list_choices",
    "list_events",
    "list_session_ids",
    "list_sessions",
    "stream_events",
]
