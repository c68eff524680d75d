"""A server in a process of its own, and a line to it that can be slow or cut."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time

TOKEN = "a-word-that-only-the-two-know"


class ServerProcess:
    """`napari-unet serve` on the processor; `port` 0 takes a free one."""

    def __init__(self, port: int = 0, *options: str) -> None:
        command = [sys.executable, "-m", "napari_unet", "serve", "--device", "cpu"]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            env=os.environ | {"NAPARI_UNET_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()
        self.port = int(re.search(r" at \S+:(\d+);", self.line)[1])
        self.device = f"remote:127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


class SlowLine:
    """Passes bytes on to a port at a rate, until it is cut."""

    def __init__(self, target: int, bytes_per_second: float) -> None:
        self.target, self.rate, self.passed = target, bytes_per_second, 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._gate = socket.create_server(("127.0.0.1", 0))
        self.port = self._gate.getsockname()[1]
        self.device = f"remote:127.0.0.1:{self.port}"
        self._begin(self._accept)

    def cut(self) -> None:
        """Break every connection, and let nobody in."""
        self._close(self._gate)
        for end in self._open:
            self._close(end)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10)

    def _begin(self, work, *ends) -> None:
        thread = threading.Thread(target=work, args=ends, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._gate.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._open += [near, far]
                self._begin(self._pass, near, far)
                self._begin(self._pass, far, near)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                time.sleep(len(data) / self.rate)
                self.passed += len(data)
                target.sendall(data)
        self._close(source)
        self._close(target)

    @staticmethod
    def _close(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
