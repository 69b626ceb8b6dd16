"""Documents to chunks: readers, chunking, and the split by document."""
