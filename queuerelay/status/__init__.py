"""The status room: one snapshot of everything, shown to people and machines, and what operators do.

Data goes one way through the modules, and so do imports::

    collect  <-  status  <-  actions  <-  views  <-  routes  <-  resource  <-  listener
                 guard, route, json_answer

- `collect/` looks at Redis and reads what nodes publish, once a second, and makes the snapshot.
- `status` is the room of one process; `guard` and `credentials` say who may act.
- `route` is a request, a response and a route without a server; `json_answer` a response of JSON.
- `actions/` is what operators do, `views/` the snapshot as a page, JSON, metrics and more.
- `routes` is all of both in one list, `resource` serves it in twisted.web, `listener` is where.

Invariants:

1. No request leads to work on Redis but a page of dead letters, the deep check, and an action.
2. The room knows the other parts of its process by `status.ThisProcess` alone, and nodes by their
   records (`queuerelay.wire.node`).
3. Only actions change anything, and they are for those whom the guard lets.
"""
