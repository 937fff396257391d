"""What is compared: a file each, with ``CASE``. A new file is found by itself."""
