"""What tests of several folders share; what one folder uses is in that folder.

- `waiting`: until something comes true, with and without the test's own reactor.
- `ports`: one that is free, and whether somebody listens on one.
- `processes`: children of a process, and whether one is alive.
- `daemon`: the real ``twistd -n queuerelay`` in a child, its clients, and a worker that is played.
- `worker`: the real ``queuerelay-worker`` in a child, and a relay that is played.
- `redis`: real servers. `certificates`: an authority and what it has issued.
- `strict`: requests, and a reader of responses that forgives nothing.
- `html`, `log_line`: what a page and a line of the access log may look like.
- `janitor`: fails a test for what it left behind. `logs`: what queuerelay has logged.

`daemon` and `worker` have fixtures for a ``conftest.py`` to import; those of `redis`, `janitor` and
`logs` are there for all.
"""
