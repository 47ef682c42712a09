"""Open files in a folder that another user may own: no link leads out of it, and only what was made
here is given to its owner.

A command that root runs for a service would else write where that service's user planted a link to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Nothing but a plain file is opened in the end: a pipe would make us wait for its other side.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OwnedFolder:
    """An open folder; what is opened by name is what stands in it. Raises OSError."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hold(os.open(path, _FOLDER_FLAGS))

    def _hold(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._owner = os.fstat(descriptor)
        self.owner_id = self._owner.st_uid

    def __enter__(self) -> OwnedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def is_anothers(self) -> bool:
        """Whether root is at work in the folder of a user who is not root."""
        return os.geteuid() == 0 and self.owner_id != 0

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A plain file that is there already."""
        try:
            descriptor = os.open(name, flags | _FLAGS, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, "it is a link, which nobody follows", name) from error
        found = os.fstat(descriptor)
        # The owner of the folder can link to a file of root's by another name too (link(2)).
        is_foreign = self.is_anothers and found.st_uid != self.owner_id
        if not stat.S_ISREG(found.st_mode) or is_foreign:
            os.close(descriptor)
            raise OSError(errno.EPERM, "it is no plain file of the folder's owner", name)
        return descriptor

    def create(self, name: str, flags: int = os.O_WRONLY) -> int:
        """A new file of the folder's owner, which only they may read."""
        made = os.O_CREAT | os.O_EXCL
        descriptor = os.open(name, flags | made | _FLAGS, 0o600, dir_fd=self._descriptor)
        if self.is_anothers:
            os.fchown(descriptor, self.owner_id, self._owner.st_gid)
        return descriptor

    def open_or_create(self, name: str, flags: int) -> int:
        try:
            return self.open(name, flags)
        except FileNotFoundError:
            pass
        try:
            return self.create(name, flags)
        except FileExistsError:
            # Another process made it in between.
            return self.open(name, flags)

    def read(self, name: str) -> bytes:
        with os.fdopen(self.open(name), "rb") as file:
            return file.read()

    def replace(self, name: str, content: bytes) -> None:
        """Write a file that is whole at every moment, also after a power cut."""
        new = f"{name}.{os.getpid()}.new"
        # Left behind by a process of this number.
        self._unlink(new)
        try:
            with os.fdopen(self.create(new), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            self._unlink(new)
            raise
        os.fsync(self._descriptor)

    def inner(self, name: str, *, make: bool = False) -> OwnedFolder:
        """A folder in it; with `make` a new one of the same owner."""
        if make:
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        descriptor = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=self._descriptor)
        if make and self.is_anothers:
            os.fchown(descriptor, self.owner_id, self._owner.st_gid)
        folder = OwnedFolder.__new__(OwnedFolder)
        folder._hold(descriptor)
        return folder

    def rename(self, name: str, new: str) -> None:
        """Lasts through a power cut."""
        os.rename(name, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        os.fsync(self._descriptor)

    def remove_folder(self, name: str) -> None:
        """With all that is in it; nothing where there is none."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(name, dir_fd=self._descriptor)

    def try_to_write(self, size: int) -> None:
        """Raises OSError where a file of `size` bytes has no room, or nobody may write."""
        name = f"{os.getpid()}.room"
        try:
            with os.fdopen(self.create(name), "wb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return


def follow_own_links(path: Path) -> Path:
    """The path with its links resolved; a last one that neither root nor this user made stays.

    Open what comes of it with O_NOFOLLOW.
    """
    folder = path.parent.resolve() / path.name
    try:
        maker = folder.lstat().st_uid
    except OSError:
        return folder
    return path.resolve() if maker in (0, os.geteuid()) else folder


@contextmanager
def only_for_owner() -> Iterator[None]:
    """What is made meanwhile may be used by its owner alone; a chmod after it would follow a link.

    The mask is that of the whole process: not for use beside other threads.
    """
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
