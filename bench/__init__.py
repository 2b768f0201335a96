"""The benchmark: what participants cost, beside what they cost with aiortc as it is."""
