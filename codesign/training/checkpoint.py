"""Checkpoints that notice damage: orbax writes, a sha256 manifest vouches."""

import contextlib
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from codesign.records.files import clear_unfinished, parse_json, remove, unfinished
from codesign.types import PyTree, is_whole

_MANIFEST = "manifest.sha256"
_META = "meta.json"
_STATE = "state"


class CheckpointDamagedWarning(UserWarning):
    """A checkpoint failed its checksums; an older one, or none, is used instead."""


class CheckpointStore:
    """The checkpoints of one run: a directory with a subdirectory a step.

    A step appears by one rename, after every byte and the manifest are on disk, so a
    kill at any moment leaves whole steps only. A step that fails its checksums is set
    aside under another name, never deleted or overwritten, and the one before is used.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2):
        """Uses `directory`, made when first saved to; keeps the newest `keep` steps.

        Raises:
            ValueError: If `directory` is no path, or `keep` is below 1.
        """
        if not isinstance(directory, str | os.PathLike):
            raise ValueError(f"`directory` must be a path, got {directory!r}.")
        if not is_whole(keep) or keep < 1:
            raise ValueError(f"`keep` must be a whole number >= 1, got {keep!r}.")
        self._directory = pathlib.Path(directory).absolute()
        self._keep = keep

    def __str__(self) -> str:
        return str(self._directory)

    def steps(self) -> list[int]:
        """Steps on disk, oldest first; whether they are sound is seen on restoring."""
        if not self._directory.is_dir():
            return []
        names = (path.name for path in self._directory.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if _is_step(name))

    def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
        """Writes `state` (arrays) and `meta` (JSON) as step `step`, atomically.

        A sound checkpoint of the same step is left as it is.
        """
        final = self._directory / str(step)
        if os.path.lexists(final):
            if _content(final):
                return
            self._set_aside(final)
        self._directory.mkdir(parents=True, exist_ok=True)
        clear_unfinished(self._directory)
        with unfinished(final) as scratch:
            scratch.mkdir()
            with _quiet(), ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(scratch / _STATE, _filled(state))
            content = {"arrays": _signature(state), "meta": meta}
            (scratch / _META).write_text(json.dumps(content))
            (scratch / _MANIFEST).write_text(_manifest(scratch))
            for path in (*_files(scratch), scratch / _MANIFEST, scratch):
                _fsync(path)
            os.rename(scratch, final)
        for old in self.steps()[: -self._keep]:
            remove(self._directory / str(old))

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """State and meta of the newest sound step, or None when there is none.

        Args:
            like: A pytree of arrays or `ShapeDtypeStruct`s with the state's structure.

        Warns:
            CheckpointDamagedWarning: For each damaged step, which is set aside.

        Raises:
            ValueError: If a sound checkpoint holds arrays of other shapes than `like`.
        """
        for step in reversed(self.steps()):
            path = self._directory / str(step)
            if (content := _content(path)) is None:
                self._set_aside(path)
                continue
            # Asked for other shapes, orbax leaves reads behind that fail much later.
            if content["arrays"] != _signature(like):
                raise ValueError(
                    f"The checkpoint {path} is sound but holds another model or "
                    "optimiser than this run's; use another `workdir`."
                )
            template = jax.tree.map(ocp.utils.to_shape_dtype_struct, _filled(like))
            with _quiet(), ocp.StandardCheckpointer() as checkpointer:
                found = checkpointer.restore(path / _STATE, template)
            state = jax.tree.map(
                lambda found, leaf: (
                    found if leaf.size else found[:0].reshape(leaf.shape)
                ),
                *(found, like),
            )
            return state, content["meta"]
        return None

    def clear(self) -> None:
        """Deletes the run's sound checkpoints; what was set aside stays."""
        if not self._directory.is_dir():
            return
        for step in self.steps():
            remove(self._directory / str(step))
        clear_unfinished(self._directory)
        if not any(self._directory.iterdir()):
            self._directory.rmdir()

    def _set_aside(self, path: pathlib.Path) -> None:
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        os.rename(path, aside)
        message = (
            f"Checkpoint {path} fails its checksums; it is kept as {aside.name} and the "
            "newest sound one before it is used."
        )
        logging.error(message)
        warnings.warn(message, CheckpointDamagedWarning, stacklevel=3)


def _signature(state: PyTree) -> list[str]:
    """Name, type and shape of every array, in order."""
    return [
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]


def _filled(state: PyTree) -> PyTree:
    """With one zero in place of every empty array, which orbax refuses to save."""
    return jax.tree.map(
        lambda leaf: leaf if leaf.size else jnp.zeros(1, leaf.dtype), state
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's thirty lines a save out of the log; its warnings stay."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name != _MANIFEST)


def _manifest(directory: pathlib.Path) -> str:
    """Lines as `sha256sum` writes them, and a last one over the lines themselves."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  "
        f"{path.relative_to(directory).as_posix()}\n"
        for path in _files(directory)
    ]
    total = hashlib.sha256("".join(lines).encode()).hexdigest()
    return "".join([*lines, f"{total}  {_MANIFEST}\n"])


def _is_step(name: str) -> bool:
    """Whether `save` writes such a name: 7, but neither 007 nor other scripts' digits."""
    return name.isascii() and name.isdigit() and name == str(int(name))


def _content(directory: pathlib.Path) -> dict[str, Any] | None:
    """The meta file of a checkpoint; None of one that is not sound."""
    try:
        stored = (directory / _MANIFEST).read_bytes()
        if stored != _manifest(directory).encode():
            return None
        content = parse_json((directory / _META).read_bytes())
    except (OSError, ValueError):
        return None
    has_all = isinstance(content, dict) and {"arrays", "meta"} <= content.keys()
    return content if has_all and isinstance(content["meta"], dict) else None


def _fsync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
