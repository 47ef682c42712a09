"""Install flowd as a service of this machine, upgrade it, and take it off again.

`flowd install` and `scripts/install` are the same code; what differs is where the program comes
from. Nothing outside the standard library is imported, so that a checkout installs itself with an
interpreter that has none of flowd's dependencies.

May use no other room. Called by `flowd install` and `flowd uninstall`, `scripts/install`,
`scripts/uninstall` and the Debian package.
"""

from __future__ import annotations


class InstallationFailed(Exception):
    """Nothing was changed, or the text says what; it is a sentence for a user."""
