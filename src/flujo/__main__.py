"""`flujo` and `python -m flujo`. `--version` imports nothing else."""

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

    # A command creates many long-lived objects; frequent garbage collection finds little among them.
    gc.set_threshold(50_000, 20, 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: output never fails on an encoding
    try:
        app(prog_name="flujo")
    except SystemExit as end:
        if (event_loop := sys.modules.get("flujo.cli.event_loop")) is not None:
            event_loop.end_process(end.code)
        raise


if __name__ == "__main__":
    main()
