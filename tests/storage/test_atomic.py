"""Files written whole or not at all, the cache folder, locks and digests."""

import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from minitl.storage import atomic as files
from minitl.storage.keras_weights import array_digest


def test_replacing_writes_whole_and_keeps_the_ending(tmp_path):
    target = tmp_path / "new folder" / "curves.png"
    with files.replacing(target) as part:
        assert part.parent == target.parent and part.suffix == ".png"
        assert not target.exists()
        part.write_text("whole")
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["curves.png"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_replacing_leaves_the_old_file_when_interrupted(tmp_path, interruption):
    target = tmp_path / "model.h5"
    target.write_text("old")
    with pytest.raises(interruption), files.replacing(target) as part:
        part.write_text("half")
        raise interruption
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.h5"]


@pytest.mark.skipif(os.name != "posix", reason="permissions and symbolic links of POSIX")
def test_replacing_keeps_permissions_and_symbolic_links(tmp_path):
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with files.replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_replacing_refuses_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), files.replacing(tmp_path):
        raise AssertionError("the block must not run")


def test_cache_folder_is_where_the_user_wants_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "mine"))
    assert files.cache_folder("weights") == tmp_path / "mine" / "weights"
    assert (tmp_path / "mine" / "weights").is_dir()
    monkeypatch.delenv("MINITL_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "minitl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert files.cache_folder() == tmp_path / "home" / ".cache" / "minitl"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert files.cache_folder() == tmp_path / "home" / "Library" / "Caches" / "minitl"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert files.cache_folder() == tmp_path / "local" / "minitl"


def test_cache_folder_that_cannot_be_made_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set MINITL_HOME to a folder"):
        files.cache_folder("weights")


def test_lock_is_held_by_one_at_a_time(tmp_path, caplog):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        with files.locked(tmp_path / "x", waiting="waiting"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert "waiting" in caplog.text


def test_lock_dies_with_its_process(tmp_path):
    code = "import os, sys; from minitl.storage.atomic import locked\n"
    code += "with locked(sys.argv[1]): os._exit(9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")])
    assert done.returncode == 9
    with files.locked(tmp_path / "x"):
        pass


def test_digests(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc" * 1_000_000)
    assert files.file_digest(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert files.file_digest(path, "md5") == hashlib.md5(b"abc" * 1_000_000).hexdigest()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(array.tobytes()).hexdigest()
    # The digest is one of values: neither memory order nor byte order nor width matters.
    for same in (np.asfortranarray(array), array.astype(">f4"), array.astype(np.float64)):
        assert array_digest(same) == expected
    assert array_digest(array.T) != expected


LEAVE = """
import os, sys
from minitl.storage import atomic
with atomic.{what} as part:
    (part / "F" if part.is_dir() else part).write_text("half")
    if len(sys.argv) > 1:
        print("written", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells processes by /proc")
@pytest.mark.parametrize("what", ["replacing('m.h5')", "temporary_folder()"])
def test_what_a_killed_process_left_is_taken_away_but_not_what_one_is_writing(tmp_path, what):
    how = {"cwd": tmp_path, "env": os.environ | {"TMPDIR": str(tmp_path)}}
    command = [sys.executable, "-c", LEAVE.format(what=what)]
    writing = subprocess.Popen(
        [*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how
    )
    assert writing.stdout.readline() == b"written\n"
    (of_one,) = os.listdir(tmp_path)
    for _ in range(2):
        subprocess.run(command, **how)
    assert len(left := os.listdir(tmp_path)) == 2 and of_one in left
    writing.communicate()
    (tmp_path / ".m-notes.part.h5").write_text("of somebody else")
    subprocess.run(
        [sys.executable, "-c", LEAVE.format(what=what).replace("os.kill", "print")], **how
    )
    expected = {".m-notes.part.h5"} | ({"m.h5"} if "m.h5" in what else set())
    assert set(os.listdir(tmp_path)) == expected


def test_what_another_machine_left_is_taken_away_after_a_week(tmp_path):
    new, old = (tmp_path / f".m-0000000{i}-1-2-0123456789ab.part.h5" for i in range(2))
    for path in (new, old):
        path.write_text("half")
    week_ago = time.time() - 8 * 86400
    os.utime(old, (week_ago, week_ago))
    with files.replacing(tmp_path / "m.h5") as part:
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == sorted([new.name, "m.h5"])


def test_without_a_home_the_error_says_what_to_set(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MINITL_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(OSError, match="set MINITL_HOME to a folder that can be written"):
        files.cache_folder("weights")
