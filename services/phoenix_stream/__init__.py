"""Brings the platform's events from Kafka into its stores: at least once, in order per key, poison set aside."""
