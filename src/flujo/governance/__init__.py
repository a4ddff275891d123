"""What may leave: the one redactor that every sink goes through."""
