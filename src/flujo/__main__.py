"""`flujo` and `python -m flujo`. `--version` and the help of `flujo` itself import no typer."""

import gc
import sys

from flujo.cli import root_help
from flujo.cli.streams import Streams


def main() -> None:
    """Run the command line; the process ends with the command's exit code."""
    streams = Streams()
    if sys.argv[1:] == ["--version"]:
        from flujo import __version__

        sys.stdout.write(f"flujo {__version__}\n")
        sys.exit(streams.close(0))
    if root_help.is_wanted(sys.argv[1:]):
        sys.stdout.write(root_help.text())
        sys.exit(streams.close(0))
    from flujo.cli import app, invocation

    invocation.log_lines.catch_messages()
    # A command creates many long-lived objects; frequent garbage collection finds little among them.
    gc.set_threshold(50_000, 20, 20)
    try:
        app.app(prog_name="flujo")
    except SystemExit as end:
        code = streams.close(end.code)
        if (event_loop := sys.modules.get("flujo.cli.event_loop")) is not None:
            event_loop.end_process(code)
        sys.exit(code)


if __name__ == "__main__":
    main()
