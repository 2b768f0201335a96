"""The shared media engine: one pacer and one receiver for all participants of an event loop."""
