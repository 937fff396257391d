"""Where state lives: the configuration in force, live clusters, the thread that writes them."""
