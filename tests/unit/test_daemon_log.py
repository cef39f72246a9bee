"""The file of the daemon's own log: whole lines, bounded, whatever the disk does."""

import errno
import os

import pytest
from twisted.logger import LogLevel

from queuerelay.daemon_log import DaemonLog, LogFile
from queuerelay.errors import ConfigError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def make(path):
    """Makes an open file of the log."""
    made = []

    def make(largest=0, keep=3, name=path):
        file = LogFile(
            str(name), largest=largest, keep=keep, lost=lambda count: b"lost %d\n" % count
        )
        made.append(file)
        file.open()
        return file

    yield make
    for file in made:
        file.close()


def test_it_is_bounded_in_size_and_count(make, path):
    file = make(largest=100, keep=3)
    for number in range(100):
        file.write(b"%019d\n" % number)
    assert sorted(os.listdir(path.parent)) == ["log", "log.1", "log.2", "log.3"]
    text = b"".join(
        (path.parent / name).read_bytes() for name in ("log.3", "log.2", "log.1", "log")
    )
    assert text == b"".join(b"%019d\n" % number for number in range(80, 100))
    assert all((path.parent / name).stat().st_size <= 100 for name in os.listdir(path.parent))


def test_a_line_that_is_larger_than_the_file_may_be(make, path):
    file = make(largest=10, keep=2)
    for _ in range(4):
        file.write(b"x" * 50 + b"\n")
    assert sorted(os.listdir(path.parent)) == ["log", "log.1", "log.2"]


def test_what_was_there_counts(make, path):
    path.write_bytes(b"y" * 95 + b"\n")
    make(largest=100, keep=1).write(b"hello\n")
    assert path.read_bytes() == b"hello\n"
    assert path.with_name("log.1").read_bytes().startswith(b"yyy")


def test_a_new_file_is_for_the_group_to_read(make, path):
    umask = os.umask(0o077)
    try:
        file = make(largest=10)
        file.write(b"123456789\n")
        file.write(b"123456789\n")
    finally:
        os.umask(umask)
    for name in ("log", "log.1"):
        assert (path.parent / name).stat().st_mode & 0o777 == 0o640


def test_what_comes_before_the_file_is_open_waits_for_it(path):
    file = LogFile(str(path), largest=0, keep=1, lost=lambda count: b"lost %d\n" % count)
    file.write(b"early\n")
    for _ in range(20):
        file.write(b"x" * 100_000 + b"\n")
    assert not path.exists()
    file.open()
    file.write(b"late\n")
    file.close()
    lines = path.read_bytes().splitlines()
    assert lines[0] == b"early"
    assert lines[-1] == b"late"
    assert b"lost 10" in lines


def test_others_may_take_the_file_away(make, path):
    file = make(largest=1000)
    file.write(b"1\n")
    path.rename(path.with_name("away"))
    # As logrotate has it, be it by one signal or the other.
    file.rotate()
    file.write(b"2\n")
    path.rename(path.with_name("away2"))
    file.reopen()
    file.write(b"3\n")
    assert [path.with_name(name).read_bytes() for name in ("away", "away2", "log")] == [
        b"1\n",
        b"2\n",
        b"3\n",
    ]


@pytest.mark.parametrize(("largest", "names"), [(1000, ["log", "log.1"]), (0, ["log"])])
def test_a_signal_rotates_what_is_ours_to_rotate(make, path, largest, names):
    file = make(largest=largest)
    file.write(b"1\n")
    file.rotate()
    file.write(b"2\n")
    assert sorted(os.listdir(path.parent)) == names
    assert path.read_bytes().endswith(b"2\n")


def test_a_directory_that_takes_no_new_names(make, path, monkeypatch, said):
    file = make(largest=10)

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    for _ in range(5):
        file.write(b"12345678\n")
    assert path.read_bytes() == b"12345678\n" * 5
    assert [text for _, text in said if "the log stays one file" in text]


class Disk:
    """A file on a disk that may be full."""

    def __init__(self, real):
        self._real = real
        self.room = 0

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        data, self.room = data[: self.room], self.room - len(data[: self.room])
        return self._real.write(data)

    def __getattr__(self, name):
        return getattr(self._real, name)


def test_a_full_disk_costs_whole_lines_and_nothing_else(make, path):
    file = make()
    file._file = disk = Disk(file._file)
    file.write(b"lost a\n")
    file.write(b"lost b\n")
    disk.room = 1000
    file.write(b"c\n")
    disk.room = 3
    file.write(b"whole\n")
    file.write(b"lost d\n")
    disk.room = 1000
    file.write(b"e\n")
    file.write(b"f\n")
    assert path.read_bytes() == b"lost 2\nc\nwhole\nlost 1\ne\nf\n"


@pytest.mark.parametrize("room", range(30))
def test_lines_are_whole_wherever_the_disk_was_full(make, path, room):
    file = make()
    file._file = disk = Disk(file._file)
    disk.room = room
    for number in range(5):
        file.write(b"line %d\n" % number)
    disk.room = 10_000
    for number in range(5, 8):
        file.write(b"line %d\n" % number)
    lines = path.read_bytes().splitlines()
    assert lines[-3:] == [b"line 5", b"line 6", b"line 7"]
    told = sum(int(line.split()[1]) for line in lines if line.startswith(b"lost"))
    assert told + sum(line.startswith(b"line") for line in lines) == 8


def test_a_torn_line_is_lost_with_its_file(make, path):
    file = make()
    file._file = disk = Disk(file._file)
    disk.room = 3
    file.write(b"torn\n")
    path.rename(path.with_name("away"))
    file.reopen()
    file.write(b"next\n")
    assert path.read_bytes() == b"lost 1\nnext\n"


def test_a_real_full_disk(make, full_disk):
    file = make(name=full_disk, largest=10)
    file.write(b"x\n")
    file.rotate()
    file.write(b"x\n")


def test_a_file_that_cannot_be_opened(path):
    path.mkdir()
    log = DaemonLog(str(path), stdout=-1, log_format="text", largest=0, keep=1)
    with pytest.raises(ConfigError, match=r"--logfile: got .* expected a writable file"):
        log.open()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_stdout(log_format):
    read, write = os.pipe()
    log = DaemonLog(None, stdout=write, log_format=log_format, largest=10, keep=1)
    os.close(write)
    for _ in range(2):
        log({"log_level": LogLevel.info, "log_format": "{a}", "a": "said", "log_time": 0.0})
        log.open()
        log.file.rotate()
        log.file.reopen()
    log.file.close()
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read().count(b"\n") == 2
