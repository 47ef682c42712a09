"""`scripts/install` and `scripts/uninstall`, and what the Debian package does after its files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flowd.installation import InstallationFailed
from flowd.installation.installing import configure, install, restart_packaged, uninstall
from flowd.installation.places import find_places

_PURPOSES = {
    "install": "Install flowd as a service of this machine, or upgrade the one that is there.",
    "uninstall": "Take the installed flowd off this machine; settings and data stay.",
}
_OF_A_PACKAGE = {"configure": configure, "restart": restart_packaged}


def main() -> None:
    verb = sys.argv[1]
    if verb in _OF_A_PACKAGE:
        _OF_A_PACKAGE[verb]()
        return
    parser = argparse.ArgumentParser(f"scripts/{verb}", description=_PURPOSES[verb])
    parser.add_argument("--root", type=Path, metavar="DIR", help="the same files below DIR")
    if verb == "uninstall":
        parser.add_argument("--purge", action="store_true", help="settings and data too")
    arguments = vars(parser.parse_args(sys.argv[2:]))
    try:
        places = find_places(arguments.pop("root"))
        print(install(places) if verb == "install" else uninstall(places, **arguments))
    except InstallationFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
