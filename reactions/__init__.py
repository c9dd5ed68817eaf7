"""Process managers: an event, or a due time, becomes a command. None is needed yet; the layers already have their place."""
