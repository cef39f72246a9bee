"""An HTTP/1.1 server for Twisted that knows no queue: the relay's front, `RelayService.site` and
the status listener stand on it.

Imports go one way::

    proxy_line, forwarded  <-  proxied  <-  listening
    head, half_closed  <-  chunked, connections  <-  channel  <-  site
    negotiate, error_pages  <-  problems  <-  site
    request_id  <-  site

A connection, from the port inwards::

    listening     endpoints as operators write them, opened and closed
    proxied       a connection that a proxy makes for a client
    proxy_line    the PROXY line with which that begins; pure
    channel       one connection of a client: its requests, its answers, its deadlines
    connections   all clients of one server: how many, and whose time is over
    half_closed   clients that close their side and read on, or have left
    head          request line and header section, or the refusal; pure
    chunked       a body in chunks; pure

Requests and their answers::

    site          a Site of twisted.web's on that channel, for any Resource
    forwarded     the client behind trusted proxies, and the fields about it that a worker gets
    request_id    the id of a request: the client's, or ours
    sender        an answer that does not go out in one write
    problems      a refusal as its client reads it: fields and body
    negotiate     the format that the client's Accept asks for; pure
    error_pages   the operator's own pages for errors
    accesslog     one line for each request that is over

Invariants of the room; each module has its own at its top:

1. Nothing here knows of relay, pool or status: what a request means is said by the subclass of
   `channel.StrictChannel`, or by the Resource.
2. What could be read in two ways is refused and the connection closed; twisted.web's own parser
   of requests sees nothing of a client's.
3. Every wait for a client and every buffer for one is bounded, by `connections.ClientLimits` or by
   the stall time of `sender.Senders`.
4. Nobody is believed who is not trusted: `forwarded.Trust` decides for PROXY lines and for fields.
5. Private attributes of Twisted's HTTP server are used here alone, and a test pins each.
"""
