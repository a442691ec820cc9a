"""What differs between the project on disk and what runs: builds, mounted files, inline files."""
