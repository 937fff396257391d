"""How a call goes out: drivers that perform what a plan asks for."""
