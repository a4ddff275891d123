"""`flujo` and `python -m flujo`: the version is answered before anything else is imported."""

import gc
import io
import sys


def main() -> None:
    """Run the command line; the process ends with the command's exit code."""
    if sys.argv[1:] == ["--version"]:
        from flujo import __version__

        sys.stdout.write(f"flujo {__version__}\n")
        return
    from flujo.cli.app import app

    # A command makes many objects that stay to its end: looking for garbage among them is mostly in vain.
    gc.set_threshold(50_000, 20, 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: no answer is lost to an encoding
    app(prog_name="flujo")


if __name__ == "__main__":
    main()
