"""What several tests need: processes that serve roles, receivers of webhooks, waiting for a condition."""
