"""Names the place in the source that an equation of a jaxpr came from."""

import os
import re
from collections.abc import Hashable
from typing import Any

import flax
import jax

from codesign.kernels import equations

_LIBRARIES = tuple(
    os.path.dirname(str(module.__file__)) + os.sep for module in (jax, flax)
)
_JAX = _LIBRARIES[0]
_INSTALLED = (
    f"{os.sep}site-packages{os.sep}",
    f"{os.sep}dist-packages{os.sep}",
    os.path.dirname(os.__file__) + os.sep,  # Python's own: JAX calls through contextlib
)
_WRAPPER = re.compile(r"[\w.]+\(")  # jvp( transpose( vmap( of a transformed scope


def module_path(prefix: str, eqn: Any) -> str:
    """The module path of an equation inside one whose path is `prefix`.

    Left out are the wrappers of transformations, `transpose(jvp(Net))/conv`; the formula
    that an einsum adds; a method beside its module, `RNN_0/Cell.scan_fn/Cell`; and what
    JAX says twice where it differentiates a `remat`, `transpose(jvp(Net))/b/jvp(Net)/b`.
    """
    stack = _WRAPPER.sub("", equations.name_stack(eqn)).replace(")", "")
    inner, half = stack.split("/"), (stack.count("/") + 1) // 2
    if equations.is_remat_back(eqn) and inner[:half] == inner[half:]:
        inner = inner[half:]
    parts = [part for part in (*prefix.split("/"), *inner) if part]
    parts = [part for part in parts if "->" not in part and part not in _MARKS]
    kept: list[str] = []
    for i, part in enumerate(parts):
        module, method, _ = part.partition(".")
        beside = (kept[-1:], parts[i + 1 : i + 2])
        if not (method and [module] in beside):
            kept.append(part)
    return "/".join(kept)


_MARKS = ("checkpoint", equations.RECOMPUTED)


def source_line(eqn: Any) -> tuple[str, Hashable]:
    """`file.py:line` of the user's code, and the call that an equation belongs to.

    The line is that of the innermost frame outside Python and its packages. The call is
    the innermost `__call__` up to there, told apart by its callers: a layer of a library,
    whatever functions of its own it uses.
    """
    frames = [f for f in equations.frames(eqn) if not f.file_name.startswith(_JAX)]
    if not frames:
        return "main", "main"
    user = next((i for i, f in enumerate(frames) if not _is_installed(f.file_name)), 0)
    owner = next(
        (i for i in range(user) if frames[i].function_name.endswith("__call__")), user
    )
    calls = tuple((f.file_name, f.line_num) for f in frames[owner + 1 :])
    frame = frames[user]
    call = (frames[owner].file_name, frames[owner].function_name, calls)
    return f"{_file(frame.file_name)}:{frame.line_num}", call


def is_library(jaxpr: Any) -> bool:
    """Whether JAX or Flax wrote the function that an inner jaxpr stands for.

    Such a jaxpr is cached: its tracebacks lead to the first caller, not to this one.
    """
    where = equations.source(jaxpr)
    return any(library in where for library in _LIBRARIES)


def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)


def _file(path: str) -> str:
    if "ipykernel_" in path or path.startswith("<ipython-input"):
        return "cell"
    if path.startswith("<"):
        return path.strip("<>").split(" ")[0] or "main"
    return os.path.basename(path)
