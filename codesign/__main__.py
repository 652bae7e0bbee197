"""Launchers from anywhere: `codesign NAME --preset=...`, or `python -m codesign NAME`."""

import ast
import importlib.util
import pathlib
import runpy
import signal
import sys

# Beside this package, in a checkout and in an installation alike. Another folder of that
# name may come first on the path, so it is not simply imported.
_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "experiments"


def launchers() -> dict[str, str]:
    """Names of the launchers with the first line of what each says of itself."""
    found = {}
    for path in sorted(_FOLDER.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "python -m experiments." in text:
            found[path.stem] = text.splitlines()[0].partition(": python -m")[0]
    found.pop("launch", None)
    return found


def main() -> None:
    """Runs the launcher that the first argument names with the other arguments."""
    known = launchers()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in known:
        lines = [f"  {each:18} {text}" for each, text in known.items()]
        usage = "\n".join(["Usage: codesign NAME [--help] [--SETTING=...]", *lines])
        if name in ("--help", "-h"):
            print(usage)
            return
        raise SystemExit(f"error: no launcher is called {name!r}.\n{usage}")
    spec = importlib.util.spec_from_file_location(
        "experiments",
        _FOLDER / "__init__.py",
        submodule_search_locations=[str(_FOLDER)],
    )
    assert spec is not None
    sys.modules["experiments"] = importlib.util.module_from_spec(spec)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the launcher is imported
    sys.argv = [f"codesign {name}", *sys.argv[2:]]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
