MOST_FAMILIES: int
MOST_WINDOWS: int
MOST_FEATURES: int
MOST_LANES: int

class Merger:
    """Merges what was read of entities, for the features of one plan."""

    def __init__(
        self,
        families: list[tuple[int, int, int, int, int]],
        features: list[tuple[int, int, int]],
        windows: int,
        state: int,
        narrow_time: int,
        lanes: int,
        /,
    ) -> None: ...
    def merge(
        self,
        entities: list[tuple[list[bytes | None], bytes, list[tuple[bytes, int, int]], bytes | None, int]],
        windows: list[tuple[int, int, bool]],
        salts: int,
        /,
    ) -> list[list[float | int | None]]: ...
