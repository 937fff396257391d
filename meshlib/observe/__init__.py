"""What others may know: OpenTelemetry, the log, a socket for `meshlib dump`. Nothing here can fail a call."""
