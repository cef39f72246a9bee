"""Who says where Redis is: the command line, the file, the environment."""

import pytest

from queuerelay.config import Config, load
from queuerelay.errors import ConfigError
from queuerelay.worker.main import _parser, _redis

A, B, C = "redis://:a@h:1/0", "redis://:b@h:2/0", "redis://:c@h:3/0"


@pytest.fixture
def written(tmp_path):
    """Writes a file with this text, and gives its path."""

    def write(text):
        path = tmp_path / f"file{len(list(tmp_path.iterdir()))}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_the_nearest_wins(written):
    of_file = written(f"{A}\n")
    environment = {"QUEUERELAY_REDIS": C}
    toml = written(f'redis = "{B}"')
    assert load(None, {}, environment).redis == C
    assert load(None, {}, {"QUEUERELAY_REDIS_FILE": of_file}).redis == A
    assert load(toml, {}, environment).redis == B
    assert load(toml, {"redis": A}, environment).redis == A
    assert load(toml, {"redis-file": of_file}, environment).redis == A
    assert load(toml, {"redis-file": of_file}, environment).redis_file == of_file
    both = {"QUEUERELAY_REDIS": C, "QUEUERELAY_REDIS_FILE": of_file}
    assert load(written(f'redis_file = "{of_file}"'), {}, both).redis == A
    # A service of others reads no environment.
    assert load() == Config()
    # Empty is as good as none.
    assert load(None, {}, {"QUEUERELAY_REDIS": "", "QUEUERELAY_REDIS_FILE": ""}) == Config()


def test_it_is_the_url_or_the_file(written):
    one = written(A)
    with pytest.raises(ConfigError, match=r"--redis-file: got '.*', expected either it or --redis"):
        load(None, {"redis": A, "redis-file": one})
    with pytest.raises(ConfigError, match=r"redis_file: got '.*', expected either it or redis"):
        load(written(f'redis = "{A}"\nredis_file = "{one}"'))
    with pytest.raises(ConfigError, match=r"QUEUERELAY_REDIS_FILE: .* or QUEUERELAY_REDIS"):
        load(None, {}, {"QUEUERELAY_REDIS": A, "QUEUERELAY_REDIS_FILE": one})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a file with one line"),
        ("\n\n", "a file with one line"),
        (f"{A}\n{B}\n", "a file with one line"),
        ("x" * 20_000, "a file with one line"),
        (b"redis://\xff", "a file of UTF-8"),
        ("gopher://s3cret@h", "localhost, HOST:PORT"),
        ("redis://u:s3cret@h:port", "localhost, HOST:PORT"),
    ],
)
def test_a_file_that_will_not_do(written, content, said):
    path = written(content)
    with pytest.raises(ConfigError) as raised:
        load(None, {"redis-file": path})
    text = str(raised.value)
    assert f"--redis-file {path}" in text or f"--redis-file: got '{path}'" in text
    assert said in text
    assert "u:s3cret" not in text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"--redis-file: .* \(No such file or directory\)"):
        load(None, {"redis-file": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"--redis-file: .* \(Is a directory\)"):
        load(None, {"redis-file": str(tmp_path)})


def test_a_wrong_variable_is_named():
    with pytest.raises(ConfigError, match=r"QUEUERELAY_REDIS: got 'redis://u:\*\*\*@h:x'"):
        load(None, {}, {"QUEUERELAY_REDIS": "redis://u:s3cret@h:x"})


def test_the_worker(written, monkeypatch):
    def found(*options):
        return _redis(_parser().parse_args([*options, "m:a"])).whole

    assert found() == "redis://localhost:6379/0"
    monkeypatch.setenv("QUEUERELAY_REDIS_FILE", written(C))
    assert found() == C
    assert found("--redis-file", written(B)) == B
    assert found("--redis", "localhost") == "redis://localhost:6379/0"
    monkeypatch.setenv("QUEUERELAY_REDIS", A)
    with pytest.raises(ConfigError, match="QUEUERELAY_REDIS_FILE"):
        found()
    with pytest.raises(ConfigError, match="--redis-file"):
        found("--redis", A, "--redis-file", "x")


def test_no_record_shows_it():
    config = load(None, {"redis": A})
    assert ":a@" not in repr(config)
    assert ":a@" not in repr(_redis(_parser().parse_args(["--redis", A, "m:a"])))
