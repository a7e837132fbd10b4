"""Runs the command line from a clone, not installed: `python cli.py self`."""

from tracin_func.cli.app import main

if __name__ == "__main__":
    main()
