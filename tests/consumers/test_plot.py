"""`posixshm demo --plot` with the real matplotlib."""

from _command import good, run


def test_a_picture_is_written(tmp_path):
    output = good("demo", "--plot", "demo.png", cwd=tmp_path)
    assert output.endswith("The picture is in demo.png.\n")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_format_that_matplotlib_does_not_have_is_one_line(tmp_path):
    done = run("demo", "--plot", "demo.xyz", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("posixshm: Format 'xyz' is not supported")
