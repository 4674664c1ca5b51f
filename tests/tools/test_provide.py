"""Data and browser are brought once, and what is there is left alone."""

from pathlib import Path

import pytest

from tools import provide


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """A machine on which Debian's package is installed below `tmp_path`."""
    source = tmp_path / "usr" / "share"
    source.mkdir(parents=True)
    for name in provide.FASHION:
        (source / name).write_bytes(name.encode())
    monkeypatch.setattr(provide, "DEBIAN_FASHION", source)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "datasets" / "fashion-mnist"


def test_keras_cache_is_fed_from_the_installed_package(debian):
    provide.fashion_mnist()
    assert sorted(path.name for path in debian.iterdir()) == sorted(provide.FASHION)
    assert all(path.read_bytes() == path.name.encode() for path in debian.iterdir())


def test_a_complete_cache_is_left_alone(debian, monkeypatch):
    debian.mkdir(parents=True)
    for name in provide.FASHION:
        (debian / name).write_bytes(b"mine")
    monkeypatch.setattr(provide.shutil, "copyfile", lambda *_: pytest.fail("copied over it"))
    provide.fashion_mnist()
    assert (debian / provide.FASHION[0]).read_bytes() == b"mine"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A machine that has no font installed, but can download its package."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    calls = []

    def run(command, cwd=None, **_):
        calls.append(command[:2])
        if command[0] == "apt-get":
            (cwd / "a-font_1_all.deb").touch()
        else:
            inside = Path(command[-1]) / "usr/share/no-such-font"
            inside.mkdir(parents=True)
            (inside / "NotoColorEmoji.ttf").write_bytes(b"font")
        return True

    monkeypatch.setattr(provide, "_run", run)
    return calls


def bring():
    provide.packaged("a-font", "usr/share/no-such-font", "font", "NotoColorEmoji.ttf")


def test_a_package_is_unpacked_into_keras_cache_and_not_installed(package, tmp_path, capsys):
    bring()
    found = tmp_path / "keras" / "datasets" / "font" / "NotoColorEmoji.ttf"
    assert found.read_bytes() == b"font"
    assert package == [["apt-get", "download"], ["dpkg-deb", "--extract"]]
    assert "of another version than the recorded pages" in capsys.readouterr().out
    found.write_bytes(b"mine")
    bring()
    assert found.read_bytes() == b"mine"
    assert len(package) == 2


def test_a_known_version_is_accepted_without_a_word(package, monkeypatch, capsys):
    known = provide.hashlib.sha256(b"font").hexdigest()
    monkeypatch.setitem(provide.SHA256, "NotoColorEmoji.ttf", known)
    bring()
    assert capsys.readouterr().out == ""


def test_a_machine_without_apt_is_told_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(provide, "_run", lambda *_, **__: False)
    monkeypatch.setattr(provide, "_apt", lambda *_: False)
    bring()
    assert not (tmp_path / "keras").exists()
    assert "a-font cannot be had from Debian here" in capsys.readouterr().out


def test_what_is_installed_is_copied_without_a_download(package, tmp_path):
    source = tmp_path / "installed"
    source.mkdir()
    (source / "NotoColorEmoji.ttf").write_bytes(b"system")
    provide.packaged("a-font", str(source), "font", "NotoColorEmoji.ttf")
    found = tmp_path / "keras" / "datasets" / "font" / "NotoColorEmoji.ttf"
    assert found.read_bytes() == b"system"
    assert package == []


def test_an_unknown_thing_is_named(monkeypatch):
    monkeypatch.setattr(provide.sys, "argv", ["provide", "data", "toaster"])
    with pytest.raises(SystemExit, match="say what to provide: data, browser; got toaster"):
        provide._main()
