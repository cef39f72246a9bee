"""The servers that other tests rely on."""

import pytest
import redis

from tests.helpers.processes import alive


def test_both_addresses_lead_to_one_server(fresh_valkey):
    fresh_valkey.client().set("a", "b")
    with redis.Redis.from_url(fresh_valkey.tcp_url) as tcp:
        assert tcp.get("a") == b"b"
    with redis.Redis.from_url(fresh_valkey.url) as unix:
        assert unix.get("a") == b"b"
        assert unix.info("server")["process_id"] == fresh_valkey.pid


def test_fresh_is_empty(fresh_valkey):
    assert fresh_valkey.client().dbsize() == 0


def test_own_comes_back_on_the_same_addresses(own_valkey):
    server = own_valkey("--appendonly", "yes", "--appendfsync", "always")
    server.client().set("a", "b")
    pid, port = server.pid, server.port
    server.kill()
    assert not alive(pid)
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(server.tcp_url).ping()
    server.start()
    assert server.pid != pid
    assert server.port == port
    assert server.client().get("a") == b"b"
    server.stop()
    server.start()
    assert server.client().get("a") == b"b"


def test_own_with_a_password_and_a_replica(own_valkey):
    master = own_valkey("--requirepass", "secret")
    replica = own_valkey("--replicaof", f"127.0.0.1 {master.port}", "--masterauth", "secret")
    with pytest.raises(redis.AuthenticationError):
        master.client().ping()
    assert master.client(password="secret").ping()
    assert replica.client().role()[0] == b"slave"


def test_frozen_server_answers_nothing(own_valkey):
    server = own_valkey()
    server.freeze()
    with pytest.raises(redis.TimeoutError):
        server.client(socket_timeout=0.05, retry=None).ping()
    server.thaw()
    assert server.client().ping()
