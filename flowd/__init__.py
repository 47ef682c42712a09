"""flowd: submit a DAG over HTTP, a daemon on your machine runs it and loses nothing."""

__version__ = "0.1.0"
