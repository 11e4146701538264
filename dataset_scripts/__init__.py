"""From raw files to recordings, Parquet builds and windows."""
