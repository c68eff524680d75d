"""Servers with a GPU: their addresses, and the tokens and certificates that the user has for them.

A server is a device of the form ``remote:ADDRESS``, where the address is ``host:port``, or begins
with ``http://`` or ``https://``. Tokens stand in a file that nobody else may read, or in the
environment, never in a device's name, which goes into commands and provenance.
"""

from __future__ import annotations

import ipaddress
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from napari_unet.core.errors import DeviceError, OutputError
from napari_unet.core.io.files import atomic_file, make_folder
from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from pathlib import Path

REMOTE = "remote"
"""A device's name begins with this and a colon, if it is a server."""
TOKEN_VARIABLE = "NAPARI_UNET_TOKEN"
"""The environment variable that holds a token, for servers and for those who use them."""
PORT = 8790
"""Where a server listens, unless told otherwise."""


class ServerAddress(NamedTuple):
    """Where a server listens, and whether what goes there is encrypted."""

    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read an address: ``host``, ``host:port`` or a URL without a path.

        Without ``http://`` or ``https://`` other computers are spoken to encrypted, and this one
        (where a tunnel may begin) is not.

        Raises
        ------
        DeviceError
            It is none.
        """
        given = text.strip()
        scheme, mark, rest = given.partition("://")
        try:
            parts = urlsplit(f"//{rest if mark else given}")
            host, port = parts.hostname or "", parts.port or PORT
        except ValueError:
            host, port = "", 0
        odd = not host or parts.path.strip("/") or parts.query or "@" in parts.netloc
        if odd or (mark and scheme not in ("http", "https")):
            raise DeviceError(
                f"{given!r} is no address of a server; give HOST:PORT, such as gpu.lab.org:{PORT}, "
                "or https://HOST:PORT."
            )
        return cls(host, port, scheme == "https" if mark else not is_this_computer(host))

    def __str__(self) -> str:
        """Return the address as it is remembered, and as `parse` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.secure == (not is_this_computer(self.host))
        scheme = "" if usual else "https://" if self.secure else "http://"
        return f"{scheme}{host}:{self.port}"


class Access(NamedTuple):
    """What a user has for a server: a token, and the certificate (a file) that it is known by."""

    token: str
    certificate: str = ""


def is_remote(device: str) -> bool:
    """Return whether a device's name means a server."""
    return device.partition(":")[0] == REMOTE


def is_this_computer(host: str) -> bool:
    """Return whether a host is reached from this computer only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def servers_file() -> Path:
    """Return the file of remembered servers; it need not exist yet."""
    return home() / "servers.json"


def remembered_servers() -> dict[str, Access]:
    """Return the servers that the user has entered, by address, the latest last.

    Raises
    ------
    DeviceError
        The file is damaged, or others may read the tokens in it.
    """
    path = servers_file()
    try:
        check_is_private(path)
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(ServerAddress.parse(address)): Access(
                str(entry["token"]), str(entry.get("certificate", ""))
            )
            for address, entry in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(
            f"{path} cannot be read ({type(error).__name__}); it should look like "
            '{"HOST:PORT": {"token": "..."}}. Mend it, or delete it and enter the servers again.'
        ) from error


def remember_server(address: ServerAddress, access: Access) -> None:
    """Keep what the user has for a server, in a file that nobody else may read.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    entries = {name: found for name, found in remembered_servers().items() if name != str(address)}
    entries[str(address)] = access
    path = servers_file()
    text = json.dumps({name: found._asdict() for name, found in entries.items()}, indent=2)
    make_folder(path.parent)
    try:
        with atomic_file(path) as partial:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text + "\n")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def find_access(address: ServerAddress) -> Access:
    """Return what the user has for a server: NAPARI_UNET_TOKEN if it is set, or what is remembered.

    Raises
    ------
    DeviceError
        There is no token.
    """
    known = remembered_servers().get(str(address))
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return Access(token, known.certificate if known else "")
    if known is None:
        raise DeviceError(
            f"There is no token for the server {address}; set {TOKEN_VARIABLE}, or enter the "
            f"server in the window or in {servers_file()} (docs/remote.md)."
        )
    return known


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises
    ------
    DeviceError
        There is none, or others may read it.
    """
    try:
        check_is_private(path)
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DeviceError(f"The token in {path} cannot be read: {reason}.") from error
    if not token or not token.isascii() or len(token.split()) != 1:
        raise DeviceError(f"{path} holds no token; write one word into it, of letters and digits.")
    return token


def check_is_private(path: Path) -> None:
    """Raise DeviceError if others than its owner may read a file."""
    if os.name != "nt" and path.stat().st_mode & 0o077:
        raise DeviceError(f"Others may read the token in {path}; run: chmod 600 '{path}'.")
