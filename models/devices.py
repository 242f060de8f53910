from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    browser: str = ""
    os: str = ""
    kind: str = "unknown"


def describe(user_agent: str) -> Device:
    return Device()
