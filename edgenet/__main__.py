"""`edgenet`, and `python -m edgenet` where the folder of scripts is not on the PATH."""

import sys


def main() -> None:
    """Run the command line; interrupted while it is imported, it ends as it does later."""
    try:
        from edgenet.cli_errors import prepare_process

        prepare_process()
        from edgenet.cli import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)
    command_line(prog_name="edgenet")


if __name__ == "__main__":
    main()
