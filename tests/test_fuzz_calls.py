"""A few of the bad calls of `tests/fuzz_calls.py`: none may change anything or hang."""

import pytest

from tests import fuzz_calls


@pytest.mark.parametrize("only", ["w.model", "layers.R", "minitl.metrics", "callbacks.E"])
def test_bad_calls_change_nothing(only, capsys):
    failures = fuzz_calls.main(["--seed", "7", "--calls", "25", "--only", only])
    assert [f for f in failures if not f[0].startswith("bare")] == [], capsys.readouterr().out
    assert len(failures) <= 4, capsys.readouterr().out
