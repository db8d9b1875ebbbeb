"""Results of part discovery: label maps, drawings of them, and their file formats."""
