"""Looking at what is stored, to say why something stands still and whether it adds up."""
