"""Who is measured: a file each, with ``PEERS``. A new file is found by itself."""
