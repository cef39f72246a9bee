"""The wire: what travels through Redis, as pure functions. No I/O, no clock, no reactor.

`message` is the way in (relay to queue to worker), `reply` the way back, `headers` the rules
that both share, `failure` the entries of ``resque:failed`` and `recovery` what becomes of a
message whose worker died. `docs/protocol.md` describes the same bytes to worker authors.
"""
