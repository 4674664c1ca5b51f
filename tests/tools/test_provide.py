"""Data and browser are brought once, and what is there is left alone."""

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


def test_an_unknown_thing_is_named(monkeypatch):
    monkeypatch.setattr(provide.sys, "argv", ["provide", "data", "toaster"])
    with pytest.raises(SystemExit, match="say what to provide: data, browser; got toaster"):
        provide._main()
