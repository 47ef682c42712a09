"""The Debian package, with one small script in place of the bundle: its files and its scripts.

What dpkg makes of it is tried in a bare Debian by `scripts/try_installs`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flowd import __version__
from scripts.building.debian_package import write_debian_package

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name in ("bin", "lib/python3.11/site-packages"):
        (folder / name).mkdir(parents=True)
    for name in ("python3", "flowd"):
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    # As a temporary folder is made.
    folder.chmod(0o700)
    return folder


@pytest.fixture
def package(bundle: Path, tmp_path: Path) -> Path:
    return write_debian_package(bundle, tmp_path)


@pytest.fixture
def unpacked(package: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    return folder


def test_its_command_its_units_and_its_owner(package: Path, unpacked: Path) -> None:
    command = unpacked / "usr/bin/flowd"
    assert command.resolve() == (unpacked / "usr/lib/flowd/bin/flowd").resolve()
    assert command.read_text().startswith("#!/usr/lib/flowd/bin/python3\n")
    unit = (unpacked / "usr/lib/systemd/system/flowd.service").read_text()
    assert "ExecStart=/usr/bin/flowd start --config /etc/flowd/flowd.toml\n" in unit
    assert "/opt/flowd" not in unit
    # Settings are no file of the package: they belong to the people of the machine.
    assert not (unpacked / "etc").exists()
    listed = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in listed.stdout.splitlines()} == {"root/root"}
    # The service is run by a user of its own.
    assert {line[7:10] for line in listed.stdout.splitlines()} <= {"r-x", "r--", "rwx"}


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_the_same_bundle_gives_the_same_package_to_everybody(
    umask: int, package: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    before = os.umask(umask)
    try:
        again = write_debian_package(bundle, tmp_path / "again")
    finally:
        os.umask(before)

    assert again.read_bytes() == package.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "is_refused"),
    [
        (["upgrade", "10.0.0", __version__], True),
        (["upgrade", "0.10.0", __version__], True),
        (["upgrade", __version__, __version__], False),
        (["upgrade", "0.1.0", __version__], False),
        (["install"], False),
        # It was removed before, by somebody who knows what they do.
        (["install", "10.0.0", __version__], False),
    ],
)
def test_an_older_version_is_refused_with_a_sentence(
    arguments: list[str], is_refused: bool, unpacked: Path
) -> None:
    ended = subprocess.run(
        [unpacked / "DEBIAN" / "preinst", *arguments], capture_output=True, text=True
    )

    assert ended.returncode == int(is_refused)
    if is_refused:
        assert f"flowd {arguments[1]} is installed, and this is {__version__}" in ended.stderr
