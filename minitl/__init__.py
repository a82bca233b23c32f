"""minitl."""
