"""Pools in the configuration, and the roles of a process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.config import Config, PoolConfig, load
from queuerelay.errors import ConfigError
from queuerelay.wire.outcome import Outcome
from tests.unit.configured import refused

POOL = "[[pool]]\nname = 'p'\nqueues = ['a', 'b']\ncommand = ['x']\n"
RESIDENT = "[[pool]]\nname = 'p'\nresident = true\ncommand = ['x']\n"


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(content: str) -> str:
        path = tmp_path / "queuerelay.toml"
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def pools(write):
    """The pools of a file with this content."""
    return lambda content: load(write(content)).pools


def test_pools_of_the_design(pools):
    assert pools("""
        [[pool]]
        name = "thumbnails"
        queues = ["mp3.high", "mp3"]
        command = ["php", "worker.php", "--id={id}"]
        size = 4
        timeout = 300.0
        tries = 3
        [[pool]]
        name = "rails"
        resident = true
        command = ["bundle", "exec", "rake", "resque:work"]
        size = 2
    """) == (
        PoolConfig(
            name="thumbnails",
            queues=("mp3.high", "mp3"),
            command=("php", "worker.php", "--id={id}"),
            size=4,
            min=4,
            max=4,
        ),
        PoolConfig(
            name="rails",
            queues=(),
            command=("bundle", "exec", "rake", "resque:work"),
            resident=True,
            size=2,
            min=2,
            max=2,
        ),
    )


def test_every_key_of_a_script_pool(pools):
    assert pools("""
        [[pool]]
        name = "all"
        queues = ["a", "b"]
        command = ["php-cgi"]
        min = 2
        max = 8
        grow_after = 1
        shrink_after = 30
        timeout = 5
        tries = 1
        start_patience = 60
        start_tries = 5
        user = "www-data"
        group = 33
        no_new_privs = false
        grace = 0
        resident = false
        status = "stdout"
        client_gone = "kill"
        cwd = "/srv/my app"
        env = {APP_ENV = "production", EMPTY = ""}
        pass_env = ["DATABASE_URL"]
        weights = [5, 0.5]
        umask = "0027"
        rlimit_as = 1073741824
        rlimit_cpu = 60
        rlimit_nofile = 256
        exits = {0 = "success", 2 = "transient", 255 = "misconfigured"}
        max_output = 1048576
        script_name = "/cgi-bin/app"
        script_filename = "/srv/app.php"
    """) == (
        PoolConfig(
            name="all",
            queues=("a", "b"),
            command=("php-cgi",),
            size=2,
            min=2,
            max=8,
            grow_after=1.0,
            shrink_after=30.0,
            timeout=5.0,
            tries=1,
            start_patience=60.0,
            start_tries=5,
            user="www-data",
            group="33",
            no_new_privs=False,
            grace=0.0,
            status="stdout",
            client_gone="kill",
            cwd="/srv/my app",
            env={"APP_ENV": "production", "EMPTY": ""},
            pass_env=("DATABASE_URL",),
            weights=(5.0, 0.5),
            umask=0o027,
            rlimit_as=1073741824,
            rlimit_cpu=60,
            rlimit_nofile=256,
            exits={0: Outcome.SUCCESS, 2: Outcome.TRANSIENT, 255: Outcome.MISCONFIGURED},
            max_output=1048576,
            script_name="/cgi-bin/app",
            script_filename="/srv/app.php",
        ),
    )


def test_recycling_of_a_resident_pool(pools):
    (pool,) = pools(RESIDENT + "queues = ['a']\nrecycle_after = 3600\nrecycle_memory = 536870912")
    assert (pool.queues, pool.recycle_after, pool.recycle_memory) == (("a",), 3600.0, 536870912)


def test_max_alone(pools):
    (pool,) = pools(POOL + "max = 3")
    assert (pool.size, pool.min, pool.max) == (1, 1, 3)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("name", "1", "a name of 1 to 64 letters, digits, '.', '_' and '-'"),
        ("name", "''", "a name of 1 to 64"),
        ("name", "'a b'", "a name of 1 to 64"),
        ("name", "'é'", "a name of 1 to 64"),
        ("name", f"'{'x' * 65}'", "a name of 1 to 64"),
        ("queues", "'a'", "a list of queue names"),
        ("queues", "[]", "a list of queue names"),
        ("queues", "['a:b']", "a queue name"),
        ("queues", "[1]", "a queue name"),
        ("queues", "['a', 'a']", "a list of queue names, each once"),
        ("command", "'php worker.php'", "a list such as ['php', 'worker.php', '--id={id}']"),
        ("command", "['php', 1]", "a list such as"),
        ("command", "[]", "a command: a program and its arguments"),
        ("command", "['x', '--a={a.b}']", "placeholders such as '{id}'"),
        ("command", "['{id}']", "no placeholder in the program's own name"),
        ("size", "0", "a whole number of slots from 1 to 10000"),
        ("size", "1.5", "a whole number of slots"),
        ("min", "2", "max beside it"),
        ("grow_after", "2", "max beside it"),
        ("shrink_after", "2", "max beside it"),
        ("grow_after", "-1", "seconds from 0 to 86400"),
        ("timeout", "0", "seconds from 0.1 to"),
        ("timeout", "'5'", "seconds from 0.1 to"),
        ("tries", "0", "a whole number of tries from 1 to 100"),
        ("grace", "-1", "seconds from 0 to 86400"),
        ("resident", "'yes'", "true or false"),
        ("resident", "1", "true or false"),
        ("status", "'stout'", "'exit' or 'stdout'; did you mean 'stdout'?"),
        ("status", "1", "'exit' or 'stdout'"),
        ("client_gone", "'ignore'", "'finish' or 'kill'"),
        ("cwd", "''", "the path of a directory"),
        ("env", "['A=b']", "a table such as {RAILS_ENV = 'production'}"),
        ("env", "{'A=' = 'b'}", "the name of an environment variable"),
        ("env", "{'' = 'b'}", "the name of an environment variable"),
        ("pass_env", "'A'", "a list of names of environment variables"),
        ("pass_env", "['1A']", "the name of an environment variable"),
        ("weights", "[1]", "one for each of the 2 queues"),
        ("weights", "[1, 0]", "a list of weights from 0.001 to 1000, one for each queue"),
        ("weights", "[1, true]", "a list of weights"),
        ("weights", "{a = 1, b = 2}", "a list of weights"),
        ("umask", "27", "an octal text such as '0027'"),
        ("umask", "0o027", "an octal text"),
        ("umask", "'0028'", "an octal text"),
        ("umask", "'7'", "an octal text"),
        ("umask", "'1777'", "an octal text"),
        ("rlimit_as", "1024", "a whole number of bytes from 1048576"),
        ("rlimit_cpu", "0", "a whole number of seconds from 1"),
        ("rlimit_nofile", "3", "a whole number of files from 8"),
        ("exits", "['transient']", "a table such as {75 = 'transient'}"),
        ("exits", "{256 = 'transient'}", "an exit status from 0 to 255"),
        ("exits", "{-1 = 'transient'}", "an exit status from 0 to 255"),
        ("exits", "{075 = 'transient'}", "an exit status from 0 to 255"),
        ("exits", "{SIGKILL = 'transient'}", "an exit status from 0 to 255"),
        ("max_output", "0", "a whole number of bytes from 1 to 268435456"),
        ("script_name", "'cgi-bin'", "the beginning of a path"),
        ("script_filename", "''", "the path of a file"),
        ("recycle_after", "60", "no such key: it does nothing without resident = true"),
        ("recycle_memory", "1048576", "no such key: it does nothing without resident = true"),
    ],
)
def test_wrong_value_names_its_key(write, key, given, expected):
    kept = [line for line in POOL.splitlines() if not line.startswith(f"{key} ")]
    text = refused(write("\n".join([*kept, f"{key} = {given}"])))
    assert text.startswith(f"pool[1].{key}: got ")
    assert f", expected {expected}" in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("pool = 1", "pool: got 1, expected tables: [[pool]]"),
        ("[pool]\nname = 'x'", "pool: got {'name': 'x'}, expected tables: [[pool]]"),
        ("pool = [1]", "pool[1]: got 1, expected a table: [[pool]]"),
        ("[[pool]]", "pool[1].name: got None, expected a name for the pool"),
        (
            "[[pool]]\nname = 'p'",
            "pool[1].command: got None, expected a list such as ['php', 'worker.php', '--id={id}']",
        ),
        (
            "[[pool]]\nname = 'p'\ncommand = ['x']",
            "pool[1].queues: got None, expected a list of queue names",
        ),
        (POOL + POOL, "pool[2].name: got 'p', expected a name that no other pool has"),
        (
            POOL + "time_out = 5",
            "pool[1].time_out: no such option; did you mean pool[1].timeout?",
        ),
        (POOL + "size = 2\nmax = 3", "pool[1].size: got 2, expected either size or min and max"),
        (POOL + "min = 4\nmax = 3", "pool[1].min: got 4, expected at most the 3 of max"),
        (
            POOL + "env = {A = 1}",
            "pool[1].env.A: got 1, expected a text without NUL",
        ),
        (POOL + 'env = {A = "\\u0000"}', "pool[1].env.A: got '\\x00', expected a text without NUL"),
        (
            POOL + "exits = {3 = 'transcient'}",
            "pool[1].exits.3: got 'transcient', expected 'success' or 'transient' or 'critical' or "
            "'crash' or 'misconfigured'; did you mean 'transient'?",
        ),
        (
            POOL + "exits = {3 = 'interrupted'}",
            "pool[1].exits.3: got 'interrupted', expected 'success' or 'transient' or 'critical' "
            "or 'crash' or 'misconfigured'",
        ),
        (
            RESIDENT + "timeout = 5",
            "pool[1].timeout: got 5.0, expected no such key: it does nothing with resident = true",
        ),
        (
            RESIDENT.replace("'x'", "'x', '{id}'"),
            "pool[1].command: got '{id}', expected no placeholder without a message",
        ),
        ("pools = []", "pools: no such option; did you mean pool?"),
    ],
)
def test_what_is_wrong_is_told(write, content, text):
    assert refused(write(content)) == text


# --- The command line ----------------------------------------------------------------------------


def test_one_pool_without_a_file():
    config = load(None, {"worker": "./resize.php '--id={id}'", "queue": "web"})
    assert config.pools == (
        PoolConfig(name="default", queues=("web",), command=("./resize.php", "--id={id}")),
    )
    options = {"worker": "x", "workers": "4", "worker-queues": "mp3,requests"}
    assert load(None, options).pools == (
        PoolConfig(
            name="default", queues=("mp3", "requests"), command=("x",), size=4, min=4, max=4
        ),
    )


def test_it_comes_after_those_of_the_file(write):
    config = load(write(POOL), {"worker": "x"})
    assert [pool.name for pool in config.pools] == ["p", "default"]
    taken = write(POOL.replace("'p'", "'default'"))
    assert refused(taken, {"worker": "x"}) == (
        "--worker: got 'x', expected no [[pool]] named 'default' in the file"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"worker": ""}, "--worker: got [], expected a command: a program and its arguments"),
        (
            {"worker": "a 'b"},
            '--worker: got "a \'b", expected a command line: no closing quotation',
        ),
        ({"worker": "a {}"}, "--worker: got '{}', expected placeholders such as '{id}'"),
        ({"worker": "{x} a"}, "--worker: got '{x}', expected no placeholder in the program's own"),
        ({"workers": "2"}, "--workers: got 2, expected --worker beside it"),
        ({"worker-queues": "a"}, "--worker-queues: got ('a',), expected --worker beside it"),
        (
            {"worker": "x", "workers": "0"},
            "--workers: got 0, expected a whole number of slots from 1 to 10000",
        ),
        ({"worker": "x", "workers": "many"}, "--workers: got 'many', expected a whole number"),
        ({"worker": "x", "worker-queues": "a,"}, "--worker-queues: got '', expected a queue name"),
        ({"worker": "x", "worker-queues": "a,a"}, "--worker-queues: got ['a', 'a'], expected a"),
        ({"role": "relais"}, "--role: got 'relais', expected 'relay' or 'pool' or 'status'; did"),
        ({"role": "relay,"}, "--role: got '', expected 'relay' or 'pool' or 'status'"),
        ({"role": "relay, pool"}, "--role: got ' pool', expected 'relay' or 'pool' or 'status'"),
        ({"role": "pool"}, "--role: got 'pool', expected a [[pool]] or --worker for it"),
    ],
)
def test_wrong_options(options, text):
    assert refused(None, options).startswith(text)


def test_roles(write):
    assert load().role == Config().role == ("relay", "status")
    assert load(None, {"status": "off"}).role == ("relay",)
    assert load(write(POOL)).role == ("relay", "pool", "status")
    assert load(None, {"worker": "x", "status": "off"}).role == ("relay", "pool")
    assert load(write("[status]\nlisten = 'off'\n")).role == ("relay",)
    assert load(None, {"worker": "x", "role": "pool"}).role == ("pool",)
    assert load(write("role = ['pool', 'relay']\n" + POOL)).role == ("pool", "relay")
    # Hosts with different roles may share one file.
    assert load(write(POOL), {"role": "relay"}).role == ("relay",)
    path = write("role = ['pool']")
    assert refused(path) == "role: got 'pool', expected a [[pool]] or --worker for it"
    assert refused(write("role = 'relay'")).startswith(
        "role: got 'relay', expected a list of roles"
    )


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["name", "queues", "command", "max", "size", "env", "exits", "weights"])
        | st.text(max_size=5),
        VALUES,
    )
)
def test_any_table_is_taken_or_refused_in_one_line(table):
    from queuerelay.config.reading import _pools

    try:
        (pool,) = _pools([table])
    except ConfigError as error:
        text = str(error)
        assert text.startswith("wrong configuration: pool[1]")
        assert "\n" not in text
    else:
        assert pool.min <= pool.size <= pool.max
