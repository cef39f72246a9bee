"""The status room: one snapshot of everything, and its representations for people and machines."""
