"""The HTTP side: from a client's request to a message on a queue, and from a reply to an answer."""
