"""The result of part discovery: label maps, how they are drawn, and the files they are saved to."""
