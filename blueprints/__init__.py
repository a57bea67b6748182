"""Drydock's own kinds, written as a stranger would write theirs: against `drydock.blueprint` alone."""
