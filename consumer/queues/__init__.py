"""Queues: lanes with retries and dead letters, on RabbitMQ or in a SQLite file."""
