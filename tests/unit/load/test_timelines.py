import gzip

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.timelines import read_timelines, write_timelines
from tests.unit.load.test_summary import FAILED, GOOD


def test_there_and_back_same_bytes(tmp_path):
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    write_timelines(one, [GOOD, FAILED])
    assert read_timelines(one) == [GOOD, FAILED]
    write_timelines(two, read_timelines(one))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [(b"{oops\n", "line 2"), (b"[]\n", "no object"), (b'{"a": 1}\n', "missing or unknown: a, arrival_ns")],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = tmp_path / "x.jsonl.gz"
    write_timelines(path, [GOOD])
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + line))
    with pytest.raises(ConfigError, match=words):
        read_timelines(path)


def test_other_files(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_timelines(tmp_path / "none")
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(ConfigError, match="not a gzip file"):
        read_timelines(text)
    cut = tmp_path / "cut"
    write_timelines(cut, [GOOD])
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="Cannot read"):
        read_timelines(cut)
    damaged = tmp_path / "damaged"
    write_timelines(damaged, [GOOD])
    data = bytearray(damaged.read_bytes())
    data[10] |= 0b110  # no such kind of block
    damaged.write_bytes(data)
    with pytest.raises(ConfigError, match="line 1 is not a request timeline"):
        read_timelines(damaged)
