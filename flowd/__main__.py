"""`python -m flowd`: the command of this interpreter, wherever its scripts stand."""

from flowd.cli.entry import main

if __name__ == "__main__":
    main()
