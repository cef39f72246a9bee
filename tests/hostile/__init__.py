"""Attacks on real daemons, by who makes them; docs/security.md says what each may and may not do.

- `corpus`: requests as bytes, each with what RFC 9112 makes of it; `test_clients` sends them.
- `test_producers`: whoever may push messages.
- `test_workers`: whoever may push replies.
- `test_neighbours`: whoever else writes into the same Redis.
- `test_texts`: texts of all of them, wherever they are shown.
"""
