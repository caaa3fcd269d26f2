"""The REST door: Litestar over granian. Turns requests into calls of the service and errors into problem details."""
