"""The verbs of the phoenix command. Imported by the launcher on a bare Python: nothing but the standard library here."""
