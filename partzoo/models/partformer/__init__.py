"""PartFormer: parts by the alignment of two representations."""
