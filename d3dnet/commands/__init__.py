"""One module a command: `add` declares its options, `_run` does it."""
