"""What is remembered: SQLAlchemy Core over SQLite. Each function takes an open transaction."""
