"""The wire: what two processes agree on, as pure functions and records. No I/O, no clock.

- Of a request: `message` is the way in (relay to queue to worker), `reply` the way back, `headers`
  the rules that both share, `cgi` and `variables` what a script sees of it, `body` and `target` its
  parts, `proxies` who may speak for clients.
- Of a job: `outcome` how an attempt ended, `failure` and `dead_letter` the entries of
  ``resque:failed``, `recovery` what becomes of a message whose worker died, `working` what Resque
  shows of it while it runs.
- Of nodes: `node` what each publishes of itself, `order` what operators ask of one.
- Of Redis: `url` where it is, `keys` the names in it, `scripts` the texts in ``lua/``, `commands`
  the call of each script and what its answer means, `claim` what a claim gives.
- For all of them: `names` what queues and classes may be called, `histogram` durations that can be
  added up, `exact` JSON with every digit, `json_object` JSON that is to be an object, `untrusted`
  JSON that anybody may have written.

Invariants:

1. What is encoded here is decoded here, side by side.
2. A script's KEYS, ARGV and answer are written once, in `commands`.

`docs/protocol.md` describes the same bytes to worker authors.
"""
