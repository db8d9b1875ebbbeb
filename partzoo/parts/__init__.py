"""Results of part discovery: label maps, their drawings, and their file formats."""
