"""The wire: what two processes agree on, as pure functions. No I/O, no clock, no Twisted.

`docs/protocol.md` describes the same bytes to worker authors. What travels:

- `message` is the way in (relay to queue to worker), `reply` the way back, `body` their bodies as
  text, `headers` the rules that both share, `exact` JSON that must come out as it went in.
- `failure` writes the entries of ``resque:failed``, `dead_letter` reads them, `recovery` decides on
  a message whose worker died, `outcome` names how an attempt ended.
- `order` is what operators ask of a node, `working` what a job's worker says of itself, `histogram`
  durations that can be added up.

What is asked of Redis: `keys` names everything there, `scripts` has the texts in ``lua/``,
`commands` the call of each script and what its answer means, `claim` what a claim gives, `url`
where Redis is. How others see a request: `cgi`, `variables`, `target`, and `proxies` who sent it.
Invariants:

1. What is encoded here is decoded here, side by side.
2. A script's KEYS, ARGV and answer are written once, in `commands`.
"""
