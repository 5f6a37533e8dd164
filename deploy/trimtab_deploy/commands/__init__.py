"""What each command does. Imported when it is called."""
