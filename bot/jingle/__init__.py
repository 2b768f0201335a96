"""Jingle as Jicofo speaks it: model, XML codec, sources, session machine. Pure: no input or output here."""
