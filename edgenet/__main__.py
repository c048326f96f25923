"""`python -m edgenet` is `edgenet`, where the folder of scripts is not on the PATH."""

from edgenet.cli import main

if __name__ == "__main__":
    main(prog_name="edgenet")
