"""`python -m tracin_func`."""

from tracin_func.cli.app import main

if __name__ == "__main__":
    main()
