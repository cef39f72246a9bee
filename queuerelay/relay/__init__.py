"""The relay: it holds clients' requests until a worker has answered them.

One request's way there and back, by file names::

    (client) -> front -> request -> answering -> relay -> held, outbox -> (queue, worker)
    (inbox) -> replies -> held, endings -> answering -> request -> (client)

A streamed answer goes through `stream` between `replies` and `answering`.

The fronts, which know HTTP:

- `listeners`: where clients connect, with the access log. `limits`: what clients may take.
- `front`: the daemon's own front, a channel for each connection; `request`: one request on it.
- `resource`: the same for anybody's twisted.web Site.
- `answering`: what both fronts have in common, a request as the relay's `HeldClient`. `response`
  makes header fields and body of a reply, `framing` says how a streamed body ends.
- `probe`: a client of the relay's own, for the deep health check.

The relay, which knows nothing of HTTP, each part on those named before it:

- `held`: the table of held requests, their states and deadlines.
- `budget`: the bytes that requests and answers may weigh.
- `stream`: streamed answers, from frames to events.
- `notices`: what workers are told about clients.
- `endings`: how held requests end, with what is counted there: `meter`, `refusals`, `drain_rate`.
- `gate`: which queues are paused. `outbox`: pushes to the queues, and takes off them.
- `replies`: from the inbox to the held requests.
- `report`: what the relay says about itself.
- `routes`: which queue a request goes to. `relay`: all of it together.

Invariants:

1. Imports go one way. A part calls those named before it, and gives them no callbacks: they return
   events or answers. A client is called by the protocol `HeldClient`, whichever front is behind it.
2. Every held request ends exactly once, in `endings`; its state is written in `held` alone.
3. What goes wrong with one request, reply or client costs no other.
"""
