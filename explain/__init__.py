"""Explanations of what a classifier sees in a recording, each with a test of whether it is true."""
