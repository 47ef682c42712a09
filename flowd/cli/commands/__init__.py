"""The commands: a file for each group of verbs.

A command says what it does in its docstring, which is its help text; it prints what is for programs
to stdout and what is for people to stderr, and ends with a code of `exit_codes`.

May use: the rest of `cli`, and below. Called by `main`, by name.
"""
