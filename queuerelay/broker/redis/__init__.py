"""The broker on Redis.

`protocol` is one connection's life, `entrance` its beginning, `connection` makes it again for ever,
`master` says where, `outage` tells the log, `nap` is a pause between two looks. The parts have a
module each, as in `queuerelay.broker.memory`, and `broker` puts them together: all share one
connection for commands, and each inbox and each queue that a bell watches has one of its own,
because waiting blocks it.
"""
