"""flowd broken on purpose, a line at a time, and the test that has to notice.

`table` has one mutant for each row of tests/README.md and for what other tests were found not to
see, `tree` runs a test in a copy of the repository with that line changed.
"""
