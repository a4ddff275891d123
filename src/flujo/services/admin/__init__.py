"""Project maintenance: doctor, purge, scaffold, local models and type export."""
