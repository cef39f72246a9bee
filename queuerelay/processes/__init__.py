"""Starting, watching and ending processes. It knows no queue: pools stand on it.

Imports go one way::

    guardian, launcher                            (programs of their own: they import none of ours)
    interfaces, ends, confine, heritage, watch
    watch  <-  pipes  <-  transport  <-  ownchild, launched
    guardian  <-  escapees, guarded, launched
    escapees  <-  transport
    launched, guarded  <-  link  <-  launchers  <-  spawner

`spawner` is the way in: a `Spawner` provides `interfaces.IProcesses`, and what it starts provides
`interfaces.IGroupTransport`. There are three ways to start a process, and it chooses:

- by posix_spawn, our own child (`ownchild`): the usual way;
- by the launcher, whose child it then is (`launched`): for scripts, where many descriptors are open
  here, because a start copies the table of descriptors and the reactor would wait for that;
- in Twisted's way, which forks: where the system has no pidfd, or another user, a terminal or a
  working directory is asked for; `confine` gives a directory without that.

Two of the modules are programs, each a small Python without Twisted that runs beside a daemon:

- `guardian`, from the first start on: a daemon that is killed can end nothing any more, and its
  scripts would run on for nobody;
- `launcher`, from the first start with more than `spawner.CROWDED` descriptors open on: it holds
  few, so its starts are cheap, and while it waits for them nobody else does. What it has started it
  kills itself when the daemon is gone.

Modules::

    interfaces   what starts processes and what is started, as users see them
    ends         both ends of a process's pipes, until it has them
    confine      directory, umask and resource limits, as a command before the command
    heritage     what processes inherit although the daemon has changed it for itself
    watch        an epoll of our own for the descriptors of processes
    pipes        stdin, stdout and stderr of one process
    transport    one process that runs: signals, pipes, its end
    ownchild     a process that is our own child: its pidfd, its status
    guarded      process groups, and the guardian that ends them when we are killed
    guardian     the guardian's program
    escapees       what scripts let go of, found by a mark
    orphans      what becomes ours where we are process 1
    launchers    a launcher where one is needed, and when another one comes
    link         the link to one launcher
    launched     a process that is the launcher's child
    launcher     the launcher's program

Invariants of the room; each module has its own at its top:

1. Every process has a group of its own, so that what it started can be ended with it, and a mark in
   its environment, for what leaves the group. Twisted's way alone gives none; then a signal to the
   group is one to the process.
2. Every process that is started is told about: `processExited` and `processEnded`, once each.
3. Where the daemon is killed, its processes are too: the guardian sees to that, or their launcher.
4. A number is never signalled after the process was reaped: it may be another's by then.
"""
