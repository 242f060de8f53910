"""What the product knows and remembers; nothing here knows of the web."""
