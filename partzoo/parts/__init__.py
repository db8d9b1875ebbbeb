"""Results of part discovery: label maps, how they are drawn, and how they are saved."""
