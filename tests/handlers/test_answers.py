"""The answers that are kept to be sent again: whose they are, and how many."""

from __future__ import annotations

import tracemalloc

from handlers.answers import BESIDES, MOST_MEGABYTES, Answer, Answers
from models import clock
from models.principals import Principal
from models.schema import USER
from models.sessions import OwnList


def make(site: str = "https://one", size: int = 0) -> Answer:
    """An answer with a body of so many bytes."""
    return Answer(site, 1, 1, '"1.1"', b"x" * size)


def test_an_account_has_one_answer_by_whatever_names_it_calls_the_server() -> None:
    answers = Answers()
    for number in range(3):
        answers.keep("user", 1, make(f"https://{number}"))
    other = make("https://0")
    answers.keep("client", 1, other)

    found = [answers.get("user", 1, f"https://{number}") for number in range(3)]

    assert [answer is not None for answer in found] == [False, False, True]
    assert answers.get("client", 1, "https://0") is other


def test_what_was_not_sent_for_longest_goes_where_there_are_too_many_bytes() -> None:
    answers, size = Answers(), MOST_MEGABYTES * 300_000
    for account_id in (1, 2, 3):
        answers.keep("user", account_id, make(size=size))
    assert answers.get("user", 1, "https://one")

    answers.keep("user", 4, make(size=size))

    assert [bool(answers.get("user", number, "https://one")) for number in (1, 2, 3, 4)] == [True, False, True, True]


def test_an_answer_that_another_took_the_place_of_counts_no_more() -> None:
    answers, size = Answers(), MOST_MEGABYTES * 300_000
    answers.keep("user", 1, make(size=size))
    for _ in range(20):
        answers.keep("user", 2, make(size=size))
    assert answers.get("user", 1, "https://one")


def test_an_answer_that_is_larger_than_all_there_is_room_for_is_not_kept() -> None:
    answers = Answers()
    answers.keep("user", 1, make(size=MOST_MEGABYTES * 1_000_000))
    assert answers.get("user", 1, "https://one") is None
    answers.keep("user", 1, make())
    assert answers.get("user", 1, "https://one")


def test_a_kept_answer_takes_no_more_memory_than_is_counted() -> None:
    account = {f"account_{field}": clock.now() if field.endswith("_at") else field for field in USER.fields}
    rows = [account | {"id": number, "account_id": 1, "device": "Firefox " * 20} for number in range(5)]
    listed = OwnList(Principal(USER, 1, 1), 1, 1, rows)
    answers = Answers()
    tracemalloc.start()
    try:
        for account_id in range(100):
            answers.keep("user", account_id, Answer.make(USER, listed, "https://one"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = answers.get("user", 1, "https://one")
    assert kept
    assert taken < 100 * (len(kept.body) + BESIDES)
