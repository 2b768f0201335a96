"""Clips: media that is encoded and packetised once and sent by any number of participants. Pure."""
