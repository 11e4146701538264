"""The sub-commands of `neurt`: thin calls into the package, with the words of their help."""
