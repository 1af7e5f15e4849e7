"""What an image that cannot be used raises."""

from __future__ import annotations

from features_cache.status import Status


class BadImage(Exception):
    """An image that has to be quarantined.

    Parameters
    ----------
    status : Status
        The code.
    reason : str
        What was found, for the list beside the cache.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
