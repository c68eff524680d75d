"""Addresses of servers, and the tokens that only their owner may read."""

import os

import pytest

from napari_unet.core.errors import DeviceError
from napari_unet.core.server_access import (
    Access,
    ServerAddress,
    find_access,
    read_token,
    remember_server,
    remembered_servers,
    servers_file,
)


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("localhost:9000", ("localhost", 9000, False), "localhost:9000"),
        ("127.0.0.1", ("127.0.0.1", 8790, False), "127.0.0.1:8790"),
        ("gpu.lab.org", ("gpu.lab.org", 8790, True), "gpu.lab.org:8790"),
        ("https://gpu.lab.org:443/", ("gpu.lab.org", 443, True), "gpu.lab.org:443"),
        ("http://gpu:80", ("gpu", 80, False), "http://gpu:80"),
        ("https://localhost:1", ("localhost", 1, True), "https://localhost:1"),
        ("[::1]:5", ("::1", 5, False), "[::1]:5"),
    ],
)
def test_addresses(text, address, shown):
    found = ServerAddress.parse(text)
    assert found == address and str(found) == shown
    assert ServerAddress.parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", ":80", "gpu:port", "ftp://gpu", "gpu/files", "a@gpu", "gpu:99999"]
)
def test_no_addresses(text):
    with pytest.raises(DeviceError, match="is no address of a server"):
        ServerAddress.parse(text)


def test_servers_are_remembered_for_their_owner_alone(monkeypatch):
    monkeypatch.delenv("NAPARI_UNET_TOKEN", raising=False)
    here, there = ServerAddress.parse("localhost:1"), ServerAddress.parse("gpu.lab.org")
    with pytest.raises(DeviceError, match=r"no token for the server localhost:1"):
        find_access(here)
    remember_server(here, Access("one"))
    remember_server(there, Access("two", "/lab.pem"))
    remember_server(here, Access("three"))
    assert list(remembered_servers().items()) == [
        ("gpu.lab.org:8790", Access("two", "/lab.pem")),
        ("localhost:1", Access("three")),
    ]
    assert find_access(here).token == "three"
    monkeypatch.setenv("NAPARI_UNET_TOKEN", "four")
    assert find_access(there) == Access("four", "/lab.pem")
    if os.name != "nt":
        assert servers_file().stat().st_mode & 0o777 == 0o600
        servers_file().chmod(0o644)
        with pytest.raises(DeviceError, match="chmod 600"):
            find_access(here)
    servers_file().write_text("{")
    servers_file().chmod(0o600)
    with pytest.raises(DeviceError, match="Mend it"):
        remembered_servers()


def test_a_token_in_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("abc\n")
    file.chmod(0o600)
    assert read_token(file) == "abc"
    file.write_text("two words")
    with pytest.raises(DeviceError, match="holds no token"):
        read_token(file)
    if os.name != "nt":
        file.chmod(0o640)
        with pytest.raises(DeviceError, match="Others may read"):
            read_token(file)
