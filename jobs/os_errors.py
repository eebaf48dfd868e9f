"""What an ``OSError`` means, in words that say what to do about it."""

from __future__ import annotations

import errno

_WORDS = {
    errno.ENOENT: "there is no {file}, or no folder to make it in",
    errno.EACCES: "this user may not read or write {file}: change its permissions, or name another",
    errno.EPERM: "this user may not read or write {file}: change its permissions, or name another",
    errno.EEXIST: "{file} exists: name another",
    errno.ENOTDIR: "{file} lies below a file, which is no folder: name another",
    errno.EISDIR: "{file} is a folder: name a file",
    errno.EROFS: "{file} lies on a file system that can only be read: name another",
    errno.ENOSPC: "the disk of {file} is full: make room, or name a place on another",
    errno.EDQUOT: "the disk quota for {file} is used up: make room, or name a place on another",
    errno.ENAMETOOLONG: "the name {file} is too long: name another",
    errno.ELOOP: "{file} is a link that leads in a circle: name another",
    errno.ENXIO: "{file} is no file that can be read: name another",
    errno.EMFILE: "this process has too many open files: raise `ulimit -n`",
    errno.EIO: "{file} cannot be read or written ({reason})",
}


def explain(error: OSError) -> str:
    """One sentence for people: which file, what is wrong, and what to do."""
    file = _named(error)
    reason = error.strerror or str(error) or type(error).__name__
    words = _WORDS.get(error.errno or 0, "{file} cannot be used: {reason}")
    return words.format(file=file, reason=reason)


def _named(error: OSError) -> str:
    name = error.filename
    if name is None:
        return "a file"
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
