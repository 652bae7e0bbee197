"""Weights of a user's own, from safetensors files and into them."""

import difflib
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from codesign.records.files import StrPath, write_atomic
from codesign.types import PyTree

# A tensor's name; that and how its axes are laid out; or None to keep what there is.
Source = str | tuple[str, str] | None
Names = Mapping[str, Source] | Callable[[str], Source]
_SUFFIX = ".safetensors"
_TYPES = {  # that NumPy holds, by their names in a file
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
}
_MOST_NAMED = 10  # of what is wrong, or left over


def load_weights(path: StrPath, like: PyTree, names: Names | None = None) -> PyTree:
    """Reads variables from a safetensors file, which holds arrays and no code.

        names = {
            "params/conv1/kernel": ("features.0.weight", "OIHW->HWIO"),
            "params/conv1/bias": "features.0.bias",
            "params/classifier/kernel": ("classifier.weight", "OI->IO"),
            "params/classifier/bias": None,  # another number of classes: stays
        }
        variables = load_weights("vgg.safetensors", variables, names)

    Args:
        path: File that ends in `.safetensors`.
        like: Variables of the same structure, shapes and types; arrays, or
            `jax.ShapeDtypeStruct`s.
        names: From the path of each variable to the tensor's name, alone or with its
            layout, where PyTorch's `OIHW->HWIO` of a convolution moves axis O of the file
            to the end. None keeps what `like` holds. A dictionary or a function; left
            out, a tensor has the path of its variable for a name, as `save_weights`
            writes it.

    Returns:
        Variables, once all of them are known to be right.

    Raises:
        ValueError: If the file is none, or is damaged; or naming each variable that is
            not in `names` and each tensor that is missing, not finite, of another shape
            or of another type.

    Warns:
        UserWarning: Naming tensors that no variable takes.
    """
    _check_path(path)
    flat, structure = jax.tree_util.tree_flatten_with_path(like)
    wrong: list[str] = []
    taken: set[str] = set()
    found = []
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            known = list(file.keys())
            for keys, leaf in flat:
                variable = _path_of(keys)
                try:
                    source = _source(variable, names)
                    if source is not None:
                        taken.add(source[0])
                        leaf = _read(file, known, *source, leaf)
                    elif isinstance(leaf, jax.ShapeDtypeStruct):
                        raise _Wrong("is kept, but `like` has its shape alone.")
                    found.append(leaf)
                except _Wrong as reason:
                    wrong.append(f"{variable!r} {reason}")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"`path` (={str(path)!r}) cannot be read: {error}") from error
    if wrong:
        raise ValueError(f"`path` (={str(path)!r}) does not fit `like`: {_some(wrong)}")
    if left := sorted(set(known) - taken):
        warnings.warn(
            f"`path` (={str(path)!r}) has {len(left)} tensor(s) that no variable takes: "
            f"{_some(left)}",
            stacklevel=2,
        )
    return jax.tree.unflatten(structure, found)


def save_weights(path: StrPath, variables: PyTree) -> None:
    """Writes variables as a safetensors file, each under its path: `params/conv1/kernel`.

    Args:
        path: File that ends in `.safetensors`; a reader sees the old or the new file.
        variables: Nested dictionaries of arrays.

    Raises:
        ValueError: If `path` ends otherwise, or an array has a type that NumPy lacks, such
            as bfloat16.
    """
    _check_suffix(path)
    tensors = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        name, tensor = _path_of(keys), np.ascontiguousarray(leaf)
        if tensor.dtype.name not in _TYPES.values():
            raise ValueError(
                f"`variables` holds {tensor.dtype.name} in {name!r}; write it as float32."
            )
        tensors[name] = tensor.reshape(np.shape(leaf))
    write_atomic(path, safetensors.numpy.save(tensors))


class _Wrong(Exception):
    """Why a variable cannot be read; what follows its name in an error."""


def _check_suffix(path: StrPath) -> None:
    suffix = pathlib.Path(path).suffix
    if suffix != _SUFFIX:
        raise ValueError(
            f"`path` (={str(path)!r}) ends in {suffix!r}, but must be a safetensors file; "
            f"others, such as pickles, may run code: save its tensors as `{_SUFFIX}`."
        )


def _check_path(path: StrPath) -> None:
    _check_suffix(path)
    if not pathlib.Path(path).is_file():
        raise ValueError(f"`path` (={str(path)!r}) is no file.")


def _path_of(keys: tuple) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _source(variable: str, names: Names | None) -> tuple[str, str] | None:
    """Name and layout of the tensor of a variable; None if it has none."""
    if names is None:
        return variable, ""
    if callable(names):
        source = names(variable)
    elif variable in names:
        source = names[variable]
    else:
        raise _Wrong("is not in `names`; give it a tensor's name, or None to keep it.")
    return (source, "") if isinstance(source, str) else source


def _read(file: Any, known: list[str], name: str, layout: str, like: Any) -> jax.Array:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"; the nearest is {close[0]!r}." if close else "."
        raise _Wrong(f"needs the tensor {name!r}, which is not there{hint}")
    header = file.get_slice(name)
    shape, axes = tuple(header.get_shape()), _axes(layout, name, header.get_shape())
    laid = tuple(shape[axis] for axis in axes)
    if laid != tuple(like.shape):
        turned = f", {laid} as {layout}" if layout else ""
        raise _Wrong(
            f"has shape {tuple(like.shape)}, but the tensor {name!r} has {shape}{turned}."
        )
    stored, expected = header.get_dtype(), jnp.dtype(like.dtype).name
    if _TYPES.get(stored) != expected:
        raise _Wrong(
            f"is {expected}, but the tensor {name!r} is {_TYPES.get(stored, stored)}; "
            f"write it as {expected}."
        )
    tensor = file.get_tensor(name)
    if not np.all(np.isfinite(tensor)):
        raise _Wrong(f"needs the tensor {name!r}, which is not finite.")
    return jnp.asarray(np.transpose(tensor, axes))


def _axes(layout: str, name: str, shape: list[int]) -> tuple[int, ...]:
    """Axes of the file in the order of the variable: `OI->IO` gives (1, 0)."""
    if not layout:
        return tuple(range(len(shape)))
    before, arrow, after = layout.partition("->")
    is_order = bool(arrow) and sorted(before) == sorted(after)
    if not is_order or len({*before}) < len(before) or len(before) != len(shape):
        raise _Wrong(
            f"has the layout {layout!r}, which is no order of the {len(shape)} axes of the "
            f"tensor {name!r}; write one such as 'OIHW->HWIO'."
        )
    return tuple(before.index(axis) for axis in after)


def _some(items: list[str]) -> str:
    more = len(items) - _MOST_NAMED
    shown = "; ".join(item.removesuffix(".") for item in items[:_MOST_NAMED])
    return f"{shown}; and {more} more." if more > 0 else f"{shown}."
