"""What `scripts/try_installs` installs: this version, and the same one as if it were older."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from flowd import __version__
from scripts.building.bundle import build_bundle, compile_all
from scripts.building.debian_package import write_debian_package
from scripts.building.single_file import write_single_file
from scripts.building.wheel import build_wheel

OLDER = "0.1.9"


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "wheel"]
    # redis needs it before Python 3.11.3, which the bare root may have; a later pip leaves it out.
    needed = [build_wheel(folder), "async-timeout"]
    subprocess.run([*pip, "--wheel-dir", wheels, *needed], check=True)
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place)
        build_bundle(bundle)
        write_single_file(bundle, folder / "flowd-new")
        write_debian_package(bundle, folder).rename(folder / "new.deb")
        (module,) = bundle.glob("lib/python3*/*-packages/flowd/__init__.py")
        module.write_text(module.read_text().replace(__version__, OLDER))
        compile_all(bundle, module)
        write_single_file(bundle, folder / "flowd-old")
        write_debian_package(bundle, folder, OLDER).rename(folder / "old.deb")


if __name__ == "__main__":
    main()
