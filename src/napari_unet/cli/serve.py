"""`napari-unet serve`: lend this computer's GPU to napari-unet on other computers."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command
from napari_unet.cli.terminal import say
from napari_unet.core.errors import DeviceError
from napari_unet.core.io.files import expand_path, first_line
from napari_unet.core.server_access import (
    PORT,
    REMOTE,
    TOKEN_VARIABLE,
    ServerAddress,
    is_this_computer,
    read_token,
)
from napari_unet.core.settings.tasks import DEVICES

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path


def add_serve(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "serve", _serve, "Run networks for napari-unet on other computers"
    )
    command.add_argument(
        "--port", type=int, default=PORT, metavar="P", help=f"where to listen (default: {PORT})"
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; others than this computer's own need a certificate (default: "
        "127.0.0.1, which an ssh tunnel reaches)",
    )
    command.add_argument(
        "--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)} (default: auto)"
    )
    command.add_argument(
        "--token-file",
        type=expand_path,
        metavar="FILE",
        help=f"a file with the token that users need, which only you may read. Not given: "
        f"{TOKEN_VARIABLE}, or a new one that is printed",
    )
    tls = command.add_argument_group("encryption (for --host)")
    tls.add_argument(
        "--certificate", type=expand_path, metavar="FILE", help="certificate chain, PEM"
    )
    tls.add_argument("--key", type=expand_path, metavar="FILE", help="its private key, PEM")
    tls.add_argument(
        "--plain",
        action="store_true",
        help="no encryption: whoever is on the network between can read images and the token",
    )


def _serve(values: Namespace) -> int:
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise DeviceError(
            "A server needs aiohttp; run: pip install 'napari-unet[serve]'."
        ) from error
    if not 0 <= values.port < 2**16:
        raise DeviceError(f"--port is {values.port}; give one from 1 to 65535, or 0 for any.")
    context = _tls_context(values)
    token, new = _token(values.token_file)
    from napari_unet.nn.serve.server import serve
    from napari_unet.nn.serve.service import Service

    service = Service(values.device)

    def ready(port: int) -> None:
        host = values.host if values.host not in ("0.0.0.0", "::") else socket.gethostname()
        address = ServerAddress(host, port, context is not None)
        if new:
            print(f"token: {token}", flush=True)
        print(
            f"serving {service.device_name} at {address}; use it with --device {REMOTE}:{address}. "
            "Ctrl+C ends it.",
            flush=True,
        )

    try:
        serve(service, token, values.host, values.port, context, ready)
    except KeyboardInterrupt:
        say("the server has ended.")
    return 0


def _token(path: Path | None) -> tuple[str, bool]:
    """Return the token, and whether it is a new one."""
    if path is not None:
        return read_token(path), False
    if given := os.environ.get(TOKEN_VARIABLE, "").strip():
        return given, False
    return secrets.token_urlsafe(24), True


def _tls_context(values: Namespace) -> ssl.SSLContext | None:
    if bool(values.certificate) != bool(values.key):
        raise DeviceError("--certificate and --key belong together; give both.")
    if values.certificate is None:
        if not is_this_computer(values.host) and not values.plain:
            raise DeviceError(
                f"--host {values.host} is reached by others; give --certificate and --key, leave "
                "--host out and use an ssh tunnel (docs/remote.md), or add --plain in a network "
                "that you trust."
            )
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(values.certificate, values.key)
    except OSError as error:
        raise DeviceError(
            f"{values.certificate} and {values.key} are no certificate with its key "
            f"({first_line(error)})."
        ) from error
    return context
