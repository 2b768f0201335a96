"""The end-to-end check of a deployment: bots that see and hear each other, and where it broke."""
