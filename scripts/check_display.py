"""Tell whether a real napari window could open here, on a virtual screen if there is no other.

Usage: python scripts/check_display.py [--packages]

Exits with status 1, and the line to type, when something is missing. With ``--packages`` it prints
the packages that Debian and Ubuntu need and nothing else. It runs before anything is installed, so
it needs the standard library only.
"""

import ctypes
import shutil
import sys

PACKAGES = (
    "xvfb",  # the virtual screen, and with it Mesa's software OpenGL
    "xauth",
    "libegl1",
    "libdbus-1-3",
    "libfontconfig1",
    "libglib2.0-0",
    "libxkbcommon-x11-0",
    "libxcb-cursor0",
    "libxcb-icccm4",
    "libxcb-keysyms1",
    "libxcb-shape0",
)
# Qt names only the first library it misses, and often the wrong one.
LIBRARIES = (
    "libGL.so.1",
    "libEGL.so.1",
    "libdbus-1.so.3",
    "libfontconfig.so.1",
    "libglib-2.0.so.0",
    "libxkbcommon-x11.so.0",
    "libxcb-cursor.so.0",
    "libxcb-icccm.so.4",
    "libxcb-keysyms.so.1",
    "libxcb-shape.so.0",
)


def loads(library: str) -> bool:
    """Tell whether the system's loader finds `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Check, and return the exit status."""
    if arguments == ["--packages"]:
        print(*PACKAGES)
        return 0
    if sys.platform != "linux":
        return 0
    missing = [] if shutil.which("Xvfb") else ["Xvfb"]
    missing += [library for library in LIBRARIES if not loads(library)]
    if not missing:
        return 0
    print(
        f"The tests open real windows, and this computer lacks {', '.join(missing)}.\n"
        "On Debian and Ubuntu, install what they need with (as root):\n"
        f"  apt-get update && apt-get install -y --no-install-recommends {' '.join(PACKAGES)}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
