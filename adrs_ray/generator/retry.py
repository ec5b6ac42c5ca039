"""What to do about a request that failed, and how long to wait before it is sent again.

Pure. The client's own retries are off: only this policy knows that an attempt which may have been charged must not be
made a second time on one reservation.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import numpy as np

BASE_S = 0.5
CAP_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
"""A server that asks for more is asked again after this."""


class Fate(Enum):
    """What a failed attempt means."""

    AGAIN = auto()
    """Nothing was charged and it may work later: limits, overload, nobody listening."""
    ELSEWHERE = auto()
    """Lost together with a server of the run's own: nothing is paid for it, and another server may do it."""
    CHARGED = auto()
    """It may have been charged: sent, and no answer came. Not made again inside the same request."""
    FATAL = auto()
    """No request to this model can work: key, address, model name, quota."""
    REFUSED = auto()
    """This request cannot work: prompt too long, or something in it that the server does not take."""


_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 529})
_GATEWAY_GAVE_UP = frozenset({504, 524})
"""The server behind the gateway goes on generating."""
_FATAL = frozenset({401, 402, 403, 404, 405})
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "InvalidURL", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}
)
"""Names of the HTTP library's errors that come before a request is sent."""


def fate_of_status(status: int, code: str | None = None) -> Fate:
    """Of an answer with an HTTP status that is no success; `code` is the error's own, where the server gave one."""
    if code in _NO_QUOTA or status in _FATAL or 300 <= status < 400:
        return Fate.FATAL
    if status in _GATEWAY_GAVE_UP:
        return Fate.CHARGED
    return Fate.AGAIN if status in _AGAIN or status >= 500 else Fate.REFUSED


def fate_of_lost_connection(cause: BaseException | None) -> Fate:
    """Of an attempt without an answer; `cause` is the HTTP library's error."""
    return Fate.AGAIN if type(cause).__name__ in _NEVER_SENT else Fate.CHARGED


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, from 0 to `LONGEST_RETRY_AFTER_S`; None where it says nothing.

    `header` is a number of seconds or an HTTP date (RFC 9110, 10.2.3); `now` is aware of its time zone.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def backoff_s(attempt: int, retry_after: float | None, rng: np.random.Generator) -> float:
    """Seconds to wait after the `attempt`-th attempt (from 1): exponential with full jitter.

    What the server asked for comes on top of the jitter, so that those who were sent away together do not come back
    together. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(CAP_S, BASE_S * 2.0 ** min(attempt - 1, 30))
    return (retry_after or 0.0) + float(rng.uniform(0.0, ceiling))
