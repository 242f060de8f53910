"""No reader of what strangers send fails, whatever they send; `python -m benchmarks.fuzz` tries a million."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzzing import READERS

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", READERS)
def test_whatever_is_sent_is_read_or_refused(name: str) -> None:
    strategy, read = READERS[name]
    few = settings(
        max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    few(given(strategy)(read))()
