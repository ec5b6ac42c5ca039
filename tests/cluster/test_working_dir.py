"""What of a folder is sent with a job."""

import os
import zipfile

import pytest

from adrs_ray.errors import UsageError
from cluster.working_dir import OUTPUTS, PackedFile, checked_size, listed, write_archive


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder, *left_out):
    return [file.name for file in listed(folder, left_out)]


def test_environments_caches_and_outputs_stay_here(tmp_path):
    make(
        tmp_path,
        *("task/judge.py", "task/data/case.json", "night.yaml", "pkg/runs/x.py"),
        *(".venv/bin/python", ".git/config", "runs/a/journal.db", "data/big.bin", ".env"),
        *("task/__pycache__/judge.pyc", ".ruff_cache/x", "x.egg-info/PKG-INFO", "node_modules/m.js"),
    )
    assert names(tmp_path, *OUTPUTS) == ["night.yaml", "pkg/runs/x.py", "task/data/case.json", "task/judge.py"]


def test_patterns_leave_out_names_paths_and_folders(tmp_path):
    make(tmp_path, "a.csv", "b/a.csv", "b/c.py", "d/e/f.py", "d/g.py")
    assert names(tmp_path, "*.csv") == ["b/c.py", "d/e/f.py", "d/g.py"]
    assert names(tmp_path, "d/e/", "b/a.csv") == ["a.csv", "b/c.py", "d/g.py"]
    assert names(tmp_path, "/d") == ["a.csv", "b/a.csv", "b/c.py"]


def test_links_are_sent_as_what_they_name_and_circles_end(tmp_path):
    make(tmp_path / "shared", "model.py", "deep/x.py")
    make(tmp_path / "here", "a.py")
    (tmp_path / "here" / "b.py").symlink_to(tmp_path / "shared" / "model.py")
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "shared")
    (tmp_path / "here" / "circle").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "dangling").symlink_to(tmp_path / "nothing")
    assert names(tmp_path / "here") == ["a.py", "b.py", "linked/deep/x.py", "linked/model.py"]


def test_the_same_files_give_the_same_bytes(tmp_path):
    archives = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        make(folder, "run.sh", "a/b.py")
        (folder / "run.sh").chmod(0o755)
        os.utime(folder / "a" / "b.py", (number * 10**8, number * 10**8))
        archives.append(tmp_path / f"{number}.zip")
        write_archive(listed(folder), archives[-1])
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive:
        assert archive.read("a/b.py") == b"a/b.py"
        assert archive.getinfo("run.sh").external_attr >> 16 & 0o777 == 0o755


def test_too_much_is_refused_with_the_largest_files(tmp_path):
    files = [PackedFile(f"f{number}.bin", tmp_path, number * 10**6) for number in range(1, 9)]
    assert checked_size(files, 36 * 10**6) == 36 * 10**6
    with pytest.raises(UsageError, match=r"36\.0 MB, at most 35\.0 MB.*f8\.bin \(8\.0 MB\), f7\.bin"):
        checked_size(files, 35 * 10**6)


def test_a_folder_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        listed(tmp_path / "nothing")
