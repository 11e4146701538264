"""`evaluate` modules of NEuRT, loadable offline by path."""
