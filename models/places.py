from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    country: str = ""
    city: str = ""


class Places:
    def __init__(self, city_database: Path | None = None) -> None: ...
    def locate(self, ip: str) -> Place:
        return Place()

    def close(self) -> None: ...
