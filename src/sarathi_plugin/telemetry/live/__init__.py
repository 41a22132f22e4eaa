"""What the live page shows: an engine writes it into shared memory, API servers read it and make a document of it."""
