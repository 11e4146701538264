"""What the sub-commands share."""

import dataclasses


def chosen(options: type, flags: dict):
    """Options from the flags of the same names."""
    names = {field.name for field in dataclasses.fields(options)}
    return options(**{name: value for name, value in flags.items() if name in names})
