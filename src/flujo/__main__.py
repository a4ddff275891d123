"""`flujo` and `python -m flujo`: the version is answered before anything else is imported."""

import io
import sys


def main() -> None:
    """Run the command line; the process ends with the command's exit code."""
    if sys.argv[1:] == ["--version"]:
        from flujo import __version__

        sys.stdout.write(f"flujo {__version__}\n")
        return
    from flujo.cli.app import app

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: no answer is lost to an encoding
    app(prog_name="flujo")


if __name__ == "__main__":
    main()
