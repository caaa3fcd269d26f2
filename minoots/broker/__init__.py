"""NATS JetStream: the connection, the stream of events, and reading from it. Transport, never memory."""
