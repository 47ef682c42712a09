"""Copy the data of the embedded server to another folder while it runs, and put such a copy back.

What the manifest names is one state of the data: the files before the last never change again, and
the last only grows. So whoever has all of them open has a backup, also when the server rewrites
them meanwhile and takes away their names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flowd.errors import AlreadyRunning
from flowd.owned_folder import OwnedFolder
from flowd.supervisor.embedded_server import DATA_FOLDER, RESTORING_FOLDER
from flowd.supervisor.lock import DataDirLock
from flowd.tokens import TOKENS_FILE

_MANIFEST: Final = "appendonly.aof.manifest"
_BACKUP: Final = re.compile(r"flowd-\d{8}T\d{6}\.\d{3}Z")
_UNFINISHED: Final = ".unfinished"
_CHUNK_BYTES: Final = 1 << 20
# A server of a full second's data rewrites its files far less often than they are opened.
_TRIES: Final = 20


class BackupRefused(Exception):
    """Nothing was changed; the text says why, and what to do."""


def back_up(data_dir: Path, folder: Path, *, keep: int | None = None) -> Path:
    """Make a backup in `folder` that is there as a whole or not at all, and return its path.

    Everything that was acknowledged before the call is in it; with durability `everysec`, where the
    server may put off a write (Redis, aof.c), what is two seconds old. Of earlier ones, only the
    newest stay, `keep` with this one; None lets all stay. Raises OSError and BackupRefused.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(folder):
        unfinished = folder / _UNFINISHED
        # Of one that was cut off.
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        try:
            with OwnedFolder(data_dir) as source, OwnedFolder(unfinished) as target:
                _copy_data(source, target, DATA_FOLDER)
                _copy_tokens(source, target)
            # Two within a millisecond would have one name.
            while (made := folder / f"flowd-{_now()}").exists():
                time.sleep(0.001)
            unfinished.rename(made)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        _sync(folder)
        if keep is not None:
            for old in _backups(folder)[:-keep]:
                shutil.rmtree(old)
    return made


def restore(backup: Path, data_dir: Path, *, replace: bool) -> Path | None:
    """Make the data directory's data those of the backup; the path of what was there before.

    Data that are there already are kept beside them, and only with `replace`. Raises OSError,
    BackupRefused, and AlreadyRunning while a flowd runs there.
    """
    if not (backup / DATA_FOLDER / _MANIFEST).is_file():
        found = _backups(backup) if backup.is_dir() else []
        newest = f"; the newest backup in it is {found[-1]}" if found else ""
        raise BackupRefused(f"{backup} is no backup{newest}")
    lock = _lock(data_dir)
    try:
        with OwnedFolder(backup) as source, OwnedFolder(data_dir) as target:
            has_data = (data_dir / DATA_FOLDER).exists()
            if has_data and not replace:
                raise BackupRefused(
                    f"there are data in {data_dir}; --replace moves them aside, where they are kept"
                )
            target.remove_folder(RESTORING_FOLDER)
            _copy_data(source, target, RESTORING_FOLDER)
            before = f"{DATA_FOLDER}.before-{_now()}"
            if has_data:
                target.rename(DATA_FOLDER, before)
            target.rename(RESTORING_FOLDER, DATA_FOLDER)
            # Older ones would bring revoked tokens back.
            if not (data_dir / TOKENS_FILE).exists():
                _copy_tokens(source, target)
    finally:
        lock.release()
    return data_dir / before if has_data else None


def _lock(data_dir: Path) -> DataDirLock:
    try:
        return DataDirLock(data_dir, lets_root_in=True)
    except AlreadyRunning as error:
        raise AlreadyRunning(
            f"flowd runs in {data_dir}: stop it with `flowd stop` before a restore"
        ) from error


def _copy_data(source: OwnedFolder, target: OwnedFolder, name: str) -> None:
    try:
        with source.inner(DATA_FOLDER) as files, target.inner(name, make=True) as copies:
            with ExitStack() as opened:
                manifest, descriptors = _open_all(files, opened)
                for file, descriptor in descriptors.items():
                    _copy(descriptor, copies, file)
            # Last: without it there are no data.
            copies.replace(_MANIFEST, manifest)
    except FileNotFoundError as error:
        raise BackupRefused(f"there are no data of a flowd: {error.filename} is missing") from error


def _open_all(files: OwnedFolder, opened: ExitStack) -> tuple[bytes, dict[str, int]]:
    """The lines of the manifest that name data, and a descriptor of each file they name."""
    for attempt in range(1, _TRIES + 1):
        lines = [line for line in files.read(_MANIFEST).splitlines() if not _is_history(line)]
        descriptors: dict[str, int] = {}
        with ExitStack() as so_far:
            try:
                for line in lines:
                    name = os.fsdecode(line.split()[1])
                    descriptors[name] = files.open(name)
                    so_far.callback(os.close, descriptors[name])
            except FileNotFoundError:
                # The server has just put other files in its place: the manifest names them.
                if attempt == _TRIES:
                    raise
                continue
            opened.push(so_far.pop_all())
            return b"\n".join(lines) + b"\n", descriptors
    raise AssertionError("unreachable")


def _is_history(line: bytes) -> bool:
    """A file that the server is about to delete (`type h` of the manifest; Redis, aof.c)."""
    return not line.startswith(b"file ") or b" type h" in line


def _copy(descriptor: int, target: OwnedFolder, name: str) -> None:
    # What is written from here on belongs to the next backup.
    left = os.fstat(descriptor).st_size
    with os.fdopen(target.create(name), "wb") as copy:
        while left > 0 and (chunk := os.read(descriptor, min(left, _CHUNK_BYTES))):
            copy.write(chunk)
            left -= len(chunk)
        copy.flush()
        os.fsync(copy.fileno())


def _copy_tokens(source: OwnedFolder, target: OwnedFolder) -> None:
    with contextlib.suppress(FileNotFoundError):
        target.replace(TOKENS_FILE, source.read(TOKENS_FILE))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupRefused(f"another backup to {folder} is under way") from error
    finally:
        os.close(descriptor)


def _backups(folder: Path) -> list[Path]:
    """The whole ones, the oldest first."""
    return sorted(one for one in folder.iterdir() if _BACKUP.fullmatch(one.name) and one.is_dir())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
