"""The handlers that come with flowd, one file each."""
