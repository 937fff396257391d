"""HTTP/1.1 and HTTP/2 client connections: sans-I/O machines, and the drivers that move their bytes."""
