"""What is done with the record of a run afterwards: replay, fork, comparison, export."""
