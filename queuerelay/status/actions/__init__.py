"""Actions: what operators do, by the page, the command line, or any program.

Data goes one way through the modules, and so do imports::

    form, give_orders  <-  acts  <-  table  <-  actions

- `form` reads what an action is given, `give_orders` asks pools and waits for their reports.
- `acts` are the actions themselves.
- `table` is each with its path, its parameters and its fields: routes and OpenAPI are made of it.
- `actions` makes the routes, behind the guard, with one line in the log for each.

Nothing here imports `views`.
"""
