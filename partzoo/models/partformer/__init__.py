"""PartFormer discovers parts by aligning two representations of an image."""
