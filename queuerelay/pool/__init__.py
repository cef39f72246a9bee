"""The worker side: runs at most N scripts at a time, and judges them by their exit status.

One job's way there and back, by file names::

    (queue) -> filling -> pool -> slot -> runner -> task, environment, program -> child -> (script)
    (script) -> child, output -> runner -> task, exits -> disposition -> settle -> (broker)

Data goes these ways and no other: claims come in by `filling`, and `settle` ends them. Imports go
one way; what calls back (room for another message, the end of a rest) does so by a callable that
`pool` sets, or by the protocol in `filling`.

What is decided, in plain values, without reactor or clock:

- `exits`: what an exit means, and what becomes of the message.
- `output`: what children print, kept within bounds.
- `environment`, `program`: variables of a script, and where its file is.
- `task`: one message: its command line, its stdin, and the reply that was printed.
- `priority`: the order of the queues for one claim. `sizing`: how many slots there should be.

One message after the other, each module on those above it:

- `runtime`: what all pools of a process run on: broker, processes, clocks.
- `stopping`: whether an end was of the daemon's own stop.
- `child`: one process, from its start until it needs no slot any more.
- `slot`: a slot while it has a message. `tally`: counters, and the exits that are remembered.
- `cooldown`: rests where the command cannot be run. `misfits`: messages of which it is so.
- `settle`: the end of a claim.
- `disposition`: what becomes of a message. `runner`: its script, from the claim to the end.
- `filling`: the loop that claims messages for free slots.
- `resque_worker`: a pool as Resque's tools see it. `upkeep`: leases, dead pools, delayed messages.
- `autosize`: the size that follows the backlog.
- `pool`: all of it together, for one pool.

Processes that take messages by themselves:

- `post`: one of them in its place. `resident`: a pool of them, and how it is replaced.

All pools of a process:

- `carry_out`: orders of operators. `publish`: what others are told. `pools`: all of it together.

Invariants of the room; each module has its own at its top:

1. A pool never has more than `size` scripts at work (`pool`), and claims only what it has room for
   (`filling`).
2. Every claimed message is settled once, or its lease expires (`runner`); what was done under a
   lost lease does not count.
3. A script that we end gets TERM, its grace, then KILL, with all that it started (`child`).
4. What is the script's fault costs a message no try, and the pool rests (`cooldown`).
5. After `stop` nothing is left: no process, no timer, no wait.
6. What turns again and again is in `loops()`, the filling too: health sees it stand still.
"""
