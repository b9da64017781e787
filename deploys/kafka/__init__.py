"""Kafka: broker and controller (broker.py), and what is in it: topics, users and their rights (content.py)."""
