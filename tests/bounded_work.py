"""Work that goes wrong in all ways, in a module that other processes import quickly."""

import os
import time


def ends_well(*texts):
    yield from texts


def endless():
    while True:
        time.sleep(0.05)
    yield


def too_much():
    yield "first"
    yield str(len(bytearray(10**9)))


def crash():
    os.abort()
    yield


def refuse():
    yield "first"
    raise OSError("expected better")


def fail():
    yield str({}["nothing"])
