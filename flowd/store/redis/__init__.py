"""Speak to Redis: the client, the names of all keys, the scripts, and text that is no UTF-8.

The driver's errors become flowd's here, with one answer for each: wait, reconnect, load the scripts
again, or say that a key is of the wrong type. `keys` names every key there is.

May use: the redis package, and no other room. Imported by `store` only; import-linter checks it.
"""
