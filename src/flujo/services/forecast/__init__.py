"""What a run will probably cost, before it is run: from the blueprint alone, and from recorded runs."""
