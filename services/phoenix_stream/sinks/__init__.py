"""One module per store, each with `open_sink(settings, credential)` (phoenix_stream.sink.Factory)."""
