"""The interfaces of what starts processes, and of a started process."""

from collections.abc import Mapping, Sequence
from typing import AnyStr

from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IProducer,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
)


class ISpawnReactor(IReactorProcess, IReactorFDSet, IReactorTime):
    """A reactor that watches descriptors, starts processes and tells the time."""


class IGroupTransport(IProcessTransport):
    """A process that is alone in its group with what it has started itself."""

    def signalGroup(signalID: str | int) -> None:
        """Send a signal to the process and to all that it started in its group.

        `signalID` is a name (``"TERM"``) or a number. Possible until `processEnded`, so also in
        and after `processExited`, for what the process left behind. Raises
        `ProcessExitedAlready` after that and where no process is left, `ValueError` for an unknown
        name.
        """

    def closePipes() -> None:
        """Close all pipes now, whatever is unread or unwritten.

        For a process that has ended while a process of its own holds the pipes; `processEnded`
        follows in one of the next turns of the reactor.
        """

    def pauseProducing() -> None:
        """Read no output until `resumeProducing`."""

    def resumeProducing() -> None:
        """Read output again."""

    def registerProducer(producer: IProducer, streaming: bool) -> None:
        """Let `producer` write to stdin, as fast as the process reads."""

    def unregisterProducer() -> None:
        """The producer is done."""


class IProcesses(IReactorProcess):
    """Starts processes whose transports provide `IGroupTransport`."""

    def spawnProcess(
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str] = (),
        env: Mapping[AnyStr, AnyStr] | None = {},  # none, as Twisted's
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> IGroupTransport:
        """Start a process, as `IReactorProcess` says."""

    def launch(
        protocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str],
        env: Mapping[AnyStr, AnyStr],
    ) -> IGroupTransport:
        """`spawnProcess` with stdin, stdout and stderr piped, for many short processes: it need not
        wait until they run.

        The transport may have no pid at first, and what cannot be started may be told by
        `processExited` and `processEnded`, with an `OSError` as their reason.
        """
