"""The command line: words in, words out; the only package that sees a terminal."""
