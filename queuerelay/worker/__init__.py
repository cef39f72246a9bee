"""What runs in a worker process: any WSGI application, answering requests from the queues.

``queuerelay-worker --redis URL --queues a,b module:app``. Data and imports go one way::

    settings, master  <-  link  <-  doorbell, lease, stream  <-  wsgi (environ)  <-  loop  <-  main
    in_hand  <-  stream, loop, supervisor
    link  <-  timed_out  <-  main;  supervisor  <-  main

`main` reads the options and makes `settings` of them; `supervisor` is the parent, which replaces a
process that hangs, knows that by `in_hand`, and ends its message by `timed_out`; `loop` claims,
runs the application and acknowledges; `lease` renews and reaps in a thread of its own; `doorbell`
waits while there is nothing to do; `link` is one connection to Redis, over which the calls of
`wire.commands` go, and `master` says where that is; `environ` and `wsgi` are the application's
side, `stream` takes the parts of its answer. Invariants:

1. No Twisted: a worker is a plain blocking process, and the application's own.
2. A message is leased from claim to acknowledgement; the reply, or the last part of a streamed
   one, goes out with the acknowledgement or not at all. Whoever finds a lease expired takes the
   message over.
3. One message at a time; whoever wants more runs more workers.
"""
