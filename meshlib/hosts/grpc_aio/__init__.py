"""asyncio gRPC channels on the call engine."""
