"""The Redis side, and the only room that imports txredisapi.

A broker is a connection and parts; relay, pool and status hold a `base.Broker` and call its parts::

    records, base  <-  redis/ (queues leases delayed dead_letters gate inbox nodes orders clients
                               registry bell)  <-  redis.broker  <-  backend
                   <-  memory/ (the same)  <-  memory.broker  <-  queuerelay.testing

`base` says what a broker and each of its parts does, `records` what they give. `insist` repeats
what ends a claim until it is answered. `reaper` settles what dead workers left, with any broker.
`embedded` is a server of our own as a child, in a `private_directory`; `backend` is the broker that
the configuration names.
What is sent, and what answers mean, is in `wire.commands`, which workers share. Invariants:

1. Commands are bounded in time, and refused at once while there is no connection.
2. Nothing is cancelled: a blocking command that is forgotten halfway loses what it pops.
3. Whoever asks learns whether nothing was done, Redis said no, or nobody knows.
"""
