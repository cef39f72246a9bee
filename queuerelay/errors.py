"""Every error of ours: one root, and one table from errors to HTTP statuses.

The docstring of a class is its message to people; `str(error)` adds the particulars.
"""

from typing import Final

from queuerelay.redact import redact

#: How much of a wrong value an error shows, in characters.
_SHOWN: Final = 200


class QueuerelayError(Exception):
    """queuerelay failed"""

    def __str__(self) -> str:
        particulars = super().__str__()
        summary = (type(self).__doc__ or "").partition("\n")[0]
        return f"{summary}: {particulars}" if particulars else summary


class ConfigError(QueuerelayError):
    """wrong configuration

    Built by `ConfigError.of`, so that each names the option, the value given and what was
    expected.
    """

    @classmethod
    def of(cls, option: str, value: object, expected: str) -> "ConfigError":
        """The error for `option`, which had `value` where `expected` was expected; a password in
        it is hidden.
        """
        try:
            # First: the end of a URL, cut off, would be what tells that there is a password.
            shown = redact(repr(value))
        except ValueError:  # Python writes no integer of thousands of digits
            shown = "a number that is much too large"
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        return cls(f"{option}: got {shown}, expected {expected}")


class CannotListen(QueuerelayError):
    """cannot listen"""


class CannotStart(QueuerelayError):
    """a program cannot be started"""


class MessageError(QueuerelayError):
    """a message on a queue cannot be understood"""


class ReplyError(QueuerelayError):
    """a worker's reply cannot be understood"""


class BrokerError(QueuerelayError):
    """Redis did not do what was asked"""


class NotConnected(BrokerError):
    """Redis is not connected; nothing was sent"""


class ConnectionDropped(BrokerError):
    """the connection to Redis was lost; whether the command took effect is unknown"""


class Refused(BrokerError):
    """Redis refused the command

    A script that is refused halfway is not undone; those of `wire/lua` look before they change what
    others need, so that no message is lost.
    """


class Unusable(BrokerError):
    """this Redis cannot be used

    `code` is a short stable word for health.
    """

    def __init__(self, particulars: str, *, code: str = "redis-unusable") -> None:
        super().__init__(particulars)
        self.code = code


class Refusal(QueuerelayError):
    """a request that gets no worker's answer, and why

    `status` is the HTTP status the client sees, `reason` a short stable word for logs and
    counters, `retry_after` whole seconds for the Retry-After field (RFC 9110 10.2.3) or None,
    `allow` the value of the Allow field (RFC 9110 10.2.1) or None.
    """

    status: int = 500
    reason: str = "internal"
    retry_after: int | None = None
    allow: str | None = None

    def __init__(self, particulars: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(particulars)
        if retry_after is not None:
            self.retry_after = retry_after


class InternalError(Refusal):
    """this server failed"""


class BadRequest(Refusal):
    """the request is malformed"""

    status = 400
    reason = "malformed"


class BodyTooLarge(Refusal):
    """the request body is larger than this server accepts"""

    status = 413
    reason = "body-too-large"


class MethodNotAllowed(Refusal):
    """this method is not allowed here"""

    status = 405
    reason = "method"
    # Any other is the worker's to judge; these are what RFC 9110 and RFC 5789 define.
    allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class RequestTimeout(Refusal):
    """the request did not arrive in time"""

    status = 408
    reason = "slow"


class TargetTooLong(Refusal):
    """the request line is longer than this server accepts"""

    status = 414
    reason = "target-too-long"


class ExpectationFailed(Refusal):
    """this server knows no expectation but 100-continue"""

    status = 417
    reason = "expectation"


class HeaderTooLarge(Refusal):
    """the header section is larger than this server accepts"""

    status = 431
    reason = "header-too-large"


class NotSupported(Refusal):
    """this server does not do what the request asks for"""

    status = 501
    reason = "not-supported"


class VersionNotSupported(Refusal):
    """this server speaks HTTP/1.1 and HTTP/1.0"""

    status = 505
    reason = "version"


class TooManyConnections(Refusal):
    """too many clients are connected"""

    status = 503
    reason = "connection-limit"
    retry_after = 5


class ClientShare(Refusal):
    """this client has more than its share, and others wait"""

    status = 429
    reason = "client-share"
    retry_after = 5


class TooManyHeld(Refusal):
    """too many requests are waiting"""

    status = 503
    reason = "held-limit"
    retry_after = 5


class QueueFull(Refusal):
    """the queue is full"""

    status = 503
    reason = "queue-limit"
    retry_after = 10


class QueueUnavailable(Refusal):
    """the queue cannot be reached"""

    status = 503
    reason = "redis-unavailable"
    retry_after = 5


class Draining(Refusal):
    """this server is shutting down"""

    status = 503
    reason = "draining"
    retry_after = 1


class NotStarted(Refusal):
    """no worker took the request before its deadline"""

    status = 503
    reason = "deadline-queued"
    retry_after = 10


class NoReply(Refusal):
    """no reply came before the deadline"""

    status = 504
    reason = "deadline-started"


class BadReply(Refusal):
    """the worker's reply was not usable"""

    status = 502
    reason = "bad-reply"


class ReplyTooLarge(Refusal):
    """the worker's reply is larger than this server accepts"""

    status = 502
    reason = "reply-too-large"


class WorkerFailed(Refusal):
    """the worker that had this request failed"""

    status = 502
    reason = "worker-failed"


class WorkerTimeout(Refusal):
    """the worker that had this request took too long"""

    status = 504
    reason = "worker-timeout"
