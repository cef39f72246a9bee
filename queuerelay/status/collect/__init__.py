"""Collecting: from Redis and the nodes' records to one snapshot a second.

Data goes one way through the modules, and so do imports::

    ledger, history, dead_letters  <-  snapshot  <-  nodes, health  <-  assemble  <-  collector

- `collector` looks at Redis, once a second, and keeps the last snapshot.
- `nodes` reads each node's record: what is shown of it, and what it has counted.
- `ledger` adds the counters up, those of nodes that have left among them.
- `history` is the past: rates, percentiles, and the points of the last hour.
- `dead_letters` are the entries of ``resque:failed``, without arguments.
- `health` judges, by rules; `assemble` makes the snapshot of all of it.
- `snapshot` is the record that views and actions read; it imports no module that makes it.

Only `collector` does I/O.
"""
