"""The command line: thin commands over the library, and what they draw on the terminal."""
