"""A streamed answer on its way from the application to the relay, frame by frame.

Invariants:

1. Frames are numbered from a random number on, and each is pushed until Redis has answered: the
   relay drops what comes twice, and never takes one try's frame for another's.
2. A frame goes out while the message's lease is held, in one step, or not at all: a worker that
   lost its message says nothing more about it.
3. The application is at most `WINDOW` bytes ahead of the client; it waits here while the client is
   slow. So a relay has little to keep, and a client that has left costs little work.
4. The last frame is not sent here: it goes out with the acknowledgement.
"""

import logging
import random
import time
from typing import Any, Final

from redis.exceptions import RedisError

from queuerelay.errors import QueuerelayError
from queuerelay.wire import commands
from queuerelay.wire.claim import Claim
from queuerelay.wire.keys import Keys
from queuerelay.wire.message import Request
from queuerelay.wire.reply import encode_frame, encode_reply
from queuerelay.worker.in_hand import Limit
from queuerelay.worker.link import Link

log = logging.getLogger(__name__)

#: Bytes of the body in one frame.
FRAME: Final = 256 * 1024
#: Bytes that the application may be ahead of the client.
WINDOW: Final = 512 * 1024
#: Seconds for which nobody may take anything, or Redis not answer, before a stream is given up. The
#: relay gives up earlier; this is for when there is no relay any more.
PATIENCE: Final = 150.0
#: Seconds for which the silence between two frames counts at most.
SILENCE: Final = 30.0
#: Seconds between two looks at how much the client has taken: the first, and the longest.
LOOK: Final = (0.002, 0.1)
#: Least seconds between two looks for an application that has nothing to send.
LOOK_EVERY: Final = 1.0
#: First numbers are below this; what follows stays a number that any JSON carries.
_NUMBERS: Final = 2**48


class StreamStopped(QueuerelayError):
    """a streamed answer goes nowhere any more"""


class ReplyStream:
    """The frames of one answer to `request`, which is held by `claim`; `limit` is the time that the
    application has for it.
    """

    def __init__(
        self,
        keys: Keys,
        link: Link,
        request: Request,
        *,
        claim: Claim,
        timing: dict[str, float],
        limit: Limit,
    ) -> None:
        self._keys = keys
        self._link = link
        self._request = request
        self._claim = claim
        self._timing = timing
        self._limit = limit
        self._look_at = time.monotonic() + LOOK_EVERY
        self._number = random.randrange(_NUMBERS)
        #: Whether the first frame is out.
        self.begun = False
        #: Why nothing more is sent, "" while it is.
        self.stopped = ""
        #: Bytes of the body so far.
        self.size = 0
        #: Bytes that the client has taken, those that were out at the last look, the time of that,
        #: and for how long it has taken none of them.
        self._taken = 0
        self._seen = 0
        self._looked = 0.0
        self._starved = 0.0

    def begin(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        """Send status, header fields and the first part of the body; raises `StreamStopped`."""
        self.begun = True
        self.size = len(data[:FRAME])
        self._push(
            encode_reply(
                node_id=self._request.node_id,
                status=status,
                headers=headers,
                body=data[:FRAME],
                timing=self._timing,
                more=True,
                number=self._number,
            )
        )
        self.send(data[FRAME:])

    def send(self, data: bytes) -> None:
        """Send a part of the body; raises `StreamStopped`."""
        for start in range(0, len(data), FRAME):
            self._number += 1
            part = data[start : start + FRAME]
            self.size += len(part)
            self._push(
                encode_frame(
                    node_id=self._request.node_id, body=part, more=True, number=self._number
                )
            )
            if self.size - self._taken > WINDOW:
                self._wait()

    def look(self) -> None:
        """The application has nothing to send yet: look whether anybody waits, once a second.

        Raises `StreamStopped` where nobody does.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        if not self.begun and self._limit.over:
            self._stop("its deadline has passed")
        self._push(b"")

    def last(self) -> bytes:
        """The last frame, which ends the answer."""
        return encode_frame(
            node_id=self._request.node_id, body=b"", more=False, number=self._number + 1
        )

    def _wait(self) -> None:
        """Until the client has taken enough."""
        pause, longest = LOOK
        while self.size - self._taken > WINDOW:
            time.sleep(pause)
            pause = min(2 * pause, longest)
            self._push(b"")

    def _push(self, frame: bytes) -> None:
        """Push `frame` once, and see how things stand; an empty one only looks."""
        if self.stopped:
            raise StreamStopped(self.stopped)
        # Whoever has the message in hand waits now, not for the application.
        self._limit.rest()
        try:
            self._push_now(frame)
        finally:
            self._limit.run(begun=self.begun)

    def _push_now(self, frame: bytes) -> None:
        call = commands.frame(
            self._keys,
            self._claim.queue,
            self._claim.token,
            self._request.reply_to,
            self._request.node_id,
            frame,
        )
        until = time.monotonic() + PATIENCE
        while True:
            answer: Any
            try:
                (answer,) = self._link.send(call)
            except RedisError as error:
                answer = error
            if not isinstance(answer, Exception):
                break
            if time.monotonic() > until:
                self._stop(f"Redis did not take it for {PATIENCE:g} s")
            time.sleep(self._link.delay())
        state, taken = answer
        if state == 0:
            self._stop("the lease was lost")
        if state == 2:
            self._stop("its client has left")
        now = time.monotonic()
        if taken > self._taken or self._taken >= self._seen:
            self._starved = 0.0
        else:
            # Of a long silence of the application not all: the relay speaks when it gets a frame.
            self._starved += min(now - self._looked, SILENCE)
            if self._starved > PATIENCE:
                self._stop(f"nobody took anything for {PATIENCE:g} s")
        self._taken = max(self._taken, taken)
        self._seen = self.size
        self._looked = now

    def _stop(self, why: str) -> None:
        self.stopped = why
        raise StreamStopped(why)
