"""The property of whatever reads a file: a damaged one is refused clearly, or read."""

import contextlib
import pathlib
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

MOST_SECONDS = 5.0  # of CPU time for one file
MOST_BYTES = 1 << 30  # of address space beyond what the process had
_DEEP = b"[" * 600 + b"]" * 600
_NUMBERS = (
    *(b"0", b"-1", b"7", b"2147483648", b"9223372036854775807", b"1e308", b"nan"),
    *(b"null", b'"7"', b"1e999", b"9" * 5000, _DEEP, b"[" * 100_000),
)
_BYTES = (b"\xff" * 9 + b"\x01", b"\xff" * 4, b"\x80\x80\x80\x80\x10", b"\0" * 8, b"$")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four changes, each of a bit, a stretch or a number."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(7)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[start:end] = rng.randbytes(end - start)
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            data[start:start] = data[start:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            data[start:end] = rng.choice(_BYTES)
        elif kind == 5 and rng.random() < 0.2:
            del data[start:]
        else:
            _set_number(data, start, rng)
    return bytes(data)


def _set_number(data: bytearray, start: int, rng: random.Random) -> None:
    """Replaces the first number that is written in digits behind `start`."""
    digits = b"0123456789"
    while start < len(data) and data[start] not in digits:
        start += 1
    end = start
    while end < len(data) and data[end] in digits:
        end += 1
    data[start:end] = rng.choice(_NUMBERS)


def check(
    read: Callable[[pathlib.Path], Any],
    path: pathlib.Path,
    *,
    errors: tuple[type[Exception], ...] = (ValueError,),
    accepts: Callable[[Any], bool],
    count: int = 300,
    seed: int = 0,
) -> int:
    """Reads mutations of a file, and fails for the first that is not handled well.

    Each raises one of `errors`, which names the file or its folder, or gives what
    `accepts` takes; within `MOST_SECONDS` and `MOST_BYTES`.

    Args:
        read: Gets the path of a file; `path`'s own content is read without an error.
        path: A sound file; mutations take its place and it is restored.
        errors: Exactly these types, or the package's own kinds of them: an error of a
            library that leaks through is none.
        accepts: Whether a result is right, such as equal to the sound one's.
        count: Mutations.
        seed: Of the first; the others' follow it.

    Returns:
        How many mutations were read.
    """
    content = path.read_bytes()
    assert accepts(read(path))
    outcomes = []
    try:
        for index in range(seed, seed + count):
            path.write_bytes(mutated(content, random.Random(index)))
            start = time.process_time()
            with _limits():
                outcomes.append(_outcome(read, path, errors, accepts))
            took_s = time.process_time() - start
            assert outcomes[-1] in ("read", "refused"), f"seed {index}: {outcomes[-1]}"
            assert took_s < MOST_SECONDS, f"seed {index}: took {took_s} s"
    finally:
        path.write_bytes(content)
    return outcomes.count("read")


def _outcome(
    read: Callable, path: pathlib.Path, errors: tuple, accepts: Callable
) -> str:
    """`read`, `refused`, or what is wrong."""
    try:
        return "read" if accepts(read(path)) else "a wrong result"
    except Exception as error:
        kind = type(error)
        is_ours = issubclass(kind, errors) and kind.__module__.startswith("codesign")
        is_named = path.name in str(error) or str(path.parent) in str(error)
        is_clear = (is_ours or kind in errors) and is_named
        return "refused" if is_clear else repr(error)


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """A MemoryError or TimeoutError in place of a process that swallows the machine."""

    def stop(*_):
        raise TimeoutError(f"took over {MOST_SECONDS} s")

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MOST_BYTES
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
