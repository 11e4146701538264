"""One small reader per file format: a path in, an iterator of `Recording`s out."""
